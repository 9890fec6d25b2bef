//! What gridgate brings along: defaults, roles, and the names of its profiles.

use super::origin::{Origin, Text};
use super::problem::Problems;
use super::toml_file;
use super::tree::{Kind, Table, Value};

/// Node profiles that need no file in the site.
pub const PROFILES: &[&str] = &["base", "ce", "se", "ui", "wn", "install"];

/// Golden images whose definitions come along.
pub const IMAGES: [&str; 2] = ["debian-12", "debian-13"];

/// Shipped defaults and roles.
#[derive(Debug)]
pub struct Shipped {
    /// For all guests.
    pub defaults: Table,
    /// By role.
    roles: Table,
}

impl Shipped {
    /// Reads the tables that were compiled in.
    pub fn read() -> Self {
        let text = Text::new("shipped.toml".into(), include_str!("shipped.toml").to_owned());
        let table = toml_file::read(&text, &mut Problems::default()).unwrap_or_default();
        let mut defaults = table.table("defaults").cloned().unwrap_or_default();
        mark(&mut defaults, &Origin::note("shipped default"));
        let mut roles = table.table("roles").cloned().unwrap_or_default();
        for entry in &mut roles.entries {
            if let Kind::Table(role) = &mut entry.value.kind {
                mark(role, &Origin::note(format!("shipped default of role '{}'", entry.key)));
            }
        }
        Self { defaults, roles }
    }

    /// What a shipped role says; a site's own role says nothing here.
    pub fn role(&self, name: &str) -> Option<&Table> {
        self.roles.table(name)
    }
}

fn mark(table: &mut Table, origin: &Origin) {
    for entry in &mut table.entries {
        entry.origin = origin.clone();
        mark_value(&mut entry.value, origin);
    }
}

fn mark_value(value: &mut Value, origin: &Origin) {
    value.origin = origin.clone();
    if let Kind::List(values) = &mut value.kind {
        values.iter_mut().for_each(|value| mark_value(value, origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{keys, schema};

    #[test]
    fn what_is_shipped_is_as_good_as_what_a_site_must_be() {
        let shipped = Shipped::read();
        let mut problems = Problems::default();
        schema::check(&shipped.defaults, keys::GUEST, keys::Scope::Defaults, &mut problems);
        for entry in &shipped.roles.entries {
            let role = shipped.role(&entry.key).expect("a role is a table");
            schema::check(role, keys::GUEST, keys::Scope::Defaults, &mut problems);
        }
        assert_eq!(problems.to_string(), "");
        assert_eq!(shipped.roles.entries.len(), 5);
        assert_eq!(shipped.defaults.get("image").and_then(|e| e.value.text()), Some(IMAGES[0]));
    }
}

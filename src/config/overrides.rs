//! Values from the command line: `--set ce.memory=1G`, `--set domain=example.org`, `--set networks.lan.mode=nat`.

use super::checks;
use super::keys::{self, Key};
use super::origin::Origin;
use super::problem::Problems;
use super::schema;
use super::shape::Shape;
use super::tree::{Entry, Table};

/// What the command line sets.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Keys of the site, with `defaults` and `networks` within.
    pub site: Table,
    /// Keys of guests, by guest or by file of counted guests.
    pub guests: Vec<(String, Origin, Table)>,
}

impl Overrides {
    /// Reads `KEY=VALUE` words; in a list the values are parted by blanks.
    pub fn read(words: &[String], problems: &mut Problems) -> Self {
        let mut overrides = Self::default();
        for word in words {
            let origin = Origin::set(&super::shape::shown(word));
            if overrides.add(word, &origin, problems).is_none() {
                let hint =
                    "for example: --set ce.memory=1G, --set domain=example.org, --set networks.lan.mode=nat";
                problems.add(&origin, "this is not KEY=VALUE", hint);
            }
        }
        overrides
    }

    /// The table for a guest or for a file of counted guests.
    pub fn guest(&self, name: &str) -> Option<&Table> {
        self.guests.iter().find(|(guest, ..)| guest == name).map(|(.., table)| table)
    }

    fn add(&mut self, word: &str, origin: &Origin, problems: &mut Problems) -> Option<()> {
        let (path, content) = word.split_once('=')?;
        let parts: Vec<&str> = path.split('.').collect();
        if let [.., "variables", name] = parts.as_slice() {
            return self.variable(&parts, name, content, origin, problems);
        }
        let (known, target) = match parts.as_slice() {
            [_] => (keys::SITE, &mut self.site),
            ["defaults", _] => (keys::GUEST, self.site.table_mut("defaults", origin)?),
            ["networks", network, _] => {
                (keys::NETWORK, self.site.table_mut("networks", origin)?.table_mut(network, origin)?)
            }
            ["defaults", table, _] => {
                let defaults = self.site.table_mut("defaults", origin)?;
                (inner(table)?, defaults.table_mut(table, origin)?)
            }
            [guest, table, _] => (inner(table)?, self.guest_mut(guest, origin).table_mut(table, origin)?),
            [guest, _] => (keys::GUEST, self.guest_mut(guest, origin)),
            _ => return None,
        };
        let name = parts.last()?;
        let Some(key): Option<&Key> = keys::find(known, name) else {
            schema::unknown(origin, name, known, problems);
            return Some(());
        };
        let value = key.shape.read(content, origin);
        target.set(Entry {
            key: key.name.to_owned(),
            written: (*name).to_owned(),
            origin: origin.clone(),
            value,
        });
        Some(())
    }

    /// `ce.variables.queue=grid`, `defaults.variables.queue=grid`, `variables.queue=grid`.
    fn variable(
        &mut self,
        parts: &[&str],
        name: &str,
        content: &str,
        origin: &Origin,
        problems: &mut Problems,
    ) -> Option<()> {
        let target = match parts {
            ["variables", _] => &mut self.site,
            ["defaults", ..] if parts.len() == 3 => self.site.table_mut("defaults", origin)?,
            [guest, ..] if parts.len() == 3 => self.guest_mut(guest, origin),
            _ => return None,
        };
        if let Err(why) = checks::variable(name) {
            problems.add(origin, format!("name '{}' {why}", super::shape::shown(name)), "");
            return Some(());
        }
        let value = Shape::Any.read(content, origin);
        let (key, written) = (name.to_owned(), name.to_owned());
        target.table_mut("variables", origin)?.set(Entry { key, written, origin: origin.clone(), value });
        Some(())
    }

    fn guest_mut(&mut self, name: &str, origin: &Origin) -> &mut Table {
        let at = match self.guests.iter().position(|(guest, ..)| guest == name) {
            Some(at) => at,
            None => {
                self.guests.push((name.to_owned(), origin.clone(), Table::default()));
                self.guests.len() - 1
            }
        };
        &mut self.guests[at].2
    }
}

/// The keys of a table within a guest.
fn inner(table: &str) -> Option<&'static [Key]> {
    match keys::find(keys::GUEST, table)?.shape {
        Shape::Keys(keys) => Some(keys),
        _ => None,
    }
}

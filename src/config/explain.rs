//! Where each value of a site came from, and what it overrode.

use serde::Serialize;

use super::layers::Layers;
use super::origin::Origin;
use super::suggest;

/// All values of a site with their origins.
#[derive(Debug, Clone, Default)]
pub struct Explain(Vec<Explained>);

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// `domain`, `networks.lan.bridge`, `ce.memory`.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
    /// `file:line:column`, `--set ...`, `shipped default ...` or `derived from ...`.
    pub origin: String,
    /// What would have held without it, the strongest first.
    pub overrides: Vec<Overridden>,
}

/// A value that another one overrode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overridden {
    /// The value, as TOML.
    pub value: String,
    /// Where it stands.
    pub origin: String,
}

impl Explain {
    /// Notes a value that stands in some layer; nothing if it stands in none.
    pub(super) fn layered(&mut self, scope: &str, key: &str, layers: &Layers<'_>) {
        let Some(entry) = layers.pick(key) else { return };
        let overridden = |e: &super::tree::Entry| Overridden {
            value: e.value.to_string(),
            origin: e.value.origin.to_string(),
        };
        self.0.push(Explained {
            key: format!("{scope}{key}"),
            value: entry.value.to_string(),
            origin: entry.value.origin.to_string(),
            overrides: layers.overridden(key).into_iter().map(overridden).collect(),
        });
    }

    /// Notes a value that was worked out; it takes the place of a noted one, which it was worked out from.
    pub(super) fn derived(&mut self, scope: &str, key: &str, value: &str, from: &str) {
        let key = format!("{scope}{key}");
        let origin = Origin::note(format!("derived from {from}")).to_string();
        let explained = Explained { key, value: value.to_owned(), origin, overrides: Vec::new() };
        match self.0.iter_mut().find(|e| e.key == explained.key) {
            Some(old) => (old.value, old.origin) = (explained.value, explained.origin),
            None => self.0.push(explained),
        }
    }

    /// The values that a query names: a whole key (`ce.memory`), its last part (`memory`: of all guests), or its
    /// first parts (`ce`, `networks.lan`: all that they have). A query that names none gets a hint.
    pub fn find(&self, query: &str) -> Result<Vec<&Explained>, String> {
        let exact: Vec<&Explained> = self.0.iter().filter(|e| e.key == query).collect();
        if !exact.is_empty() {
            return Ok(exact);
        }
        let named = |e: &&Explained| {
            e.key.strip_suffix(query).is_some_and(|rest| rest.ends_with('.'))
                || e.key.strip_prefix(query).is_some_and(|rest| rest.starts_with('.'))
        };
        let found: Vec<&Explained> = self.0.iter().filter(named).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let known =
            self.0.iter().flat_map(|e| [e.key.as_str(), e.key.rsplit('.').next().unwrap_or_default()]);
        Err(match suggest::nearest(query, known) {
            Some(best) => format!("did you mean '{best}'?"),
            None => "give a key such as 'domain', 'ce.memory' or 'memory'".to_owned(),
        })
    }
}

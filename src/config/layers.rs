//! Tables one above the other: later wins, key by key.

use super::tree::{Entry, Table};

/// Tables from the weakest to the strongest.
#[derive(Debug, Clone, Default)]
pub struct Layers<'a>(pub Vec<&'a Table>);

impl<'a> Layers<'a> {
    /// The entry that wins.
    pub fn pick(&self, key: &str) -> Option<&'a Entry> {
        self.0.iter().rev().find_map(|table| table.get(key))
    }

    /// The entries that the winner overrides, the strongest first.
    pub fn overridden(&self, key: &str) -> Vec<&'a Entry> {
        self.0.iter().rev().filter_map(|table| table.get(key)).skip(1).collect()
    }

    /// The table of that key in each layer that has one.
    pub fn inner(&self, key: &str) -> Layers<'a> {
        Layers(self.0.iter().filter_map(|table| table.table(key)).collect())
    }

    /// All keys, in the order in which they first stand.
    pub fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for entry in self.0.iter().flat_map(|table| &table.entries) {
            if !names.contains(&entry.key.as_str()) {
                names.push(&entry.key);
            }
        }
        names
    }
}

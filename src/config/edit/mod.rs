//! People's files, changed in place: what is not spoken of stays as it was typed, comments above all.
//!
//! Whatever a change comes to is read again before it is used: it must say what was meant, and of everything else the same as
//! before.

mod shell;
mod toml;

use anyhow::{Result, bail};

use super::keys::{self, Key};
use super::origin::{Origin, Text};
use super::problem::Problems;
use super::shape::Shape;
use super::tree::{Kind, Table, Value};
use super::{shell_file, toml_file};

/// What is to be said of a key.
#[derive(Debug, Clone)]
pub enum Change {
    /// This.
    Set(&'static Key, Value),
    /// Nothing.
    Remove(&'static Key),
}

impl Change {
    /// `KEY=VALUE` for a guest's file.
    pub fn read(word: &str) -> Result<Self> {
        let Some((name, content)) = word.split_once('=') else {
            bail!("'{word}' is not KEY=VALUE, such as memory=512M")
        };
        let Some(key) = keys::find(keys::GUEST, name) else {
            let known = keys::GUEST.iter().map(|key| key.name);
            bail!("unknown key '{name}'\nhint: {}", super::suggest::hint(name, known, "known keys"))
        };
        let plain = matches!(
            key.shape,
            Shape::Text(_)
                | Shape::Texts(..)
                | Shape::Integer(..)
                | Shape::Flag
                | Shape::Size(..)
                | Shape::Span
                | Shape::Amount(_)
        );
        if !plain {
            bail!("'{name}' is a table; write it into the guest's file by hand");
        }
        let value = key.shape.read(content, &Origin::note("command line"));
        match key.shape.wrong(name, &value).first() {
            None => Ok(Self::Set(key, value)),
            Some((_, why)) => bail!("{why}\nhint: {}", keys::example(key, name, &Origin::note("x.toml"))),
        }
    }

    /// The key that is spoken of.
    pub fn key(&self) -> &'static Key {
        match self {
            Self::Set(key, _) | Self::Remove(key) => key,
        }
    }
}

/// A guest's file with changes. A file that could not be read, or cannot be changed without touching what is not spoken of, is
/// an error with its place.
pub fn guest(text: &Text, changes: &[Change]) -> Result<String> {
    let content = match text.file().ends_with(".conf") {
        true => shell::change(text, changes)?,
        false => toml::change(text, changes)?,
    };
    let (before, after) = (read(text, What::Guest)?, read(&with(text, &content), What::Guest)?);
    verify(text, &before, &after, changes)?;
    Ok(content)
}

/// A site file whose list of guests has one more, behind another one if that is in it; `None` if it has no list, which means
/// all guests that have a file.
pub fn list(text: &Text, name: &str, behind: &str) -> Result<Option<String>> {
    let before = read(text, What::Site)?;
    let Some(entry) = before.get("guests") else { return Ok(None) };
    let mut names: Vec<String> = entry.value.texts().into_iter().map(|(name, _)| name.to_owned()).collect();
    let at = names.iter().position(|known| known == behind).map_or(names.len(), |at| at + 1);
    names.insert(at, name.to_owned());
    let content = match text.file().ends_with(".conf") {
        true => shell::list(text, &names, at)?,
        false => toml::list(text, name, at)?,
    };
    let value = |name: String| Value { kind: Kind::Text(name), origin: entry.origin.clone() };
    let list = Kind::List(names.into_iter().map(value).collect());
    let after = read(&with(text, &content), What::Site)?;
    let Some(key) = keys::find(keys::SITE, "guests") else { bail!("there is no key 'guests'") };
    let change = Change::Set(key, Value { kind: list, origin: entry.origin.clone() });
    verify(text, &before, &after, &[change])?;
    Ok(Some(content))
}

/// Which file it is.
#[derive(Clone, Copy)]
enum What {
    Guest,
    Site,
}

fn with(text: &Text, content: &str) -> Text {
    Text::new(text.file().clone(), content.to_owned())
}

fn read(text: &Text, kind: What) -> Result<Table> {
    let mut problems = Problems::default();
    let table = match (text.file().ends_with(".conf"), kind) {
        (true, What::Guest) => shell_file::guest(text, &mut problems),
        (true, What::Site) => shell_file::site(text, &mut problems),
        (false, _) => toml_file::read(text, &mut problems),
    };
    match table {
        Some(table) if problems.is_empty() => Ok(table),
        _ => bail!("{problems}"),
    }
}

/// Holds a changed file against what was meant.
fn verify(text: &Text, before: &Table, after: &Table, changes: &[Change]) -> Result<()> {
    let change = |name: &str| changes.iter().rev().find(|change| change.key().name == name);
    let names = before.entries.iter().chain(&after.entries).map(|entry| entry.key.as_str());
    for name in names.chain(changes.iter().map(|change| change.key().name)) {
        let found = after.get(name).map(|entry| &entry.value);
        let wanted = match change(name) {
            Some(Change::Set(_, value)) => Some(value),
            Some(Change::Remove(_)) => None,
            None => before.get(name).map(|entry| &entry.value),
        };
        let good = match (found, wanted) {
            (None, None) => true,
            (Some(found), Some(wanted)) => same(found, wanted),
            _ => false,
        };
        if !good {
            let place = before.get(name).map_or_else(|| Origin::start(text.file()), |e| e.origin.clone());
            bail!("{place}: '{name}' cannot be changed here without touching something else; do it by hand");
        }
    }
    Ok(())
}

/// Whether two values say the same, wherever they stand.
fn same(one: &Value, other: &Value) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::List(one), Kind::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Kind::Table(one), Kind::Table(other)) => {
            one.entries.len() == other.entries.len()
                && one
                    .entries
                    .iter()
                    .all(|entry| other.get(&entry.key).is_some_and(|there| same(&entry.value, &there.value)))
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests;

//! A table against the keys that may stand in it.

use super::keys::{self, Key, Scope};
use super::origin::Origin;
use super::problem::Problems;
use super::shape::Shape;
use super::suggest;
use super::tree::{Kind, Table};

/// Tells every unknown or misplaced key and every value that is not what its key takes.
pub fn check(table: &Table, known: &'static [Key], place: Scope, problems: &mut Problems) {
    for entry in &table.entries {
        let Some(key) = keys::find(known, &entry.key) else {
            unknown(&entry.origin, &entry.written, known, problems);
            continue;
        };
        if key.scope > place {
            let (message, hint) = match place {
                Scope::Defaults => ("cannot be the same for all guests", "set it in a guest's file"),
                _ => ("cannot be the same for several guests", "set it in the guest's own file"),
            };
            problems.add(&entry.origin, format!("{} {message}", entry.written), hint);
        }
        for (origin, message) in key.shape.wrong(&entry.written, &entry.value) {
            problems.add(&origin, message, keys::example(key, &entry.written, &entry.origin));
        }
        match (key.shape, &entry.value.kind) {
            (Shape::Keys(inner), Kind::Table(table)) => check(table, inner, place, problems),
            (Shape::Named(_, inner), Kind::Table(table)) => {
                for entry in &table.entries {
                    nested(&entry.value.kind, inner, place, problems);
                }
            }
            (Shape::Tables(inner), Kind::List(values)) => {
                values.iter().for_each(|value| nested(&value.kind, inner, place, problems));
            }
            _ => {}
        }
    }
}

fn nested(kind: &Kind, known: &'static [Key], place: Scope, problems: &mut Problems) {
    if let Kind::Table(table) = kind {
        check(table, known, place, problems);
    }
}

/// Tells of a key that nobody knows.
pub fn unknown(origin: &Origin, written: &str, known: &'static [Key], problems: &mut Problems) {
    let hint = match keys::other_name(known, written) {
        Some(key) => format!("it is called '{}' here", key.name),
        None => suggest::hint(written, known.iter().map(|k| k.name), "known keys"),
    };
    problems.add(origin, format!("unknown key '{}'", super::shape::shown(written)), hint);
}

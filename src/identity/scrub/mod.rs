//! What of an old machine has to go before a filesystem is another one, as a list of edits.

mod policy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::root::{Entry, Kind};
use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::known::{Action, Descend, Known, Table, homes};

pub use policy::{Policy, Spared};

/// Every edit that takes away what the policy says and is there now; none that would change nothing, so that the second time
/// there is none. They come before the edits of the new identity, which `policy` is to spare ([`Policy::sparing`]).
/// `extra` are scrub lists of profiles ([`Known::of_profile`]).
///
/// Nothing is changed here, links are never followed, and neither time nor memory depend on how much a directory holds that
/// goes as a whole.
pub fn edits(tree: &dyn Tree, policy: &Policy, extra: &[Known]) -> Result<Vec<Edit>> {
    let table = Table::with(extra);
    let acts = |known: &Known| match known.action {
        Action::Remove | Action::Empty | Action::Clear => policy.scrubs(known.class),
        Action::Assign => policy.scrubs_assigned(known.class),
        Action::Adjust | Action::Keep => false,
    };
    let homes = homes(tree).context("looking for home directories")?;
    // By path: a file may be known twice, as root's and as any user's.
    let mut edits = BTreeMap::new();
    table.places(tree, &homes, &acts, &mut |place| {
        if !acts(place.known) {
            return Ok(Descend::Yes);
        }
        let inside = match policy.spares(&place.path) {
            Spared::Itself => return Ok(Descend::No),
            Spared::SomethingInside => true,
            Spared::No => false,
        };
        let whole = match (place.known.action, place.kind) {
            (Action::Empty, Kind::File) => Whole::Empty,
            (Action::Empty, _) => return Ok(Descend::Yes),
            (Action::Clear, Kind::Dir) => Whole::Clear,
            // What a link leads to is not known to be what should go.
            (Action::Clear | Action::Assign, Kind::Link) => return Ok(Descend::No),
            (_, Kind::Dir) => Whole::RemoveTree,
            _ => Whole::Remove,
        };
        if inside {
            around(tree, policy, &place.path, &mut edits)?;
        } else if let Some(edit) = whole.edit(tree, &place.path)? {
            edits.insert(place.path, edit);
        }
        let gone = matches!(whole, Whole::Clear | Whole::RemoveTree);
        Ok(if gone { Descend::No } else { Descend::Yes })
    })?;
    Ok(without_what_is_inside(edits))
}

/// What goes with its directory needs no word of its own.
fn without_what_is_inside(edits: BTreeMap<PathBuf, Edit>) -> Vec<Edit> {
    let mut whole: Option<PathBuf> = None;
    let mut left = Vec::with_capacity(edits.len());
    for (path, edit) in edits {
        if whole.as_ref().is_some_and(|dir| path.starts_with(dir)) {
            continue;
        }
        if matches!(edit, Edit::RemoveTree { .. } | Edit::Clear { .. }) {
            whole = Some(path);
        }
        left.push(edit);
    }
    left
}

/// What is done to a place.
#[derive(Clone, Copy)]
enum Whole {
    Remove,
    RemoveTree,
    Clear,
    Empty,
}

impl Whole {
    /// The edit, unless it would change nothing.
    fn edit(self, tree: &dyn Tree, path: &Path) -> Result<Option<Edit>> {
        let path = path.to_owned();
        Ok(match self {
            Self::Remove => Some(Edit::Remove { path }),
            Self::RemoveTree => Some(Edit::RemoveTree { path }),
            Self::Clear => {
                let mut empty = true;
                tree.names(&path, &mut |_, _| {
                    empty = false;
                    false
                })?;
                (!empty).then_some(Edit::Clear { path })
            }
            Self::Empty => {
                let filled = matches!(tree.entry(&path)?, Some(Entry::File { len: 1.., .. }));
                filled.then_some(Edit::Empty { path })
            }
        })
    }
}

/// Removes what is in a directory but for what is spared. The depth is that of the spared paths.
fn around(tree: &dyn Tree, policy: &Policy, dir: &Path, edits: &mut BTreeMap<PathBuf, Edit>) -> Result<()> {
    for name in tree.list(dir)? {
        let path = dir.join(name);
        match policy.spares(&path) {
            Spared::Itself => {}
            Spared::SomethingInside if tree.entry(&path)? == Some(Entry::Dir) => {
                around(tree, policy, &path, edits)?;
            }
            _ => {
                edits.insert(path.clone(), Edit::RemoveTree { path });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

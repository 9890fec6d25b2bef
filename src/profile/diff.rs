//! What compiling would change, before it changes it.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::compile::{Owned, Plan, Step};
use crate::host::root::Entry;
use crate::host::tree::Tree;

/// How one path would differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Path inside the guest.
    pub path: PathBuf,
    /// What happens to it.
    pub kind: Kind,
    /// A unified diff of text; else what happens, in words.
    pub text: String,
}

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is not there yet.
    Added,
    /// It becomes something else.
    Changed,
    /// It goes.
    Removed,
}

/// All that would change, in the order of the steps; the profile's own records are not shown.
pub fn differences(tree: &dyn Tree, plan: &Plan) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for step in plan.steps.iter().filter(|step| !step.path().starts_with(super::compile::generation::TOP)) {
        if let Some(text) = difference(tree, step)? {
            let kind = match (step, tree.entry(step.path())?) {
                (Step::Remove { .. } | Step::RemoveTree { .. }, _) => Kind::Removed,
                (_, None) => Kind::Added,
                _ => Kind::Changed,
            };
            found.push(Difference { path: step.path().to_owned(), kind, text });
        }
    }
    Ok(found)
}

fn difference(tree: &dyn Tree, step: &Step) -> Result<Option<String>> {
    let path = step.path();
    let entry = tree.entry(path)?;
    let owner = tree.owner(path)?;
    let other = |owned: &Owned, mode: u32| (owner, mode) != (Some((owned.uid, owned.gid)), owned.mode);
    let becomes = |owned: &Owned| format!("becomes {:04o} {}:{}\n", owned.mode, owned.uid, owned.gid);
    Ok(match (step, entry) {
        (Step::Dir { .. }, Some(Entry::Dir | Entry::Link(_))) => None,
        (Step::Dir { owned, .. }, _) => Some(format!("a directory, {}", becomes(owned))),
        (Step::File { content, owned, .. }, entry) => {
            let now = match &entry {
                Some(Entry::File { .. }) => tree.read(path)?,
                _ => None,
            };
            let mode = match &entry {
                Some(Entry::File { mode, .. }) => Some(*mode),
                _ => None,
            };
            let mut text = String::new();
            if let Some(owned) = owned.as_ref().filter(|owned| mode.is_none_or(|mode| other(owned, mode))) {
                text.push_str(&becomes(owned));
            }
            if now.as_ref() != Some(content) {
                let secret = path.ends_with("shadow") || path.ends_with("gshadow");
                text.push_str(&if secret {
                    "its content is not shown\n".to_owned()
                } else {
                    unified(path, now.as_deref().unwrap_or_default(), content)
                });
            }
            Some(text).filter(|text| !text.is_empty())
        }
        (Step::Link { target, .. } | Step::Switch { target, .. }, Some(Entry::Link(now)))
            if now == *target =>
        {
            None
        }
        (Step::Link { target, .. } | Step::Switch { target, .. }, _) => {
            Some(format!("becomes a link to {}\n", target.display()))
        }
        (Step::Remove { .. } | Step::RemoveTree { .. }, None) => None,
        (Step::Remove { .. } | Step::RemoveTree { .. }, Some(_)) => Some("is removed\n".to_owned()),
    })
}

/// A unified diff, or the lengths of what is no text.
fn unified(path: &std::path::Path, old: &[u8], new: &[u8]) -> String {
    match (std::str::from_utf8(old), std::str::from_utf8(new)) {
        (Ok(old), Ok(new)) => {
            let name = path.display().to_string();
            let diff = similar::TextDiff::from_lines(old, new);
            diff.unified_diff().context_radius(2).header(&name, &name).to_string()
        }
        _ => format!("{} bytes become {} others\n", old.len(), new.len()),
    }
}

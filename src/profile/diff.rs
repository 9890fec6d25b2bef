//! What compiling would change, before it changes it.

use anyhow::Result;

use super::compile::{Owned, Plan, Step};
use crate::host::difference::{Difference, Kind, unified};
use crate::host::root::Entry;
use crate::host::tree::Tree;

/// All that would change, in the order of the steps; the profile's own records are not shown.
pub fn differences(tree: &dyn Tree, plan: &Plan) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for step in plan.steps.iter().filter(|step| !step.path().starts_with(super::compile::generation::TOP)) {
        if let Some((text, secret)) = difference(tree, step)? {
            let kind = match (step, tree.entry(step.path())?) {
                (Step::Remove { .. } | Step::RemoveTree { .. }, _) => Kind::Removed,
                (_, None) => Kind::Added,
                _ => Kind::Changed,
            };
            found.push(Difference { path: step.path().to_owned(), kind, secret, text });
        }
    }
    Ok(found)
}

/// What happens in words, and whether there is a secret that they do not tell.
fn difference(tree: &dyn Tree, step: &Step) -> Result<Option<(String, bool)>> {
    let path = step.path();
    let entry = tree.entry(path)?;
    let owner = tree.owner(path)?;
    let other = |owned: &Owned, mode: u32| (owner, mode) != (Some((owned.uid, owned.gid)), owned.mode);
    let becomes = |owned: &Owned| format!("becomes {:04o} {}:{}\n", owned.mode, owned.uid, owned.gid);
    let mut secret = false;
    let text = match (step, entry) {
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
                secret = path.ends_with("shadow") || path.ends_with("gshadow");
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
    };
    Ok(text.map(|text| (text, secret)))
}

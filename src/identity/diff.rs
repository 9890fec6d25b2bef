//! What edits would change, before they change it.

use anyhow::Result;

use crate::host::difference::{Difference, Kind, unified};
use crate::host::root::{Entry, FileMode};
use crate::host::tree::Tree;
use crate::identity::edit::Edit;

/// All that would change, sorted by path.
pub fn differences(tree: &dyn Tree, edits: &[Edit]) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for (at, edit) in edits.iter().enumerate() {
        // The last word on a path is what stands there in the end.
        if edits[at + 1..].iter().any(|later| later.path() == edit.path()) {
            continue;
        }
        found.extend(difference(tree, edit)?);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn difference(tree: &dyn Tree, edit: &Edit) -> Result<Option<Difference>> {
    let path = edit.path();
    let entry = tree.entry(path)?;
    let differs = |kind: Kind, secret: bool, text: String| {
        Ok(Some(Difference { path: path.to_owned(), kind, secret, text }))
    };
    let kind = if entry.is_some() { Kind::Changed } else { Kind::Added };
    match edit {
        Edit::Write { content, mode, owner, secret, .. } => {
            let now = match &entry {
                Some(Entry::File { .. }) => tree.read(path)?,
                _ => None,
            };
            let mode_now = match entry {
                Some(Entry::File { mode, .. }) => Some(mode),
                _ => None,
            };
            let new_mode = match (mode, mode_now) {
                (FileMode::Exactly(bits), Some(now)) if *bits != now => Some(*bits),
                _ => None,
            };
            let owner_now = tree.owner(path)?.unwrap_or((0, 0));
            let new_owner = owner.filter(|owner| *owner != owner_now);
            if now.as_deref() == Some(content) && new_mode.is_none() && new_owner.is_none() {
                return Ok(None);
            }
            let mut text = new_mode.map(|bits| format!("mode becomes {bits:o}\n")).unwrap_or_default();
            if let Some((uid, gid)) = new_owner {
                text.push_str(&format!("owner becomes {uid}:{gid}\n"));
            }
            match (&entry, secret) {
                (_, true) => text.push_str("content is secret and not shown\n"),
                (Some(Entry::Link(target)), _) => {
                    text.push_str(&format!("was a link to {}\n", target.display()));
                    text.push_str(&unified(path, b"", content));
                }
                (Some(Entry::Special | Entry::Dir), _) => text.push_str("was no regular file\n"),
                _ => text.push_str(&unified(path, now.as_deref().unwrap_or_default(), content)),
            }
            differs(kind, *secret, text)
        }
        Edit::Link { target, .. } => match entry {
            Some(Entry::Link(now)) if now == *target => Ok(None),
            _ => differs(kind, false, format!("becomes a link to {}\n", target.display())),
        },
        Edit::Dir { mode, .. } => match entry {
            Some(_) => Ok(None),
            None => differs(kind, false, format!("a directory with mode {mode:o}\n")),
        },
        Edit::Remove { .. } => match entry {
            Some(_) => differs(Kind::Removed, false, String::new()),
            None => Ok(None),
        },
        Edit::RemoveTree { .. } => match entry {
            Some(Entry::Dir) => differs(Kind::Removed, false, "goes with all that is in it\n".to_owned()),
            Some(_) => differs(Kind::Removed, false, String::new()),
            None => Ok(None),
        },
        Edit::Clear { .. } => {
            let mut filled = false;
            if entry == Some(Entry::Dir) {
                tree.names(path, &mut |_, _| {
                    filled = true;
                    false
                })?;
            }
            if filled { differs(kind, false, "all that is in it goes\n".to_owned()) } else { Ok(None) }
        }
        Edit::VolumeLabel { label } if tree.volume_label()?.as_deref() == Some(label) => Ok(None),
        Edit::VolumeLabel { label } => {
            differs(Kind::Changed, false, format!("the filesystem's label becomes '{label}'\n"))
        }
        // What was in it may be a secret of the old machine.
        Edit::Initramfs { renamed, .. } => {
            let ids = renamed.iter().map(|(old, new)| format!("{old} becomes {new}\n"));
            differs(kind, false, format!("is packed anew, with other ids in it\n{}", ids.collect::<String>()))
        }
        Edit::Empty { .. } => match entry {
            Some(Entry::File { len: 1.., .. }) => differs(kind, true, "becomes empty\n".to_owned()),
            _ => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;
    use crate::identity::personalise::{Plan, Scrubbing};

    #[test]
    fn what_is_shown_is_what_is_then_changed_and_afterwards_there_is_nothing_to_show() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/ssh")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "old\n").unwrap();
        std::fs::write(dir.path().join("etc/ssh/ssh_host_dsa_key"), "old").unwrap();
        std::os::unix::fs::symlink("/run/x", dir.path().join("etc/resolv.conf")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut identity = identity(0);
        let plan = Plan::make(&root, &mut identity, None, &Scrubbing::default()).unwrap();
        let shown = differences(&root, &plan.edits).unwrap();
        let of = |path: &str| shown.iter().find(|found| found.path == Path::new(path)).unwrap();
        assert!(of("/etc/hostname").text.ends_with("-old\n+ce\n"), "{}", of("/etc/hostname").text);
        assert_eq!(of("/etc/ssh/ssh_host_dsa_key").kind, Kind::Removed);
        assert!(of("/etc/resolv.conf").text.starts_with("was a link to /run/x\n"));
        let key = of("/etc/ssh/ssh_host_ed25519_key");
        assert_eq!(
            (key.kind, key.secret, key.text.as_str()),
            (Kind::Added, true, "content is secret and not shown\n")
        );
        let mut changed = plan.apply(&root).unwrap().changed;
        changed.sort();
        assert_eq!(changed, shown.iter().map(|found| found.path.clone()).collect::<Vec<_>>());
        let plan = Plan::make(&root, &mut identity, None, &Scrubbing::default()).unwrap();
        assert_eq!(differences(&root, &plan.edits).unwrap(), []);
    }
}

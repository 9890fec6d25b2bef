//! The filesystem's label where it is made of the machine's name, and every file that finds the filesystem by it.

use anyhow::Result;

use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::filesystem;
use crate::identity::found::{Found, text};
use crate::identity::wanted::Identity;

/// Where a name ends inside a label: `ce1-root`, `ce1_root`.
const BORDERS: [char; 3] = ['-', '_', '.'];
/// The least that any filesystem takes (XFS).
const LONGEST: usize = 12;

/// Edits that put the new name in the old one's place. They come before the host name's own: until that is changed, a run that
/// was cut short is found to have something left to do.
pub fn edits(identity: &Identity, found: &Found, tree: &dyn Tree) -> Result<Vec<Edit>> {
    let (Some(old), Some(label)) = (&found.hostname, tree.volume_label()?) else { return Ok(Vec::new()) };
    let Some(new) = renamed(&label, old, &identity.hostname) else { return Ok(Vec::new()) };
    let mut edits = Vec::new();
    for file in filesystem::files(tree)? {
        let Some(path) = file.to_str() else { continue };
        let Some(now) = text(tree, path)? else { continue };
        let then = follow(&now, &label, &new);
        if then != now {
            edits.push(Edit::text(path, then));
        }
    }
    edits.push(Edit::VolumeLabel { label: new });
    Ok(edits)
}

/// The label with the new name in it, no longer than every filesystem takes unless it was longer before; `None` if the old name
/// is not a part of it.
fn renamed(label: &str, old: &str, new: &str) -> Option<String> {
    if old == new || old.is_empty() {
        return None;
    }
    let mut renamed = String::new();
    let mut is_in_it = false;
    for part in label.split_inclusive(BORDERS) {
        let border = part.strip_prefix(part.trim_end_matches(BORDERS)).unwrap_or_default();
        let name = part.trim_end_matches(BORDERS);
        is_in_it |= name == old;
        renamed.push_str(if name == old { new } else { name });
        renamed.push_str(border);
    }
    let most = label.len().max(LONGEST);
    let end =
        (0..=most.min(renamed.len())).rev().find(|end| renamed.is_char_boundary(*end)).unwrap_or_default();
    renamed.truncate(end);
    is_in_it.then_some(renamed)
}

/// `LABEL=old` and `/dev/disk/by-label/old`, where they end there.
fn follow(text: &str, old: &str, new: &str) -> String {
    let mut text = text.to_owned();
    for by in ["LABEL=", "LABEL=\"", "/dev/disk/by-label/", "--label "] {
        let (from, to) = (format!("{by}{old}"), format!("{by}{new}"));
        let mut done = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&from) {
            let (before, after) = (&rest[..at], &rest[at + from.len()..]);
            let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || c == '"' || c == '\'');
            done.push_str(before);
            done.push_str(if ends { &to } else { &from });
            rest = after;
        }
        done.push_str(rest);
        text = done;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_that_has_the_machines_name_in_it_follows_the_name() {
        assert_eq!(renamed("ce1-root", "ce1", "wn12").as_deref(), Some("wn12-root"));
        assert_eq!(renamed("ce1", "ce1", "wn1").as_deref(), Some("wn1"));
        assert_eq!(renamed("gridgate-root", "ce1", "wn1"), None);
        assert_eq!(renamed("ce12-root", "ce1", "wn1"), None);
        assert_eq!(renamed("ce1-root", "ce1", "a-very-long-name").as_deref(), Some("a-very-long-"));
    }

    #[test]
    fn what_finds_the_filesystem_by_its_label_follows_and_nothing_else() {
        let text = "LABEL=ce1-root / ext4\nLABEL=ce1-root2 /x\nroot=LABEL=\"ce1-root\" ce1-root\n";
        let then = "LABEL=wn1-root / ext4\nLABEL=ce1-root2 /x\nroot=LABEL=\"wn1-root\" ce1-root\n";
        assert_eq!(follow(text, "ce1-root", "wn1-root"), then);
    }

    proptest! {
        #[test]
        fn any_label_is_renamed_or_left(label in "\\PC{0,20}", old in "[a-z0-9-]{0,6}", new in "\\PC{0,20}") {
            if let Some(renamed) = renamed(&label, &old, &new) {
                prop_assert!(renamed.len() <= label.len().max(LONGEST));
            }
            follow(&label, &old, &new);
        }
    }
}

//! The identity that a filesystem has now, taken over as the machine's own: for a system that was installed by other means and
//! is known to others by its keys.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host::tree::Tree;
use crate::identity::assigned::Assigned;
use crate::identity::found::Found;
use crate::identity::keys::{self, KeyType};

/// What the filesystem has; what it has not, or what cannot be used, is drawn.
pub fn from_tree(tree: &dyn Tree, machine: &str, uuid: Option<[u8; 16]>) -> Result<Assigned> {
    let mut assigned = Assigned { keeps_disk_ids: true, ..Assigned::draw(machine)? };
    let found = Found::look(tree)?;
    if let Some(id) = found.machine_id.filter(|id| is_machine_id(id)) {
        assigned.machine_id = id;
    }
    if let Some(uuid) = uuid {
        assigned.filesystem_uuid = uuid;
    }
    for kind in KeyType::ALL {
        let path = Path::new("/etc/ssh").join(kind.file());
        let Some(private) = tree.read(&path)? else { continue };
        let private = String::from_utf8(private).ok();
        let what = || format!("taking over the host key '{}'", path.display());
        let private = private.with_context(what)?;
        // One that cannot be read would be another machine to everybody who knows it, and that is not what was asked for.
        keys::public_line(&private).with_context(what)?;
        match kind {
            KeyType::Ed25519 => assigned.host_key_ed25519 = private,
            other => {
                assigned.host_keys.insert(other, private);
            }
        }
    }
    Ok(assigned)
}

/// machine-id(5): 32 hexadecimal digits in lower case, not all zero.
fn is_machine_id(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == 32 && text.chars().all(digit) && text.chars().any(|c| c != '0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;
    use crate::identity::personalise::{Plan, Scrubbing};

    #[test]
    fn a_filesystem_that_has_an_identity_keeps_it_when_it_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut identity = identity(0);
        Plan::make(&root, &mut identity, None, &Scrubbing::default()).unwrap().apply(&root).unwrap();
        let adopted = from_tree(&root, "ce", Some(identity.assigned.filesystem_uuid)).unwrap();
        assert!(adopted == Assigned { keeps_disk_ids: true, ..identity.assigned });
    }

    #[test]
    fn what_a_filesystem_has_not_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/machine-id"), "uninitialized\n").unwrap();
        let adopted = from_tree(&Root::open(dir.path()).unwrap(), "ce", None).unwrap();
        assert!(is_machine_id(&adopted.machine_id));
    }
}

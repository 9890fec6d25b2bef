//! A golden image out of a used disk: where personalising assigns, this erases.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::host::root::{Entry, FileMode, Kind};
use crate::host::tree::Tree;
use crate::identity::audit::{Old, neutral};
use crate::identity::edit::Edit;
use crate::identity::known::{Action, Descend, Known, Table, homes};
use crate::identity::scrub::{self, Policy};

/// Where ifupdown's network is.
pub const INTERFACES: &str = "/etc/network/interfaces";

/// What a file is to hold that a system needs, and that says nothing of a machine.
const NEUTRAL: [(&str, &str, u32); 3] = [
    // Empty, not missing: each clone makes an id at its first boot if personalising did not write one, and systemd does not
    // take that boot for the first of a new installation, which would reset which units are enabled (machine-id(5)).
    ("/etc/machine-id", "", 0o444),
    ("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n", 0o644),
    (INTERFACES, "auto lo\niface lo inet loopback\n", 0o644),
];

/// Every edit that takes a machine's identity out of its filesystem; none that would change nothing. `old` is what it was
/// ([`Old::from_tree`], and what is remembered of it): its names, addresses and ids are made neutral in files that have to
/// stay. `extra` are scrub lists of profiles. The filesystem's UUID stays: each clone gets its own.
pub fn edits(tree: &dyn Tree, old: &Old, extra: &[Known]) -> Result<Vec<Edit>> {
    let what = || "sealing a filesystem";
    let kept = NEUTRAL.map(|(path, ..)| path);
    let mut edits = scrub::edits(tree, &Policy::nobody().sparing(kept), extra).with_context(what)?;
    let table = Table::with(extra);
    let homes = homes(tree).with_context(what)?;
    let mut more = BTreeMap::new();
    let concerns = |known: &Known| matches!(known.action, Action::Assign | Action::Adjust | Action::Keep);
    let old = old.clone().without_uuids();
    table
        .places(tree, &homes, &concerns, &mut |place| {
            let known = kept.iter().any(|path| place.path == Path::new(path));
            if known || !concerns(place.known) {
                return Ok(Descend::Yes);
            }
            let path = place.path.as_path();
            let edit = match (place.known.action, place.kind) {
                // It leads to where the running system puts the file.
                (Action::Assign, Kind::Link) => None,
                (Action::Assign, Kind::Dir) => Some(Edit::RemoveTree { path: path.to_owned() }),
                (Action::Assign, _) => Some(Edit::remove(path)),
                (_, Kind::File) => made_neutral(tree, path, &old)?,
                _ => None,
            };
            more.extend(edit.map(|edit| (place.path.clone(), edit)));
            Ok(Descend::Yes)
        })
        .with_context(what)?;
    let gone = |path: &Path| {
        let whole = |edit: &&Edit| matches!(edit, Edit::RemoveTree { .. } | Edit::Clear { .. });
        edits.iter().filter(whole).any(|edit| path.starts_with(edit.path()))
    };
    more.retain(|path, _| !gone(path));
    edits.extend(more.into_values());
    for (path, content, mode) in NEUTRAL {
        edits.extend(needed(tree, path, content, mode)?);
    }
    Ok(edits)
}

/// The one file of an ifupdown network that has to be there without any card: nothing but the loopback.
pub fn loopback_alone(tree: &dyn Tree) -> Result<Option<Edit>> {
    let [.., (path, content, mode)] = NEUTRAL;
    needed(tree, path, content, mode)
}

/// A file that the system needs, if it does not hold just that.
fn needed(tree: &dyn Tree, path: &str, content: &str, mode: u32) -> Result<Option<Edit>> {
    let now = tree.entry(Path::new(path))?;
    // Only what brings the network up that way needs its file.
    if now.is_none() && path != "/etc/machine-id" {
        return Ok(None);
    }
    if matches!(now, Some(Entry::File { .. }))
        && tree.read(Path::new(path)).ok().flatten().as_deref() == Some(content.as_bytes())
    {
        return Ok(None);
    }
    let (path, content) = (path.into(), content.into());
    Ok(Some(Edit::Write { path, content, mode: FileMode::KeepOr(mode), owner: None, secret: false }))
}

/// A file that stays, without what it says of the old machine; nothing if it says nothing, or is no text that can be changed.
fn made_neutral(tree: &dyn Tree, path: &Path, old: &Old) -> Result<Option<Edit>> {
    // One that is too large to be a configuration is left to the audit.
    let Ok(Some(content)) = tree.read(path) else { return Ok(None) };
    if content.contains(&0) {
        return Ok(None);
    }
    Ok(neutral(&content, old)?.map(|content| Edit::Write {
        path: path.to_owned(),
        content,
        mode: FileMode::KeepOr(0o600),
        owner: None,
        secret: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::{Change, Root};
    use std::os::unix::fs::symlink;

    fn apply(root: &Root, old: &Old) -> usize {
        let edits = edits(root, old, &[]).unwrap();
        edits.iter().for_each(|edit| assert_eq!(edit.apply(root).unwrap(), Change::Changed, "{edit:?}"));
        edits.len()
    }

    #[test]
    fn a_used_system_becomes_an_image_that_says_nothing_of_it_and_the_second_time_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        put("etc/hostname", "ce01\n");
        put("etc/hosts", "10.1.2.3 ce01.old.org ce01\n");
        put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        put("etc/fstab", "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n");
        put("etc/network/interfaces", "iface eth0 inet static\n address 10.1.2.3/24\n");
        put("etc/postfix/main.cf", "myhostname = CE01.old.org\nmynetworks = 10.1.2.3 10.1.2.30\n");
        put("etc/ssh/ssh_host_rsa_key", "old");
        put("etc/ssh/sshd_config", "Port 22\n");
        put("root/.ssh/authorized_keys", "ssh-ed25519 AAAA\n");
        put("home/ann/.ssh/id_rsa", "secret");
        put("home/ann/notes", "kept");
        symlink("../run/systemd/resolve/stub-resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let old = Old::from_tree(&root).unwrap();
        assert!(apply(&root, &old) > 0);
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
        assert_eq!(read("etc/machine-id").as_deref(), Some(""));
        assert_eq!(read("etc/hostname"), None);
        assert_eq!(read("etc/network/interfaces").as_deref(), Some("auto lo\niface lo inet loopback\n"));
        let main = "myhostname = localhost\nmynetworks = 127.0.0.1 10.1.2.30\n";
        assert_eq!(read("etc/postfix/main.cf").as_deref(), Some(main));
        assert!(read("etc/fstab").unwrap().starts_with("UUID=11111111-"));
        for gone in ["etc/ssh/ssh_host_rsa_key", "root/.ssh/authorized_keys", "home/ann/.ssh/id_rsa"] {
            assert_eq!(read(gone), None, "{gone}");
        }
        assert_eq!(read("home/ann/notes").as_deref(), Some("kept"));
        assert_eq!(read("etc/ssh/sshd_config").as_deref(), Some("Port 22\n"));
        assert!(dir.path().join("etc/resolv.conf").is_symlink());
        assert_eq!(apply(&root, &old), 0);
    }

    #[test]
    fn a_system_without_a_machine_id_gets_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(apply(&root, &Old::default()), 1);
        assert_eq!(std::fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
        assert_eq!(apply(&root, &Old::default()), 0);
    }
}

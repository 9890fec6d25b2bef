//! Host keys, and who may log in.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::found::{Found, text};
use crate::identity::keys::{self, KeyType};
use crate::identity::wanted::Identity;

/// Types of host keys that the guest's sshd wants: those that its configuration names; if it names none, the modern one and
/// what the guest had. sshd_config(5) tries several files by default, and is content with any.
pub fn wanted_types(tree: &dyn Tree) -> Result<Vec<KeyType>> {
    let mut named: Vec<String> = Vec::new();
    let mut files = vec!["/etc/ssh/sshd_config".to_owned()];
    for name in tree.list(Path::new("/etc/ssh/sshd_config.d"))? {
        if name.extension().is_some_and(|extension| extension == "conf") {
            files.push(format!("/etc/ssh/sshd_config.d/{}", name.display()));
        }
    }
    for file in files {
        named.extend(host_key_lines(&text(tree, &file)?.unwrap_or_default()));
    }
    let is_named = |kind: &KeyType| named.iter().any(|path| Path::new(path).ends_with(kind.file()));
    let mut wanted: Vec<KeyType> = KeyType::ALL.into_iter().filter(is_named).collect();
    if wanted.is_empty() {
        let had = |kind: &KeyType| -> Result<bool> {
            Ok(tree.entry(&Path::new("/etc/ssh").join(kind.file()))?.is_some())
        };
        for kind in KeyType::ALL {
            if kind == KeyType::Ed25519 || had(&kind)? {
                wanted.push(kind);
            }
        }
    }
    Ok(wanted)
}

/// Keywords are of any case, and their value follows after blanks or one `=` (sshd_config(5)).
fn host_key_lines(config: &str) -> Vec<String> {
    let value = |line: &str| {
        let (key, value) = line.trim().split_once([' ', '\t', '='])?;
        let value = value.trim().trim_start_matches('=').trim().trim_matches('"');
        key.eq_ignore_ascii_case("hostkey").then(|| value.to_owned())
    };
    config.lines().filter_map(value).collect()
}

/// Edits for host keys and root's authorized keys.
pub fn edits(identity: &Identity, found: &Found, wanted: &[KeyType]) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    let stays =
        |name: &str| wanted.iter().any(|kind| name == kind.file() || name == format!("{}.pub", kind.file()));
    for old in found.host_keys.iter().filter(|old| !stays(old)) {
        edits.push(Edit::remove(format!("/etc/ssh/{old}")));
    }
    for kind in wanted {
        let Some(key) = identity.assigned.host_key(*kind) else { continue };
        edits.push(Edit::secret(&format!("/etc/ssh/{}", kind.file()), key));
        let public = format!("{}\n", keys::public_line(key)?);
        edits.push(Edit::text(&format!("/etc/ssh/{}.pub", kind.file()), public));
    }
    if !identity.authorized_keys.is_empty() {
        let mut authorized = String::from("# written by gridgate: the site's key and the administrators'\n");
        for key in &identity.authorized_keys {
            let _ = writeln!(authorized, "{key}");
        }
        edits.push(Edit::Dir { path: "/root/.ssh".into(), mode: 0o700 });
        edits.push(Edit::secret("/root/.ssh/authorized_keys", authorized));
    }
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use proptest::prelude::*;

    fn wanted(files: &[(&str, &str)]) -> Vec<KeyType> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/ssh/sshd_config.d")).unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join("etc/ssh").join(name), content).unwrap();
        }
        wanted_types(&Root::open(dir.path()).unwrap()).unwrap()
    }

    #[test]
    fn a_server_that_names_its_keys_gets_those() {
        let config = "#HostKey /etc/ssh/ssh_host_ed25519_key\nhostkey = /etc/ssh/ssh_host_rsa_key\n";
        assert_eq!(wanted(&[("sshd_config", config)]), [KeyType::Rsa]);
        let more =
            [("sshd_config", config), ("sshd_config.d/a.conf", "HostKey \"/etc/ssh/ssh_host_ecdsa_key\"\n")];
        assert_eq!(wanted(&more), [KeyType::Ecdsa, KeyType::Rsa]);
    }

    #[test]
    fn a_server_that_names_none_gets_what_it_had_and_the_modern_one() {
        assert_eq!(wanted(&[]), [KeyType::Ed25519]);
        assert_eq!(wanted(&[("ssh_host_rsa_key", "old")]), [KeyType::Ed25519, KeyType::Rsa]);
    }

    proptest! {
        #[test]
        fn any_configuration_is_read(text in "[ -~\n]{0,80}") {
            host_key_lines(&text);
        }
    }
}

//! A whole identity as a list of edits; pure.

use std::fmt::Write;

use anyhow::Result;

use crate::config::site::{Guest, Site};
use crate::host::tree::Tree;
use crate::identity::assigned::Assigned;
use crate::identity::edit::Edit;
use crate::identity::found::Found;
use crate::identity::keys::KeyType;
use crate::identity::names::{self, hosts};
use crate::identity::wanted::Identity;
use crate::identity::{ids, label, network, ssh};

/// Every edit that makes the filesystem that machine. Applying them twice changes nothing the second time: what is random
/// is either kept by the host or written only into a filesystem that is not this machine's yet. Host keys are written of the
/// types in `keys`, as far as the identity has them.
pub fn edits(identity: &Identity, found: &Found, tree: &dyn Tree, keys: &[KeyType]) -> Result<Vec<Edit>> {
    let mut edits = label::edits(identity, found, tree)?;
    edits.extend(names::edits(identity, found, tree)?);
    edits.extend(network::render(identity, &found.network).edits);
    if !identity.ntp.is_empty() {
        let servers = identity.ntp.join(" ");
        edits.push(Edit::text(
            "/etc/systemd/timesyncd.conf.d/10-gridgate.conf",
            format!("[Time]\nNTP={servers}\n"),
        ));
    }
    edits.extend(ids::edits(identity, found, tree)?);
    edits.extend(ssh::edits(identity, found, keys)?);
    Ok(edits)
}

/// A digest of all that the site's files say about the guest's identity: when it differs from the one that the disk was
/// personalised with, the disk is behind. (Hexadecimal BLAKE3; what was drawn for the guest does not change.)
pub fn digest(site: &Site, guest: &Guest) -> String {
    let identity = Identity::of(site, guest, Assigned::nothing(), "");
    let mut text = format!("2\n{}\n{}\n", hosts(&identity), identity.ntp.join(" "));
    let _ = writeln!(text, "{:?} {:?} {:?}", identity.interfaces, identity.dns, identity.search);
    let _ = writeln!(text, "{}", site.admin_keys.join("\n"));
    for provided in &guest.provided {
        let _ = writeln!(text, "{:?} {:?}", provided.kind, provided.blake3);
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::described::loaded;
    use crate::host::root::Root;
    use crate::names::Bytes;

    pub(crate) fn site() -> Site {
        let described = "name = 'site-a'\ndomain = 'example.org'\ndns = ['10.77.0.2']\n\
            [networks.lan]\nmode = 'rehearsal'\nbridge = 'gg0'\nsubnet = '10.77.0.0/24'\ngateway = '10.77.0.1'\n\
            [defaults]\nprofile = 'base'\nmemory = '256M'\ndisk = '2G'\n";
        let guest = |last: u8| format!("address = '10.77.0.{last}'\nmac = '52:54:00:00:00:{last}'\n");
        let files =
            [("site.toml", described), ("guests/ce.toml", &guest(10)), ("guests/se.toml", &guest(11))];
        Site { admin_keys: vec!["ssh-ed25519 AAAA admin".to_owned()], ..loaded(&files) }
    }

    pub(crate) fn identity(at: usize) -> Identity {
        let site = site();
        let guest = &site.guests[at];
        Identity::of(&site, guest, Assigned::draw(guest.name.as_str()).unwrap(), "ssh-ed25519 S site")
    }

    fn empty() -> Root {
        let dir = tempfile::tempdir().unwrap();
        Root::open(dir.path()).unwrap()
    }

    #[test]
    fn the_guest_itself_comes_first_in_its_hosts_file() {
        let site = site();
        let text = hosts(&Identity::of(&site, &site.guests[1], Assigned::nothing(), "k"));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["10.77.0.11\tse.example.org se", "10.77.0.10\tce.example.org ce"]);
    }

    #[test]
    fn the_digest_tells_of_a_change_of_any_guest_of_the_site_but_not_of_memory() {
        let (before, mut after) = (site(), site());
        after.guests[1].memory_bytes = Bytes(1 << 30);
        assert_eq!(digest(&before, &before.guests[0]), digest(&after, &after.guests[0]));
        after.guests[1].address = "10.77.0.99".parse().unwrap();
        assert_ne!(digest(&before, &before.guests[0]), digest(&after, &after.guests[0]));
    }

    #[test]
    fn a_random_seed_is_written_only_into_a_filesystem_that_is_not_the_guests_yet() {
        let identity = identity(0);
        let seeded = |found: &Found| {
            let all = edits(&identity, found, &empty(), &[KeyType::Ed25519]).unwrap();
            all.iter().any(|e| e.path().ends_with("random-seed"))
        };
        assert!(seeded(&Found::default()));
        assert!(!seeded(&Found {
            machine_id: Some(identity.assigned.machine_id.clone()),
            ..Found::default()
        }));
    }

    #[test]
    fn host_keys_of_another_type_are_removed() {
        let identity = identity(0);
        let found = Found { host_keys: vec!["ssh_host_rsa_key".to_owned()], ..Found::default() };
        assert!(
            edits(&identity, &found, &empty(), &[KeyType::Ed25519])
                .unwrap()
                .contains(&Edit::remove("/etc/ssh/ssh_host_rsa_key"))
        );
    }
}

//! A whole identity as a list of edits; pure.

use std::fmt::Write;

use anyhow::Result;

use crate::config::site::{Guest, Site};
use crate::identity::assigned::Assigned;
use crate::identity::edit::Edit;
use crate::identity::found::Found;
use crate::identity::keys;
use crate::identity::network;
use crate::identity::wanted::Identity;

/// Every edit that makes the filesystem that machine. Applying them twice changes nothing the second time: what is random
/// is either kept by the host or written only into a filesystem that is not this machine's yet.
pub fn edits(identity: &Identity, found: &Found) -> Result<Vec<Edit>> {
    let assigned = &identity.assigned;
    let mut edits = vec![
        Edit::text("/etc/hostname", format!("{}\n", identity.hostname)),
        Edit::text("/etc/hosts", hosts(identity)),
    ];
    edits.extend(network::render(identity, &found.network).edits);
    if !identity.ntp.is_empty() {
        let servers = identity.ntp.join(" ");
        edits.push(Edit::text(
            "/etc/systemd/timesyncd.conf.d/10-gridgate.conf",
            format!("[Time]\nNTP={servers}\n"),
        ));
    }

    edits.push(Edit::text("/etc/machine-id", format!("{}\n", assigned.machine_id)));
    if found.own_dbus_id {
        edits.push(Edit::link("/var/lib/dbus/machine-id", "/etc/machine-id"));
    }
    let is_this_machine_already = found.machine_id.as_deref() == Some(assigned.machine_id.as_str());
    if !is_this_machine_already {
        // 512 bytes is what systemd-random-seed(8) reads and writes.
        edits.push(Edit::secret("/var/lib/systemd/random-seed", keys::random::<512>()?));
    }

    for old in &found.host_keys {
        if !old.starts_with("ssh_host_ed25519_key") {
            edits.push(Edit::remove(format!("/etc/ssh/{old}")));
        }
    }
    edits.push(Edit::secret("/etc/ssh/ssh_host_ed25519_key", assigned.host_key_ed25519.as_str()));
    let public = format!("{}\n", assigned.host_key_public()?);
    edits.push(Edit::text("/etc/ssh/ssh_host_ed25519_key.pub", public));

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

/// A digest of all that the site's files say about the guest's identity: when it differs from the one that the disk was
/// personalised with, the disk is behind. (Hexadecimal BLAKE3; what was drawn for the guest does not change.)
pub fn digest(site: &Site, guest: &Guest) -> String {
    let identity = Identity::of(site, guest, Assigned::nothing(), "");
    let mut text = format!("2\n{}\n{}\n", hosts(&identity), identity.ntp.join(" "));
    let _ = writeln!(text, "{:?} {:?} {:?}", identity.interfaces, identity.dns, identity.search);
    let _ = writeln!(text, "{}", site.admin_keys.join("\n"));
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn hosts(identity: &Identity) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for line in &identity.hosts {
        let _ = writeln!(text, "{}\t{}", line.address, line.names.join(" "));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::site::{BackendChoice, Network, NetworkMode, ReadyCheck};
    use crate::names::Bytes;
    use std::time::Duration;

    pub(crate) fn site() -> Site {
        let guest = |name: &str, last: u8| Guest {
            name: name.parse().unwrap(),
            role: name.to_owned(),
            description: String::new(),
            backend: BackendChoice::Auto,
            image: "debian-12".parse().unwrap(),
            profile: "base".to_owned(),
            memory_bytes: Bytes(256 << 20),
            cpus: 1,
            disk_bytes: Bytes(2 << 30),
            fqdn: format!("{name}.example.org"),
            network: "lan".parse().unwrap(),
            address: format!("10.77.0.{last}").parse().unwrap(),
            prefix: 24,
            gateway: Some("10.77.0.1".parse().unwrap()),
            mac: format!("52:54:00:00:00:{last}").parse().unwrap(),
            after: Vec::new(),
            needs: Vec::new(),
            ready: vec![ReadyCheck::Login],
            ready_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(30),
            autostart: true,
            console_log_bytes: Bytes(1 << 20),
            console_record: false,
            console_watch: Vec::new(),
            kernel_args: String::new(),
            supervision: Default::default(),
            limits: Default::default(),
        };
        Site {
            name: "site-a".parse().unwrap(),
            description: String::new(),
            domain: "example.org".to_owned(),
            dns: vec!["10.77.0.2".parse().unwrap()],
            ntp: Vec::new(),
            admin_keys: vec!["ssh-ed25519 AAAA admin".to_owned()],
            admin_group: None,
            networks: vec![Network {
                name: "lan".parse().unwrap(),
                mode: NetworkMode::Rehearsal,
                bridge: "gg0".parse().unwrap(),
                uplink: None,
                subnet: "10.77.0.0/24".parse().unwrap(),
                gateway: Some("10.77.0.1".parse().unwrap()),
            }],
            guests: vec![guest("ce", 10), guest("se", 11)],
            dir: "/nowhere".into(),
        }
    }

    pub(crate) fn identity(at: usize) -> Identity {
        let site = site();
        let guest = &site.guests[at];
        Identity::of(&site, guest, Assigned::draw(&guest.name).unwrap(), "ssh-ed25519 S site")
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
            let all = edits(&identity, found).unwrap();
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
        assert!(edits(&identity, &found).unwrap().contains(&Edit::remove("/etc/ssh/ssh_host_rsa_key")));
    }
}

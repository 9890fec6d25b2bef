//! What a filesystem says that it is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use super::Old;
use crate::host::root::Kind;
use crate::host::tree::Tree;
use crate::identity::audit::pem;
use crate::identity::found::{Found, text};
use crate::identity::known::{Action, Class, Descend, Known, Table, homes};
use crate::names::MacAddr;

/// No machine has more; a guest that claims to is not believed further.
const MOST: usize = 1024;

/// A shorter file may be found anywhere by chance.
const SHORTEST_SECRET: usize = 8;

pub(super) fn from_tree(tree: &dyn Tree) -> Result<Old> {
    let mut old = Old::default();
    let found = Found::look(tree)?;
    old.names.extend(found.hostname.clone());
    old.names.extend(found.fqdn.clone());
    old.domain = found.fqdn.as_deref().and_then(|fqdn| Some(fqdn.split_once('.')?.1.to_owned()));
    old.names.extend(word(tree, "/etc/mailname")?);
    old.names.extend(word(tree, "/etc/salt/minion_id")?);
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        let id = word(tree, path)?.map(|id| id.to_ascii_lowercase());
        old.machine_ids.extend(id.filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
    for path in ["/etc/iscsi/initiatorname.iscsi", "/etc/nvme/hostnqn", "/etc/nvme/hostid"] {
        let said = text(tree, path)?.unwrap_or_default();
        let lines = said.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        old.labels.extend(lines.map(|line| line.trim_start_matches("InitiatorName=").to_owned()));
    }
    old.labels.retain(|label| label.len() >= 8 && label != "GenerateName=yes");
    for name in found.host_keys.iter().filter(|name| name.ends_with(".pub")) {
        old.keys.extend(word_line(tree, &format!("/etc/ssh/{name}"))?);
    }
    for path in ["/etc/fstab", "/etc/kernel/cmdline", "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"] {
        old.uuids.extend(uuids(&text(tree, path)?.unwrap_or_default()));
    }
    let own = hosts(&text(tree, "/etc/hosts")?.unwrap_or_default(), &old.names);
    old.addresses.extend(own);
    from_known_places(tree, &mut old)?;
    Ok(old)
}

/// Addresses out of the network's configuration and leases; digests of keys and certificates.
fn from_known_places(tree: &dyn Tree, old: &mut Old) -> Result<()> {
    let homes = homes(tree)?;
    let classes = [Class::Network, Class::Ssh, Class::Certificates, Class::Secrets, Class::Seeds];
    let mut looked_at = 0;
    Table::shipped().places(tree, &homes, &|known| classes.contains(&known.class), &mut |place| {
        looked_at += 1;
        if place.kind == Kind::Dir && place.known.action == Action::Clear && looked_at < MOST {
            for name in tree.list(&place.path)?.into_iter().take(MOST) {
                one_file(tree, place.known, &place.path.join(name), old);
            }
        } else if place.kind == Kind::File && looked_at < MOST {
            one_file(tree, place.known, &place.path, old);
        }
        Ok(Descend::Yes)
    })
}

fn one_file(tree: &dyn Tree, known: &Known, path: &Path, old: &mut Old) {
    // A directory, or a file too large for what should be there.
    let Ok(Some(content)) = tree.read(path) else { return };
    if known.class == Class::Network {
        let text = String::from_utf8_lossy(&content);
        old.addresses.extend(addresses(&text));
        old.macs.extend(macs(&text));
        return;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What is adjusted, or says who may log in, may rightly be the same on two machines.
    let own = known.class == Class::Seeds
        || matches!(known.action, Action::Remove | Action::Clear)
        || name.starts_with("ssh_host_");
    if own && content.len() >= SHORTEST_SECRET && !name.ends_with(".pub") {
        old.secrets.insert(blake3::hash(&content).to_hex().to_string());
    }
    for der in pem::blocks(&content) {
        old.certificates.insert(pem::sha256(&der));
    }
}

fn word(tree: &dyn Tree, path: &str) -> Result<Option<String>> {
    let text = text(tree, path)?.unwrap_or_default();
    Ok(text.split_whitespace().next().filter(|word| word.len() <= 255).map(str::to_owned))
}

fn word_line(tree: &dyn Tree, path: &str) -> Result<Option<String>> {
    Ok(text(tree, path)?.and_then(|text| text.lines().next().map(|line| line.trim().to_owned())))
}

/// Addresses beside one of the machine's own names.
fn hosts(text: &str, names: &BTreeSet<String>) -> Vec<IpAddr> {
    let own = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| names.contains(word)).then_some(address)
    };
    text.lines().filter_map(own).filter(|address| is_own(*address)).collect()
}

/// Addresses that the network's configuration gives the machine: neither what it was lent, nor what its hosts file says.
pub fn configured_addresses(tree: &dyn Tree) -> Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    let is_set = |known: &Known| known.class == Class::Network && known.action == Action::Assign;
    Table::shipped().places(tree, &homes(tree)?, &is_set, &mut |place| {
        // What cannot be read gives nothing; an audit tells of it.
        if let (true, Ok(Some(content))) = (is_set(place.known), tree.read(&place.path)) {
            found.extend(addresses(&String::from_utf8_lossy(&content)));
        }
        Ok(Descend::Yes)
    })?;
    Ok(found)
}

/// Addresses that a line calls the machine's own: other lines name its gateway, its name servers, its networks.
pub(super) fn addresses(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut in_list = false;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().to_ascii_lowercase();
        let key: &str = line.split(['=', ':', ' ', '\t']).find(|word| !word.is_empty()).unwrap_or_default();
        let item = line.trim_start().starts_with("- ");
        in_list = in_list && item;
        let calls_it_own = key.contains("addr") && !key.contains("hwaddr") && !key.contains("macaddr")
            || key.contains("fixed-address")
            || key == "ip"
            || in_list;
        if !calls_it_own {
            continue;
        }
        // netplan's list goes on with one address a line.
        in_list = in_list || key == "addresses";
        // NetworkManager writes the gateway behind the address.
        let values = line.split([' ', '\t', '=', '[', ']', '"', '\'', ';', ',']);
        let address = |word: &str| word.split('/').next()?.parse::<IpAddr>().ok();
        let first =
            if key.starts_with("address") && line.contains(',') && !line.contains('[') { 1 } else { 16 };
        found.extend(values.filter_map(address).take(first).filter(|address| is_own(*address)));
    }
    found
}

fn is_own(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 255,
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    !(special || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

pub(super) fn macs(text: &str) -> Vec<[u8; 6]> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '-'));
    let read = |word: &str| {
        let mac: MacAddr = (word.len() == 17).then(|| word.replace('-', ":"))?.parse().ok()?;
        let special = mac.0 == [0; 6] || mac.0 == [0xff; 6] || mac.0[0] & 1 == 1;
        (!special).then_some(mac.0)
    };
    words.filter_map(read).collect()
}

pub(super) fn uuids(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
    let is_uuid = |word: &&str| {
        word.len() == 36
            && word.bytes().enumerate().all(|(at, b)| (b == b'-') == matches!(at, 8 | 13 | 18 | 23))
    };
    words.filter(is_uuid).map(str::to_ascii_lowercase).collect()
}

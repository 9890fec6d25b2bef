//! Files of a guest that configure network cards.
//!
//! What is written there is another machine's, or the same machine's from before. A bridge of containers, a tunnel, a
//! dummy or the loopback is the guest's own business: its files stay.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::identity::network::found::{Manager, Renderer};

/// A file that configures a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose file it is.
    pub renderer: Renderer,
    /// Inside the guest.
    pub path: PathBuf,
}

/// More than any machine has; a directory of a million files is no configuration.
const MOST_FILES: usize = 2000;

const PLACES: [(Renderer, &str); 9] = [
    (Renderer::Networkd, "/etc/systemd/network"),
    (Renderer::Keyfile, "/etc/NetworkManager/system-connections"),
    (Renderer::Ifupdown, "/etc/network/interfaces.d"),
    (Renderer::RedHat, "/etc/sysconfig/network-scripts"),
    // What redhat-config-network kept beside the former.
    (Renderer::RedHat, "/etc/sysconfig/networking/devices"),
    (Renderer::RedHat, "/etc/sysconfig/networking/profiles/default"),
    (Renderer::Suse, "/etc/sysconfig/network"),
    (Renderer::Netplan(Manager::Networkd), "/etc/netplan"),
    (Renderer::Ifupdown, "/etc/network"),
];

/// All of them, and whether `/etc/network/interfaces.d` has files that are no card's.
pub fn look(tree: &dyn Tree) -> Result<(Vec<Claim>, bool)> {
    let (mut claims, mut kept) = (Vec::new(), false);
    for (renderer, dir) in PLACES {
        let mut names = Vec::new();
        tree.names(Path::new(dir), &mut |name, _| {
            names.push(PathBuf::from(name));
            names.len() <= MOST_FILES
        })?;
        if names.len() > MOST_FILES {
            bail!("looking at '{dir}' in the guest: it has more than {MOST_FILES} entries");
        }
        names.sort();
        for name in names {
            let path = Path::new(dir).join(&name);
            let name = name.to_string_lossy();
            if !is_ones(&renderer, dir, &name) {
                continue;
            }
            match tree.entry(&path)? {
                // Nobody has a directory for a file; a link to /dev/null takes a file away that the system ships.
                Some(Entry::Dir) | None => continue,
                Some(Entry::Link(to)) if to == Path::new("/dev/null") => continue,
                Some(_) => {}
            }
            // What cannot be read as a file is in the way of one.
            let content = tree.read(&path).ok().flatten();
            let content = content.as_deref().map(String::from_utf8_lossy);
            if content.is_none_or(|content| is_for_cards(&renderer, &name, &content)) {
                claims.push(Claim { renderer: renderer.clone(), path });
            } else if dir.ends_with("interfaces.d") {
                kept = true;
            }
        }
    }
    Ok((claims, kept))
}

/// Whether a file of that name is one that the renderer reads, or keeps beside those.
fn is_ones(renderer: &Renderer, dir: &str, name: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    match renderer {
        Renderer::Networkd => [".network", ".netdev", ".link"].iter().any(|ending| name.ends_with(ending)),
        Renderer::Keyfile => true,
        Renderer::Ifupdown if dir == "/etc/network" => name == "interfaces",
        Renderer::Ifupdown => true,
        Renderer::RedHat => begins(&["ifcfg-", "route-", "route6-", "rule-", "rule6-", "keys-"]),
        Renderer::Suse => begins(&["ifcfg-", "ifroute-"]) || name == "routes",
        Renderer::Netplan(_) => name.ends_with(".yaml"),
    }
}

/// Whether the file is for a card, or for what is made of cards; or is gridgate's.
fn is_for_cards(renderer: &Renderer, name: &str, content: &str) -> bool {
    if content.contains("written by gridgate") && *renderer != Renderer::Ifupdown {
        return true;
    }
    match renderer {
        Renderer::Networkd if name.ends_with(".netdev") => values(content, "Name").any(is_card),
        Renderer::Networkd => {
            let keys = ["MACAddress", "PermanentMACAddress", "Path", "Type", "Driver", "Property"];
            let named = ["Name", "OriginalName"].iter().flat_map(|key| values(content, key));
            keys.iter().any(|key| values(content, key).next().is_some())
                || named.flat_map(str::split_whitespace).any(is_card)
        }
        Renderer::Keyfile => {
            let cards = [
                "ethernet",
                "802-3-ethernet",
                "bond",
                "vlan",
                "wifi",
                "802-11-wireless",
                "infiniband",
                "team",
            ];
            values(content, "type").any(|kind| cards.contains(&kind))
        }
        Renderer::Ifupdown => {
            let stanzas = content.lines().filter_map(|line| line.trim_start().strip_prefix("iface "));
            stanzas.filter_map(|rest| rest.split_whitespace().next()).any(is_card)
        }
        Renderer::RedHat | Renderer::Suse => match name.split_once('-') {
            Some((_, device)) => is_card(device) || values(content, "HWADDR").next().is_some(),
            // SUSE's routes of all interfaces.
            None => content.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')),
        },
        Renderer::Netplan(_) => content.lines().any(|line| {
            let line = line.trim_start();
            ["ethernets:", "bonds:", "vlans:", "wifis:"].iter().any(|key| line.starts_with(key))
        }),
    }
}

/// The values of a key in a file of `KEY=VALUE` lines.
fn values<'t>(content: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    content.lines().filter_map(move |line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// Whether a name, or a pattern of names, is that of a card or of what is made of cards: as the kernel, systemd, biosdevname
/// and people call them, and as gridgate does.
fn is_card(name: &str) -> bool {
    let plain = name.split(['.', ':', '@']).next().unwrap_or_default();
    let starts =
        ["eth", "en", "em", "wl", "ww", "ib", "usb", "vec", "net", "bond", "vlan", "team", "id-", "bus-"];
    let by_slot = plain.strip_prefix('p').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    by_slot || name.starts_with(['*', 'e']) || starts.iter().any(|start| plain.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_for_cards_are_told_from_those_for_bridges_and_tunnels() {
        let cards = [
            (Renderer::Networkd, "20-dhcp.network", "[Match]\nName=en*\n"),
            (Renderer::Networkd, "20-old.network", "[Match]\nMACAddress=52:54:00:11:22:33\n"),
            (Renderer::Networkd, "5.netdev", "[NetDev]\nName=bond7\nKind=bond\n"),
            (Renderer::Keyfile, "Wired connection 1", "[connection]\ntype=ethernet\n"),
            (Renderer::Ifupdown, "50-cloud-init", "auto ens3\niface ens3 inet dhcp\n"),
            (Renderer::RedHat, "ifcfg-eth0", "DEVICE=eth0\n"),
            (Renderer::RedHat, "ifcfg-Internal", "HWADDR=00:11:22:33:44:55\n"),
            (Renderer::Suse, "ifcfg-eth-id-00:11:22:33:44:55", "BOOTPROTO=dhcp\n"),
            (Renderer::Suse, "routes", "default 10.0.0.1 - -\n"),
            (Renderer::Netplan(Manager::Networkd), "50-cloud-init.yaml", "network:\n  ethernets:\n"),
        ];
        for (renderer, name, content) in &cards {
            assert!(is_for_cards(renderer, name, content), "{name}");
        }
        let others = [
            (Renderer::Networkd, "docker.network", "[Match]\nName=docker0 br-*\n"),
            (Renderer::Networkd, "wg0.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n"),
            (Renderer::Keyfile, "vpn.nmconnection", "[connection]\ntype=wireguard\n"),
            (Renderer::Ifupdown, "br0", "iface br0 inet static\n"),
            (Renderer::Ifupdown, "interfaces", "auto lo\niface lo inet loopback\n"),
            (Renderer::RedHat, "ifcfg-lo", "DEVICE=lo\n"),
            (Renderer::Suse, "ifcfg-lo", "IPADDR=127.0.0.1/8\n"),
            (Renderer::Suse, "routes", "# none\n\n"),
            (Renderer::Netplan(Manager::Networkd), "t.yaml", "network:\n  tunnels:\n"),
        ];
        for (renderer, name, content) in &others {
            assert!(!is_for_cards(renderer, name, content), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_told_apart_without_a_crash(name in "\\PC{0,20}", content in "\\PC{0,60}") {
            for (renderer, dir) in PLACES {
                is_ones(&renderer, dir, &name);
                is_for_cards(&renderer, &name, &content);
            }
        }
    }
}

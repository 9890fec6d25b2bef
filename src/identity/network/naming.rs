//! What interfaces are called inside the guest.
//!
//! The same card is `vec0`, `ens3`, `enp0s2` or `eth0` depending on what runs the guest, so that nothing may rely on the
//! kernel's name: a `.link` file that matches the hardware address gives it one name everywhere (systemd.link(5)). Guests
//! from before such files (systemd 211, 2014) call their cards `eth0`, `eth1`; there a udev rule holds the order.

use std::collections::BTreeMap;

use crate::config::interface::{Interface, InterfaceKind};
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::found::{Found, Renderer};
use crate::identity::network::wanted::Wanted;
use crate::names::NicName;

/// What udev before `.link` files remembers of cards that it has seen.
const REMEMBERED: &str = "/etc/udev/rules.d/70-persistent-net.rules";

/// The interfaces, with names that the guest can give them.
pub fn fit(interfaces: &[Interface], found: &Found, renderer: &Renderer) -> Vec<Interface> {
    let mut names: BTreeMap<NicName, NicName> = BTreeMap::new();
    if found.kernel_names {
        let cards = interfaces.iter().filter(|nic| nic.kind == InterfaceKind::Ethernet);
        for (number, card) in cards.enumerate() {
            if let Ok(name) = format!("eth{number}").parse() {
                names.insert(card.name.clone(), name);
            }
        }
    }
    for nic in interfaces {
        if let InterfaceKind::Vlan { parent, id } = &nic.kind
            && (found.kernel_names || *renderer == Renderer::RedHat)
            && !scripts_take(&nic.name)
        {
            let parent = names.get(parent).unwrap_or(parent);
            let name = format!("{parent}.{id}").parse().or_else(|_| format!("vlan{id}").parse());
            if let Ok(name) = name {
                names.insert(nic.name.clone(), name);
            }
        } else if let InterfaceKind::Vlan { parent, id } = &nic.kind
            && let Some(parent) = names.get(parent)
            && let Ok(name) = format!("{parent}.{id}").parse()
        {
            names.insert(nic.name.clone(), name);
        }
    }
    let renamed = |name: &NicName| names.get(name).unwrap_or(name).clone();
    let fitted = |nic: &Interface| {
        let kind = match &nic.kind {
            InterfaceKind::Ethernet => InterfaceKind::Ethernet,
            InterfaceKind::Vlan { parent, id } => InterfaceKind::Vlan { parent: renamed(parent), id: *id },
            InterfaceKind::Bond { members, mode } => {
                InterfaceKind::Bond { members: members.iter().map(renamed).collect(), mode: *mode }
            }
        };
        Interface { name: renamed(&nic.name), kind, ..nic.clone() }
    };
    interfaces.iter().map(fitted).collect()
}

/// Whether the network scripts see from its name that it is a VLAN.
fn scripts_take(name: &NicName) -> bool {
    let name = name.as_str();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("vlan").is_some_and(number) || name.rsplit_once('.').is_some_and(|(_, id)| number(id))
}

/// Edits that give cards their names.
pub fn edits(wanted: &Wanted<'_>, found: &Found) -> Vec<Edit> {
    let cards = wanted.interfaces.iter().filter(|nic| nic.kind == InterfaceKind::Ethernet);
    let known = cards.filter_map(|nic| Some((&nic.name, nic.mac?)));
    // Where Ubuntu and nameif(8) keep what a card is called.
    let mut edits = vec![Edit::remove("/etc/iftab"), Edit::remove("/etc/mactab")];
    if found.kernel_names {
        let rule = |(name, mac)| {
            format!("SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{{address}}==\"{mac}\", NAME=\"{name}\"\n")
        };
        edits.push(match found.udev_rules {
            true => Edit::text(REMEMBERED, HEADER.to_owned() + &known.map(rule).collect::<String>()),
            false => Edit::remove(REMEMBERED),
        });
        return edits;
    }
    edits.push(Edit::remove(REMEMBERED));
    let link = |name: &NicName, place: u8, text: String| {
        Edit::text(&format!("/etc/systemd/network/{place}-gridgate-{name}.link"), format!("{HEADER}{text}"))
    };
    for (name, mac) in known {
        edits.push(link(name, 11, format!("[Match]\nMACAddress={mac}\n\n[Link]\nName={name}\n")));
    }
    for nic in wanted.interfaces.iter().filter(|nic| nic.kind != InterfaceKind::Ethernet) {
        // It has a card's hardware address, and would be renamed to it.
        let text = format!("[Match]\nOriginalName={}\n\n[Link]\nNamePolicy=\n", nic.name);
        edits.push(link(&nic.name, 10, text));
    }
    edits
}

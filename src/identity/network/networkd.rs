//! systemd-networkd: `.network` and `.netdev` files (systemd.network(5), systemd.netdev(5)).
//!
//! Of all files that match an interface the first by name holds. A VLAN or bond has the hardware address of its card, so
//! that their files, which match by name, come before those that match a card by its address.

use std::fmt::Write;

use crate::config::interface::{Interface, InterfaceKind};
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::wanted::{Wanted, joined};

const DIR: &str = "/etc/systemd/network";

/// One `.network` for each interface, and one `.netdev` for each that has to be made.
pub fn edits(wanted: &Wanted<'_>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for nic in &wanted.interfaces {
        let is_card = nic.kind == InterfaceKind::Ethernet;
        let stem = format!("{DIR}/{}-gridgate-{}", if is_card { 11 } else { 10 }, nic.name);
        if let Some(netdev) = netdev(nic) {
            edits.push(Edit::text(&format!("{stem}.netdev"), netdev));
        }
        edits.push(Edit::text(&format!("{stem}.network"), network(wanted, nic)));
    }
    edits
}

fn netdev(nic: &Interface) -> Option<String> {
    let (kind, section) = match &nic.kind {
        InterfaceKind::Ethernet => return None,
        InterfaceKind::Vlan { id, .. } => ("vlan", format!("[VLAN]\nId={id}\n")),
        // Without link monitoring a bond never notices that a card is dead.
        InterfaceKind::Bond { mode, .. } => {
            ("bond", format!("[Bond]\nMode={}\nMIIMonitorSec=100ms\n", mode.name()))
        }
    };
    let mac = nic.mac.map(|mac| format!("MACAddress={mac}\n")).unwrap_or_default();
    Some(format!("{HEADER}[NetDev]\nName={}\nKind={kind}\n{mac}\n{section}", nic.name))
}

fn network(wanted: &Wanted<'_>, nic: &Interface) -> String {
    let bond = wanted.bond_of(&nic.name);
    // A card in a bond takes on the bond's hardware address.
    let matched = match nic.mac {
        Some(mac) if nic.kind == InterfaceKind::Ethernet && bond.is_none() => format!("MACAddress={mac}"),
        _ => format!("Name={}", nic.name),
    };
    let mut text = format!("{HEADER}[Match]\n{matched}\n");
    if let Some(mtu) = nic.mtu {
        // Writing to a String cannot fail; so below.
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    text.push_str("\n[Network]\n");
    for address in &nic.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &nic.gateways {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    if wanted.is_first_addressed(nic) {
        for server in wanted.dns {
            let _ = writeln!(text, "DNS={server}");
        }
        if !wanted.search.is_empty() {
            let _ = writeln!(text, "Domains={}", joined(wanted.search, " "));
        }
    }
    for vlan in wanted.vlans_on(&nic.name) {
        let _ = writeln!(text, "VLAN={vlan}");
    }
    if let Some(bond) = bond {
        let _ = writeln!(text, "Bond={bond}");
    }
    let _ = writeln!(text, "DHCP={}", if nic.automatic.ipv4 { "ipv4" } else { "no" });
    let _ = writeln!(text, "IPv6AcceptRA={}", if nic.automatic.ipv6 { "yes" } else { "no" });
    for route in &nic.routes {
        let _ = write!(text, "\n[Route]\nDestination={}\n", route.to);
        match route.via {
            Some(via) => drop(writeln!(text, "Gateway={via}")),
            None => text.push_str("Scope=link\n"),
        }
        if let Some(metric) = route.metric {
            let _ = writeln!(text, "Metric={metric}");
        }
    }
    text
}

//! ifupdown: `/etc/network/interfaces` (interfaces(5)).
//!
//! One stanza for each family of an interface, with `netmask` and `ip` commands for the rest: that is what every version
//! takes, back to those that know neither `address A/P` nor several stanzas of one family. VLANs and bonds are made by
//! `ip`, since the packages `vlan` and `ifenslave` may be missing.

use std::fmt::Write;
use std::net::IpAddr;

use crate::config::interface::{Interface, InterfaceKind};
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::found::Found;
use crate::identity::network::wanted::{Family, Wanted, joined};

/// The file.
pub const FILE: &str = "/etc/network/interfaces";

/// The file, whole.
pub fn edits(wanted: &Wanted<'_>, found: &Found) -> Vec<Edit> {
    let mut text = loopback(found);
    for nic in &wanted.interfaces {
        // Whoever makes the bond takes its cards.
        if wanted.bond_of(&nic.name).is_none() {
            text.push_str(&interface(wanted, nic));
        }
    }
    vec![Edit::text(FILE, text)]
}

/// The file of a guest whose interfaces are another's.
pub fn loopback(found: &Found) -> String {
    let others = if found.interfaces_d { "source /etc/network/interfaces.d/*\n\n" } else { "" };
    format!("{HEADER}{others}auto lo\niface lo inet loopback\n")
}

fn interface(wanted: &Wanted<'_>, nic: &Interface) -> String {
    let name = &nic.name;
    let mut text = format!("\nauto {name}\n");
    let (ipv4, ipv6) = (nic.ipv4(), nic.ipv6());
    let mut making = making(nic);
    if ipv4.is_unused() && (ipv6.is_unused() || ipv6.automatic) {
        making.push(format!("up ip link set dev {name} up"));
    }
    if wanted.is_first_addressed(nic) {
        if !wanted.dns.is_empty() {
            making.push(format!("dns-nameservers {}", joined(wanted.dns, " ")));
        }
        if !wanted.search.is_empty() {
            making.push(format!("dns-search {}", joined(wanted.search, " ")));
        }
    }
    // What makes the interface stands in its first stanza.
    let mut first = Some(making);
    if !ipv4.is_unused() || ipv6.is_unused() {
        let method = method(&ipv4, "dhcp", "manual");
        let _ = writeln!(text, "iface {name} inet {method}");
        stanza(&mut text, &ipv4, method, name.as_str(), first.take());
    }
    if !ipv6.is_unused() {
        let method = method(&ipv6, "auto", "manual");
        let _ = writeln!(text, "iface {name} inet6 {method}");
        if method == "static" {
            text.push_str("    accept_ra 0\n    autoconf 0\n");
        }
        stanza(&mut text, &ipv6, method, name.as_str(), first.take());
    }
    text
}

fn method(family: &Family<'_>, asked: &'static str, unused: &'static str) -> &'static str {
    match () {
        () if family.automatic => asked,
        () if family.addresses.is_empty() => unused,
        () => "static",
    }
}

/// How the interface comes to be, before anything is set on it.
fn making(nic: &Interface) -> Vec<String> {
    let name = &nic.name;
    let mut lines = Vec::new();
    // ifupdown makes some kinds of VLAN itself, depending on name and version.
    let missing = format!("pre-up ip link show dev {name} >/dev/null 2>&1 || ip link add");
    let gone = format!("post-down ip link delete dev {name} || true");
    match &nic.kind {
        InterfaceKind::Ethernet => {}
        InterfaceKind::Vlan { parent, id } => {
            lines.push(format!("pre-up ip link set dev {parent} up"));
            lines.push(format!("{missing} link {parent} name {name} type vlan id {id}"));
            lines.push(gone);
        }
        InterfaceKind::Bond { members, mode } => {
            lines.push(format!("{missing} name {name} type bond mode {} miimon 100", mode.name()));
            for member in members {
                lines.push(format!("pre-up ip link set dev {member} down"));
                lines.push(format!("pre-up ip link set dev {member} master {name}"));
            }
            lines.push(gone);
        }
    }
    if let Some(mac) = nic.mac.filter(|_| nic.kind != InterfaceKind::Ethernet) {
        lines.push(format!("pre-up ip link set dev {name} address {mac}"));
    }
    if let Some(mtu) = nic.mtu {
        lines.push(format!("pre-up ip link set dev {name} mtu {mtu}"));
    }
    lines
}

fn stanza(text: &mut String, family: &Family<'_>, method: &str, name: &str, making: Option<Vec<String>>) {
    let mut addresses = family.addresses.iter();
    if method == "static"
        && let Some(first) = addresses.next()
    {
        let mask = match first.netmask() {
            IpAddr::V4(mask) => mask.to_string(),
            IpAddr::V6(_) => first.prefix_len().to_string(),
        };
        let _ = writeln!(text, "    address {}\n    netmask {mask}", first.addr());
        if let Some(gateway) = family.gateway {
            let _ = writeln!(text, "    gateway {gateway}");
        }
    } else if let Some(gateway) = family.gateway {
        let _ = writeln!(text, "    up ip route replace default via {gateway} dev {name}");
    }
    for line in making.unwrap_or_default() {
        let _ = writeln!(text, "    {line}");
    }
    for address in addresses {
        let _ = writeln!(text, "    up ip address replace {address} dev {name}");
    }
    for route in &family.routes {
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let metric = route.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
        let _ = writeln!(text, "    up ip route replace {}{via} dev {name}{metric}", route.to);
    }
}

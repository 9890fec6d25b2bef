//! A guest's network, written for whatever brings it up.
//!
//! The same interface is `vec0`, `ens3`, `enp0s2` or `eth0` depending on what runs the guest, so that nothing may rely on
//! the kernel's name: a `.link` file that matches the hardware address gives it one name everywhere (systemd.link(5)).

use std::fmt::Write;
use std::net::IpAddr;

use crate::config::interface::Interface;
use crate::identity::edit::Edit;
use crate::identity::found::Found;
use crate::identity::wanted::Identity;

/// Edits that give the guest its address, for the renderer that it really uses; where both are there, networkd if it is
/// enabled, else ifupdown, and the other one is left with nothing to do.
pub fn edits(identity: &Identity, found: &Found) -> Vec<Edit> {
    let mut edits = Vec::new();
    let Some(interface) = identity.interfaces.first() else { return edits };
    let mac = interface.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let link = format!("[Match]\nMACAddress={mac}\n\n[Link]\nName={}\n", interface.name);
    edits.push(Edit::text("/etc/systemd/network/10-gridgate.link", link));
    let by_networkd = found.networkd_enabled || !found.ifupdown;
    if by_networkd {
        edits.push(Edit::text("/etc/systemd/network/10-gridgate.network", networkd(identity, interface)));
        if found.networkd && !found.networkd_enabled {
            edits.push(Edit::link(
                "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
                "/lib/systemd/system/systemd-networkd.service",
            ));
        }
    } else {
        edits.push(Edit::remove("/etc/systemd/network/10-gridgate.network"));
    }
    if found.ifupdown {
        let ours = if by_networkd { String::new() } else { ifupdown(identity, interface) };
        let loopback = "auto lo\niface lo inet loopback\n";
        edits.push(Edit::text("/etc/network/interfaces", format!("{loopback}{ours}")));
    }
    edits
}

fn networkd(identity: &Identity, interface: &Interface) -> String {
    let mac = interface.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let mut text = format!("[Match]\nMACAddress={mac}\n\n[Network]\n");
    // Writing to a String cannot fail.
    for address in &interface.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &interface.gateways {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in &identity.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if !identity.search.is_empty() {
        let _ = writeln!(text, "Domains={}", identity.search.join(" "));
    }
    text.push_str("DHCP=no\nIPv6AcceptRA=no\n");
    text
}

fn ifupdown(identity: &Identity, interface: &Interface) -> String {
    let name = &interface.name;
    let mut text = format!("\nauto {name}\n");
    for address in &interface.addresses {
        let family = if address.addr().is_ipv4() { "inet" } else { "inet6" };
        let _ = writeln!(text, "iface {name} {family} static\n    address {address}");
        let same = |gateway: &&IpAddr| gateway.is_ipv4() == address.addr().is_ipv4();
        if let Some(gateway) = interface.gateways.iter().find(same) {
            let _ = writeln!(text, "    gateway {gateway}");
        }
    }
    if !identity.dns.is_empty() {
        let servers: Vec<String> = identity.dns.iter().map(IpAddr::to_string).collect();
        let _ = writeln!(text, "    dns-nameservers {}", servers.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::edits::tests::identity;

    fn text(edits: &[Edit], path: &str) -> Option<String> {
        edits.iter().find_map(|edit| match edit {
            Edit::Write { path: at, content, .. } if at.as_os_str() == path => {
                Some(String::from_utf8_lossy(content).into_owned())
            }
            _ => None,
        })
    }

    #[test]
    fn a_guest_with_networkd_gets_its_address_by_hardware_address() {
        let found = Found { networkd: true, networkd_enabled: true, ..Found::default() };
        let edits = edits(&identity(0), &found);
        let network = text(&edits, "/etc/systemd/network/10-gridgate.network").unwrap();
        assert_eq!(
            network,
            "[Match]\nMACAddress=52:54:00:00:00:10\n\n[Network]\nAddress=10.77.0.10/24\nGateway=10.77.0.1\n\
             DNS=10.77.0.2\nDomains=example.org\nDHCP=no\nIPv6AcceptRA=no\n"
        );
        assert_eq!(text(&edits, "/etc/network/interfaces"), None);
    }

    #[test]
    fn a_guest_with_ifupdown_alone_gets_an_interfaces_file() {
        let found = Found { ifupdown: true, networkd: true, ..Found::default() };
        let edits = edits(&identity(0), &found);
        let interfaces = text(&edits, "/etc/network/interfaces").unwrap();
        assert!(
            interfaces.contains("iface net0 inet static\n    address 10.77.0.10/24\n    gateway 10.77.0.1\n")
        );
        assert!(edits.contains(&Edit::remove("/etc/systemd/network/10-gridgate.network")));
    }

    #[test]
    fn where_both_are_there_the_enabled_one_gets_the_address_and_the_other_only_loopback() {
        let found = Found { ifupdown: true, networkd: true, networkd_enabled: true, ..Found::default() };
        let edits = edits(&identity(0), &found);
        assert_eq!(
            text(&edits, "/etc/network/interfaces").as_deref(),
            Some("auto lo\niface lo inet loopback\n")
        );
        assert!(text(&edits, "/etc/systemd/network/10-gridgate.network").is_some());
    }

    #[test]
    fn a_disabled_networkd_is_enabled_where_nothing_else_is_there() {
        let found = Found { networkd: true, ..Found::default() };
        let edits = edits(&identity(0), &found);
        assert!(
            edits
                .iter()
                .any(|e| matches!(e, Edit::Link { path, .. } if path.ends_with("systemd-networkd.service")))
        );
    }
}

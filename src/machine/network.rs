//! The host's own network, for systemd-networkd (systemd.network(5)); pure.

use std::fmt::Write;
use std::net::IpAddr;

use crate::config::host_machine::HostMachine;
use crate::identity::edit::Edit;

const DIR: &str = "/etc/systemd/network";
const HEADER: &str = "# Written by gridgate when it made this machine; it does not touch it again.\n";
/// What a card that is known by its hardware address is called.
pub const CARD: &str = "net0";

/// Files that bring it up.
pub fn edits(host: &HostMachine, dns: &[IpAddr], domain: &str) -> Vec<Edit> {
    let file = |name: &str, text: String| Edit::text(&format!("{DIR}/{name}"), format!("{HEADER}{text}"));
    if !host.knows_card() {
        return vec![file("20-gridgate-any.network", any())];
    }
    let mut edits = Vec::new();
    let mut matched = String::new();
    if let Some(mac) = host.mac {
        let text = format!("[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={CARD}\n");
        edits.push(file(&format!("10-gridgate-{CARD}.link"), text));
        // Type: a bridge, or a VLAN on the card, has its hardware address too.
        matched = format!("[Match]\nMACAddress={mac}\nType=ether\nKind=!*\n");
    }
    if let Some(interface) = &host.interface {
        matched = format!("[Match]\nName={interface}\n");
    }
    let addressed = addressed(host, dns, domain);
    let Some(bridge) = &host.bridge else {
        edits.push(file("20-gridgate-card.network", format!("{matched}\n[Network]\n{addressed}")));
        return edits;
    };
    edits.push(file("20-gridgate-card.network", format!("{matched}\n[Network]\nBridge={bridge}\n")));
    let mac = host.mac.map(|mac| format!("MACAddress={mac}\n")).unwrap_or_default();
    let netdev = format!("[NetDev]\nName={bridge}\nKind=bridge\n{mac}");
    edits.push(file(&format!("20-gridgate-{bridge}.netdev"), netdev));
    let network = format!("[Match]\nName={bridge}\n\n[Network]\n{addressed}");
    edits.push(file(&format!("20-gridgate-{bridge}.network"), network));
    // Guests are plugged into it, so that it has to be there first.
    let device = format!("sys-subsystem-net-devices-{}.device", escaped(bridge.as_str()));
    let unit = format!("{HEADER}[Unit]\nWants={device}\nAfter={device}\n");
    edits.push(Edit::text("/etc/systemd/system/gridgate-network.service.d/bridge.conf", unit));
    edits
}

fn any() -> String {
    "# No card was named: each asks for an address.\n[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"
        .to_owned()
}

fn addressed(host: &HostMachine, dns: &[IpAddr], domain: &str) -> String {
    let asks = if host.dhcp { "yes" } else { "no" };
    let mut text = format!("DHCP={asks}\nIPv6AcceptRA={asks}\n");
    for address in &host.addresses {
        // Writing to a String cannot fail; so below.
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &host.gateways {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if !domain.is_empty() {
        let _ = writeln!(text, "Domains={domain}");
    }
    text
}

/// As systemd-escape(1) has it, of the characters that an interface's name may have.
fn escaped(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    name.chars().fold(String::new(), |mut text, c| {
        match plain(c) {
            true => text.push(c),
            false => drop(write!(text, "\\x{:02x}", u32::from(c))),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostMachine {
        let mut host = HostMachine::undescribed("gw".parse().unwrap(), "example.org");
        host.mac = Some("52:54:00:12:34:58".parse().unwrap());
        host.addresses = vec!["192.0.2.5/24".parse().unwrap()];
        host.gateways = vec!["192.0.2.1".parse().unwrap()];
        host.dhcp = false;
        host
    }

    fn text(edits: &[Edit], name: &str) -> String {
        let found = edits.iter().find(|edit| edit.path().ends_with(name));
        match found {
            Some(Edit::Write { content, .. }) => String::from_utf8(content.clone()).unwrap(),
            _ => panic!("{name} is not in {edits:?}"),
        }
    }

    #[test]
    fn a_card_that_is_known_by_its_hardware_address_has_a_name_and_the_addresses() {
        let edits = edits(&host(), &["192.0.2.53".parse().unwrap()], "example.org");
        assert!(text(&edits, "10-gridgate-net0.link").ends_with("[Link]\nName=net0\n"));
        let network = text(&edits, "20-gridgate-card.network");
        assert!(network.contains("MACAddress=52:54:00:12:34:58\n"), "{network}");
        assert!(network.ends_with(
            "DHCP=no\nIPv6AcceptRA=no\nAddress=192.0.2.5/24\nGateway=192.0.2.1\nDNS=192.0.2.53\nDomains=example.org\n"
        ));
    }

    #[test]
    fn a_bridge_takes_the_addresses_and_is_there_before_the_guests_networks() {
        let mut host = host();
        host.bridge = Some("br-lan".parse().unwrap());
        let edits = edits(&host, &[], "");
        assert!(text(&edits, "20-gridgate-card.network").ends_with("[Network]\nBridge=br-lan\n"));
        assert!(text(&edits, "20-gridgate-br-lan.network").contains("Address=192.0.2.5/24\n"));
        assert!(text(&edits, "bridge.conf").contains("After=sys-subsystem-net-devices-br\\x2dlan.device\n"));
    }

    #[test]
    fn cards_that_nobody_named_ask_for_addresses() {
        let edits = edits(&HostMachine::undescribed("gw".parse().unwrap(), ""), &[], "");
        assert!(text(&edits, "20-gridgate-any.network").ends_with("[Network]\nDHCP=yes\n"));
    }
}

//! netplan: one YAML file (netplan(5)).
//!
//! Text is quoted everywhere: an address such as `::1` and a name such as `no` are something else in YAML without.

use std::fmt::Write;

use crate::config::interface::{Interface, InterfaceKind};
use crate::host::root::FileMode;
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::found::Manager;
use crate::identity::network::wanted::{Wanted, joined};

const FILE: &str = "/etc/netplan/90-gridgate.yaml";

/// The file; 0600, since netplan warns of any other mode: keys for wireless networks may be in it.
pub fn edits(wanted: &Wanted<'_>, manager: Manager) -> Vec<Edit> {
    let content = text(wanted, manager).into_bytes();
    vec![Edit::Write {
        path: FILE.into(),
        content,
        mode: FileMode::Exactly(0o600),
        owner: None,
        secret: false,
    }]
}

fn text(wanted: &Wanted<'_>, manager: Manager) -> String {
    let renderer = match manager {
        Manager::Networkd => "networkd",
        Manager::NetworkManager => "NetworkManager",
    };
    let mut text = format!("{HEADER}network:\n  version: 2\n  renderer: {renderer}\n");
    // Writing to a String cannot fail; so below.
    for heading in ["ethernets", "bonds", "vlans"] {
        let mut nics = wanted.interfaces.iter().filter(|nic| self::heading(nic) == heading).peekable();
        if nics.peek().is_some() {
            let _ = writeln!(text, "  {heading}:");
        }
        for nic in nics {
            let _ = writeln!(text, "    \"{}\":", nic.name);
            for line in lines(wanted, nic) {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    text
}

fn heading(nic: &Interface) -> &'static str {
    match nic.kind {
        InterfaceKind::Ethernet => "ethernets",
        InterfaceKind::Bond { .. } => "bonds",
        InterfaceKind::Vlan { .. } => "vlans",
    }
}

fn lines(wanted: &Wanted<'_>, nic: &Interface) -> Vec<String> {
    let mut lines = Vec::new();
    match &nic.kind {
        InterfaceKind::Ethernet => {
            if let Some(mac) = nic.mac {
                lines.push(format!("match: {{macaddress: \"{mac}\"}}"));
                lines.push(format!("set-name: \"{}\"", nic.name));
            }
        }
        InterfaceKind::Vlan { parent, id } => {
            lines.push(format!("id: {id}"));
            lines.push(format!("link: \"{parent}\""));
        }
        InterfaceKind::Bond { members, mode } => {
            let members: Vec<String> = members.iter().map(|name| format!("\"{name}\"")).collect();
            lines.push(format!("interfaces: [{}]", members.join(", ")));
            let parameters = format!("{{mode: \"{}\", mii-monitor-interval: 100}}", mode.name());
            lines.push(format!("parameters: {parameters}"));
        }
    }
    if let Some(mac) = nic.mac.filter(|_| nic.kind != InterfaceKind::Ethernet) {
        lines.push(format!("macaddress: \"{mac}\""));
    }
    lines.push(format!("dhcp4: {}", nic.automatic.ipv4));
    lines.push(format!("accept-ra: {}", nic.automatic.ipv6));
    if let Some(mtu) = nic.mtu {
        lines.push(format!("mtu: {mtu}"));
    }
    if !nic.addresses.is_empty() {
        lines.push("addresses:".to_owned());
        lines.extend(nic.addresses.iter().map(|address| format!("  - \"{address}\"")));
    }
    if !nic.gateways.is_empty() || !nic.routes.is_empty() {
        lines.push("routes:".to_owned());
    }
    for gateway in &nic.gateways {
        // 'default' is known since 0.103 only, 'gateway4' no longer wanted since then.
        lines.push(format!("  - to: \"{}\"", if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }));
        lines.push(format!("    via: \"{gateway}\""));
    }
    for route in &nic.routes {
        lines.push(format!("  - to: \"{}\"", route.to));
        lines.push(match route.via {
            Some(via) => format!("    via: \"{via}\""),
            None => "    scope: link".to_owned(),
        });
        lines.extend(route.metric.map(|metric| format!("    metric: {metric}")));
    }
    if wanted.is_first_addressed(nic) && !(wanted.dns.is_empty() && wanted.search.is_empty()) {
        let quoted = |text: String| format!("\"{text}\"");
        lines.push("nameservers:".to_owned());
        if !wanted.search.is_empty() {
            let search = wanted.search.iter().map(|domain| quoted(domain.clone()));
            lines.push(format!("  search: [{}]", joined(search, ", ")));
        }
        if !wanted.dns.is_empty() {
            let servers = wanted.dns.iter().map(|server| quoted(server.to_string()));
            lines.push(format!("  addresses: [{}]", joined(servers, ", ")));
        }
    }
    lines
}

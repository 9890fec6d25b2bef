//! `/etc/sysconfig/network-scripts`: read by the network scripts from Red Hat Linux 7.3 on, and by NetworkManager's
//! ifcfg-rh plugin up to RHEL 9 (sysconfig.txt of initscripts; nm-settings-ifcfg-rh(5)).

use std::fmt::Write;
use std::net::IpAddr;

use crate::config::interface::{Interface, InterfaceKind};
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::found::Found;
use crate::identity::network::shell_lines::{has, line, set};
use crate::identity::network::wanted::{Wanted, joined};

const DIR: &str = "/etc/sysconfig/network-scripts";

/// `/etc/sysconfig/network`, which names the machine before systemd.
pub const NETWORK: &str = "/etc/sysconfig/network";

/// A file for each interface, one for its routes of each family, and the common one.
pub fn edits(wanted: &Wanted<'_>, found: &Found) -> Vec<Edit> {
    let mut edits = vec![Edit::text(NETWORK, network(wanted, found))];
    let mut static_routes = String::new();
    for nic in &wanted.interfaces {
        edits.push(Edit::text(&format!("{DIR}/ifcfg-{}", nic.name), ifcfg(wanted, nic, found)));
        if found.kernel_names {
            edits.extend(aliases(nic));
        }
        let (ipv4, ipv6) = (nic.ipv4(), nic.ipv6());
        if found.static_routes_only {
            for route in &ipv4.routes {
                let via = route.via.map_or_else(|| format!("dev {}", nic.name), |via| format!("gw {via}"));
                let (to, mask) = (route.to.network(), route.to.netmask());
                let _ = writeln!(static_routes, "{} net {to} netmask {mask} {via}", nic.name);
            }
        } else if !ipv4.routes.is_empty() {
            edits.push(Edit::text(&format!("{DIR}/route-{}", nic.name), routes(nic, &ipv4.routes)));
        }
        if !ipv6.routes.is_empty() {
            edits.push(Edit::text(&format!("{DIR}/route6-{}", nic.name), routes(nic, &ipv6.routes)));
        }
    }
    let static_file = "/etc/sysconfig/static-routes";
    edits.push(match static_routes.as_str() {
        "" => Edit::remove(static_file),
        _ => Edit::text(static_file, format!("{HEADER}{static_routes}")),
    });
    edits
}

/// What is the administrator's stays in the file; what names the old machine or its way out does not.
fn network(wanted: &Wanted<'_>, found: &Found) -> String {
    let mut text = found.sysconfig_network.clone().unwrap_or_default();
    let mut put = |key: &str, value: Option<&str>| text = set(&text, key, value);
    put("NETWORKING", Some("yes"));
    if !found.systemd {
        put("HOSTNAME", Some(wanted.fqdn));
    } else if has(found.sysconfig_network.as_deref().unwrap_or_default(), "HOSTNAME") {
        // systemd reads /etc/hostname alone.
        put("HOSTNAME", None);
    }
    let first = wanted.interfaces.iter().find_map(|nic| nic.ipv4().gateway.copied());
    // The oldest network scripts take the default route from here alone.
    let gateway = first.filter(|_| found.kernel_names).map(|gateway| gateway.to_string());
    put("GATEWAY", gateway.as_deref());
    for key in ["GATEWAYDEV", "IPV6_DEFAULTGW", "IPV6_DEFAULTDEV"] {
        put(key, None);
    }
    if !found.systemd && wanted.interfaces.iter().any(|nic| !nic.ipv6().is_unused()) {
        put("NETWORKING_IPV6", Some("yes"));
    }
    text
}

fn ifcfg(wanted: &Wanted<'_>, nic: &Interface, found: &Found) -> String {
    let (ipv4, ipv6) = (nic.ipv4(), nic.ipv6());
    let mut text = HEADER.to_owned();
    let mut put = |key: &str, value: &str| text.push_str(&line(key, value));
    put("DEVICE", nic.name.as_str());
    match &nic.kind {
        InterfaceKind::Ethernet => put("TYPE", "Ethernet"),
        InterfaceKind::Vlan { parent, id } => {
            put("TYPE", "Vlan");
            put("VLAN", "yes");
            put("PHYSDEV", parent.as_str());
            put("VLAN_ID", &id.to_string());
        }
        InterfaceKind::Bond { mode, .. } => {
            put("TYPE", "Bond");
            put("BONDING_MASTER", "yes");
            put("BONDING_OPTS", &format!("mode={} miimon=100", mode.name()));
        }
    }
    if let Some(mac) = nic.mac {
        // HWADDR is what a card has, MACADDR what an interface is to have.
        let key = if nic.kind == InterfaceKind::Ethernet { "HWADDR" } else { "MACADDR" };
        put(key, &mac.to_string());
    }
    put("ONBOOT", "yes");
    put("BOOTPROTO", if ipv4.automatic { "dhcp" } else { "none" });
    if let Some(mtu) = nic.mtu {
        put("MTU", &mtu.to_string());
    }
    if let Some(bond) = wanted.bond_of(&nic.name) {
        put("MASTER", bond.as_str());
        put("SLAVE", "yes");
        return text;
    }
    // Aliases are how the oldest network scripts have several; see below.
    let here = if found.kernel_names { 1 } else { ipv4.addresses.len() };
    for (number, address) in ipv4.addresses.iter().take(here).enumerate() {
        let number = if number == 0 { String::new() } else { number.to_string() };
        put(&format!("IPADDR{number}"), &address.addr().to_string());
        put(&format!("NETMASK{number}"), &address.netmask().to_string());
        if !found.kernel_names {
            put(&format!("PREFIX{number}"), &address.prefix_len().to_string());
        }
    }
    if let Some(gateway) = ipv4.gateway {
        put("GATEWAY", &gateway.to_string());
    }
    put("IPV6INIT", if ipv6.is_unused() { "no" } else { "yes" });
    if !ipv6.is_unused() {
        put("IPV6_AUTOCONF", if ipv6.automatic { "yes" } else { "no" });
        let mut addresses = ipv6.addresses.iter();
        if let Some(first) = addresses.next() {
            put("IPV6ADDR", &first.to_string());
        }
        if addresses.len() > 0 {
            put("IPV6ADDR_SECONDARIES", &joined(addresses, " "));
        }
        if let Some(gateway) = ipv6.gateway {
            put("IPV6_DEFAULTGW", &gateway.to_string());
        }
    }
    if wanted.is_first_addressed(nic) {
        if !wanted.dns.is_empty() && (ipv4.automatic || ipv6.automatic) {
            put("PEERDNS", "no");
        }
        for (number, server) in (1..).zip(wanted.dns) {
            put(&format!("DNS{number}"), &server.to_string());
        }
        if !wanted.search.is_empty() {
            put("DOMAIN", &joined(wanted.search, " "));
        }
    }
    text
}

/// A file for each further address: `eth0:1` and so on.
fn aliases(nic: &Interface) -> Vec<Edit> {
    let further = nic.addresses.iter().filter(|net| net.addr().is_ipv4()).skip(1);
    let alias = |(number, address): (usize, &ipnet::IpNet)| {
        let name = format!("{}:{number}", nic.name);
        let mut text = format!("{HEADER}{}", line("DEVICE", &name));
        text.push_str(&line("ONBOOT", "yes"));
        text.push_str(&line("BOOTPROTO", "none"));
        text.push_str(&line("IPADDR", &address.addr().to_string()));
        text.push_str(&line("NETMASK", &address.netmask().to_string()));
        Edit::text(&format!("{DIR}/ifcfg-{name}"), text)
    };
    (1..).zip(further).map(alias).collect()
}

fn routes(nic: &Interface, routes: &[&crate::config::interface::Route]) -> String {
    let mut text = HEADER.to_owned();
    for route in routes {
        let via = route.via.map(|via: IpAddr| format!(" via {via}")).unwrap_or_default();
        let metric = route.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}{via} dev {}{metric}", route.to, nic.name);
    }
    text
}

//! SUSE: `/etc/sysconfig/network/ifcfg-*` and `ifroute-*`, read by wicked and by the scripts before it
//! (ifcfg(5), ifcfg-bonding(5), ifcfg-vlan(5), ifroute(5)).

use std::fmt::Write;

use crate::config::interface::{Interface, InterfaceKind};
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::wanted::{Wanted, joined};

use super::found::Found;
use super::shell_lines::{line, set};

const DIR: &str = "/etc/sysconfig/network";

/// Settings of netconfig(8), which writes `/etc/resolv.conf` unless somebody else did.
pub const NETCONFIG: &str = "/etc/sysconfig/network/config";

/// A file for each interface, one for its routes, and the name servers where netconfig looks for them.
pub fn edits(wanted: &Wanted<'_>, found: &Found) -> Vec<Edit> {
    let mut edits = Vec::new();
    for nic in &wanted.interfaces {
        edits.push(Edit::text(&format!("{DIR}/ifcfg-{}", nic.name), ifcfg(wanted, nic)));
        let routes = routes(nic);
        if !routes.is_empty() {
            edits.push(Edit::text(&format!("{DIR}/ifroute-{}", nic.name), format!("{HEADER}{routes}")));
        }
    }
    if let Some(config) = &found.netconfig {
        let config = set(config, "NETCONFIG_DNS_STATIC_SERVERS", Some(&joined(wanted.dns, " ")));
        let search = joined(wanted.search, " ");
        edits.push(Edit::text(NETCONFIG, set(&config, "NETCONFIG_DNS_STATIC_SEARCHLIST", Some(&search))));
    }
    edits
}

fn ifcfg(wanted: &Wanted<'_>, nic: &Interface) -> String {
    let mut text = HEADER.to_owned();
    let mut put = |key: &str, value: &str| text.push_str(&line(key, value));
    let is_part = wanted.bond_of(&nic.name).is_some();
    // wicked asks for an address where 'dhcp4' or 'auto6' is; the scripts before it know 'dhcp4', too.
    put(
        "BOOTPROTO",
        match (nic.automatic.ipv4, nic.automatic.ipv6) {
            _ if is_part => "none",
            (true, true) => "dhcp4+auto6",
            (true, false) => "dhcp4",
            (false, true) => "auto6",
            (false, false) => "static",
        },
    );
    put("STARTMODE", if is_part { "hotplug" } else { "auto" });
    match &nic.kind {
        InterfaceKind::Ethernet => {}
        InterfaceKind::Vlan { parent, id } => {
            put("ETHERDEVICE", parent.as_str());
            put("VLAN_ID", &id.to_string());
        }
        InterfaceKind::Bond { members, mode } => {
            put("BONDING_MASTER", "yes");
            put("BONDING_MODULE_OPTS", &format!("mode={} miimon=100", mode.name()));
            for (number, member) in members.iter().enumerate() {
                put(&format!("BONDING_SLAVE_{number}"), member.as_str());
            }
        }
    }
    if let Some(mac) = nic.mac.filter(|_| nic.kind != InterfaceKind::Ethernet) {
        put("LLADDR", &mac.to_string());
    }
    if let Some(mtu) = nic.mtu {
        put("MTU", &mtu.to_string());
    }
    if !is_part {
        for (number, address) in nic.addresses.iter().enumerate() {
            let key = if number == 0 { "IPADDR".to_owned() } else { format!("IPADDR_{number}") };
            put(&key, &address.to_string());
        }
    }
    text
}

fn routes(nic: &Interface) -> String {
    let mut text = String::new();
    for gateway in &nic.gateways {
        // Writing to a String cannot fail; so below.
        let _ = writeln!(text, "default {gateway} - {}", nic.name);
    }
    for route in &nic.routes {
        let via = route.via.map_or_else(|| "-".to_owned(), |via| via.to_string());
        let metric = route.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
        let _ = writeln!(text, "{} {via} - {}{metric}", route.to, nic.name);
    }
    text
}

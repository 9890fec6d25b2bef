//! NetworkManager's keyfiles (nm-settings-keyfile(5)).

use std::fmt::Write;

use crate::config::interface::{Interface, InterfaceKind};
use crate::host::root::FileMode;
use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::wanted::{Family, Wanted, joined, of_family};

/// Tells NetworkManager which interfaces are another's.
pub const UNMANAGED: &str = "/etc/NetworkManager/conf.d/10-gridgate.conf";

const DIR: &str = "/etc/NetworkManager/system-connections";

/// One connection for each interface; NetworkManager ignores files that others than root may read.
pub fn edits(wanted: &Wanted<'_>) -> Vec<Edit> {
    let connection = |nic: &&Interface| Edit::Write {
        path: format!("{DIR}/gridgate-{}.nmconnection", nic.name).into(),
        content: text(wanted, nic).into_bytes(),
        mode: FileMode::Exactly(0o600),
        owner: None,
        secret: false,
    };
    wanted.interfaces.iter().map(connection).collect()
}

/// The same for the same guest and interface, and no other's.
fn uuid(wanted: &Wanted<'_>, nic: &Interface) -> String {
    let mut hash = blake3::Hasher::new_derive_key("gridgate 2026 UUID of a NetworkManager connection");
    hash.update(wanted.machine_id.as_bytes()).update(b"\0").update(nic.name.as_str().as_bytes());
    let mut bytes = [0; 16];
    hash.finalize_xof().fill(&mut bytes);
    // Version 8 (RFC 9562) is for what one makes up oneself.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn text(wanted: &Wanted<'_>, nic: &Interface) -> String {
    let name = &nic.name;
    let kind = match nic.kind {
        InterfaceKind::Ethernet => "ethernet",
        InterfaceKind::Vlan { .. } => "vlan",
        InterfaceKind::Bond { .. } => "bond",
    };
    let uuid = uuid(wanted, nic);
    let mut text =
        format!("{HEADER}[connection]\nid={name}\nuuid={uuid}\ntype={kind}\ninterface-name={name}\n");
    let bond = wanted.bond_of(name);
    if let Some(bond) = bond {
        // 'controller' and 'port-type' are for NetworkManager 1.46 and later; these are for all.
        let _ = write!(text, "master={bond}\nslave-type=bond\n");
    }
    text.push_str("\n[ethernet]\n");
    if let Some(mac) = nic.mac {
        let key = if nic.kind == InterfaceKind::Ethernet { "mac-address" } else { "cloned-mac-address" };
        let _ = writeln!(text, "{key}={mac}");
    }
    if let Some(mtu) = nic.mtu {
        let _ = writeln!(text, "mtu={mtu}");
    }
    match &nic.kind {
        InterfaceKind::Ethernet => {}
        InterfaceKind::Vlan { parent, id } => {
            let _ = write!(text, "\n[vlan]\nid={id}\nparent={parent}\n");
        }
        InterfaceKind::Bond { mode, .. } => {
            let _ = write!(text, "\n[bond]\nmiimon=100\nmode={}\n", mode.name());
        }
    }
    if bond.is_none() {
        // NetworkManager before 1.20 takes no 'disabled' for IPv6; a link-local address is what every other renderer
        // leaves, too.
        family(&mut text, "ipv4", &nic.ipv4(), "disabled", wanted, nic);
        family(&mut text, "ipv6", &nic.ipv6(), "link-local", wanted, nic);
    }
    text
}

fn family(
    text: &mut String,
    section: &str,
    family: &Family<'_>,
    unused: &str,
    wanted: &Wanted<'_>,
    nic: &Interface,
) {
    let method = match () {
        () if family.automatic => "auto",
        () if family.addresses.is_empty() => unused,
        () => "manual",
    };
    let _ = write!(text, "\n[{section}]\nmethod={method}\n");
    if family.is_unused() {
        return;
    }
    for (number, address) in (1..).zip(&family.addresses) {
        let _ = writeln!(text, "address{number}={address}");
    }
    if let Some(gateway) = family.gateway {
        let _ = writeln!(text, "gateway={gateway}");
    }
    for (number, route) in (1..).zip(&family.routes) {
        let anywhere = || if section == "ipv4" { "0.0.0.0" } else { "::" }.to_owned();
        let end = match (route.via, route.metric) {
            (None, None) => String::new(),
            (Some(via), None) => format!(",{via}"),
            (via, Some(metric)) => {
                let via = via.map_or_else(anywhere, |via| via.to_string());
                format!(",{via},{metric}")
            }
        };
        let _ = writeln!(text, "route{number}={}{end}", route.to);
    }
    if wanted.is_first_addressed(nic) {
        let servers: Vec<_> = of_family(wanted.dns, section == "ipv4").collect();
        if !servers.is_empty() {
            let _ = writeln!(text, "dns={};", joined(servers, ";"));
            if family.automatic {
                text.push_str("ignore-auto-dns=true\n");
            }
        }
        if !wanted.search.is_empty() {
            let _ = writeln!(text, "dns-search={};", joined(wanted.search, ";"));
        }
    }
}

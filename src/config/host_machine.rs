//! `[host]`: the machine that runs the guests, as far as the site describes it. It matters where the machine itself is made
//! (`gridgate site install`); on a host that was installed by other means nothing of it is looked at.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::explain::Explain;
use super::layers::Layers;
use super::problem::Problems;
use super::site::{NetworkMode, Site};
use super::suggest;
use crate::names::{GuestName, IfName, MacAddr};

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostMachine {
    /// First label of its name.
    pub hostname: GuestName,
    /// First label and domain.
    pub fqdn: String,
    /// Hardware address of its card.
    pub mac: Option<MacAddr>,
    /// What its kernel and udev call the card, where its hardware address is not known.
    pub interface: Option<IfName>,
    /// The bridge that the card is put into, and that has the addresses then: networks of mode `bridge` name it.
    pub bridge: Option<IfName>,
    /// Fixed addresses with their prefix, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Whether addresses are asked for (DHCP).
    pub dhcp: bool,
    /// The kernel's serial console besides the screen, as its `console=` has it; none if it is empty.
    pub console: String,
    /// Further words for its kernel.
    pub kernel_args: String,
}

/// The serial line that most boards and all emulators have.
const CONSOLE: &str = "ttyS0,115200";

impl HostMachine {
    /// A machine that is not described.
    pub fn undescribed(hostname: GuestName, domain: &str) -> Self {
        let fqdn = if domain.is_empty() { hostname.to_string() } else { format!("{hostname}.{domain}") };
        Self {
            hostname,
            fqdn,
            mac: None,
            interface: None,
            bridge: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            dhcp: true,
            console: CONSOLE.to_owned(),
            kernel_args: String::new(),
        }
    }

    /// Whether its card is known by anything; if not, all its cards ask for an address.
    pub fn knows_card(&self) -> bool {
        self.mac.is_some() || self.interface.is_some()
    }
}

/// Reads it; what is left open is derived.
pub fn read(
    host: &Layers<'_>,
    site: &str,
    domain: &str,
    explain: &mut Explain,
    problems: &mut Problems,
) -> Option<HostMachine> {
    for key in super::keys::HOST {
        explain.layered("host.", key.name, host);
    }
    let text = |key: &str| host.pick(key).and_then(|entry| entry.value.text());
    let hostname = match text("hostname") {
        Some(name) => name.parse().ok()?,
        None => {
            explain.derived("host.", "hostname", &format!("\"{site}\""), "the site's name");
            site.parse().ok()?
        }
    };
    let mut read = HostMachine::undescribed(hostname, domain);
    read.mac = text("mac").and_then(|mac| mac.parse().ok());
    read.interface = text("interface").and_then(|name| name.parse().ok());
    read.bridge = text("bridge").and_then(|name| name.parse().ok());
    read.addresses = ["address", "ipv6"].iter().filter_map(|key| text(key)?.parse().ok()).collect();
    read.gateways = ["gateway", "ipv6_gateway"].iter().filter_map(|key| text(key)?.parse().ok()).collect();
    read.dhcp = match host.pick("dhcp").and_then(|entry| entry.value.flag()) {
        Some(dhcp) => dhcp,
        None => read.addresses.is_empty(),
    };
    if let Some(console) = text("console") {
        read.console = console.to_owned();
    }
    read.kernel_args = text("kernel_args").unwrap_or_default().to_owned();
    check(&read, host, problems);
    Some(read)
}

fn check(read: &HostMachine, host: &Layers<'_>, problems: &mut Problems) {
    if let (Some(_), Some(interface)) = (read.mac, host.pick("interface")) {
        let hint =
            "keep one of them: 'mac' where it is known, since a card's name may change with the kernel";
        problems.add(&interface.origin, "the host's card is known by its hardware address already", hint);
    }
    for key in ["address", "ipv6", "bridge"] {
        if let Some(entry) = host.pick(key).filter(|_| !read.knows_card()) {
            let hint = "mac = \"...\" as it is printed on the card or its box, or interface = \"eno1\"";
            problems.add(&entry.origin, format!("'{key}' needs to know which card of the host has it"), hint);
            break;
        }
    }
    for (key, family) in [("gateway", "address"), ("ipv6_gateway", "ipv6")] {
        let Some(entry) = host.pick(key) else { continue };
        let gateway: Option<IpAddr> = entry.value.text().and_then(|text| text.parse().ok());
        let Some(gateway) = gateway else { continue };
        let near = read.addresses.iter().any(|net| net.contains(&gateway));
        if !near {
            let message = format!("gateway {gateway} is not in the network of the host's '{family}'");
            problems.add(&entry.value.origin, message, "both are of one network, or leave it to DHCP");
        }
    }
}

/// What only shows when the whole site is looked at.
pub fn check_together(site: &Site, host: &Layers<'_>, problems: &mut Problems) {
    let place = |key: &str| host.pick(key).map(|entry| entry.value.origin.clone());
    let machine = &site.host;
    if let (Some(origin), true) = (place("hostname"), site.guest(&machine.hostname).is_some()) {
        let message = format!("the host cannot have the name of guest '{}'", machine.hostname);
        problems.add(&origin, message, "give it another one");
    }
    for (key, net) in ["address", "ipv6"].iter().filter_map(|key| Some((key, host.pick(key)?))) {
        let Some(net) = net.value.text().and_then(|text| text.parse::<IpNet>().ok()) else { continue };
        let taken = site.guests.iter().find(|guest| {
            guest.interfaces.iter().flat_map(|nic| &nic.addresses).any(|has| has.addr() == net.addr())
        });
        if let (Some(guest), Some(origin)) = (taken, place(key)) {
            let message = format!("address {} is already that of guest '{}'", net.addr(), guest.name);
            problems.add(&origin, message, "give the host one of its own");
        }
    }
    let networks = site.networks.iter().filter(|network| network.mode == NetworkMode::Bridge);
    let bridges: Vec<&str> = networks.map(|network| network.bridge.as_str()).collect();
    if let (Some(bridge), Some(origin)) = (&machine.bridge, place("bridge"))
        && !bridges.contains(&bridge.as_str())
        && !site.rehearsed()
    {
        let hint = match bridges.is_empty() {
            true => format!("[networks.lan] with mode = \"bridge\" and bridge = \"{bridge}\""),
            false => suggest::hint(bridge.as_str(), bridges, "bridges of the site's networks"),
        };
        problems.add(&origin, format!("no network of the site is on bridge '{bridge}'"), hint);
    }
}

//! Guests' interfaces: the first one, which the guest's own keys speak of, and those of `[interface.NAME]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::cards;
use super::checks;
use super::derive;
use super::explain::Explain;
use super::guest::{Draft, counted_mac, plus};
use super::interface::{Automatic, BondMode, FIRST_INTERFACE, Interface, InterfaceKind, Route};
use super::layers::Layers;
use super::network::NamedNetwork;
use super::origin::Origin;
use super::problem::Problems;
use super::wiring;
use crate::names::{MacAddr, NicName, SiteName};

/// Gives every guest its interfaces, and tells what is wrong with them.
pub fn read(
    drafts: &mut [Draft<'_>],
    networks: &[NamedNetwork],
    site: &SiteName,
    explain: &mut Explain,
    problems: &mut Problems,
) {
    let mut taken: BTreeSet<MacAddr> = drafts.iter().filter_map(|draft| draft.mac).collect();
    let mut said: Vec<(MacAddr, Origin)> = Vec::new();
    for draft in drafts.iter() {
        for (name, layers) in tables(draft) {
            if let Some(mac) = said_mac(draft, &layers) {
                let origin = place(&layers, "mac").unwrap_or_else(|| draft.start().clone());
                if !taken.insert(mac) {
                    let whose =
                        format!("mac {mac} of interface '{name}' is already that of another interface");
                    problems.add(&origin, whose, "leave it away to get one of its own");
                }
                said.push((mac, origin));
            }
        }
    }
    for draft in drafts.iter_mut() {
        let Some(mut interfaces) = first(draft, networks).map(|first| vec![first]) else { continue };
        for (name, layers) in tables(draft) {
            let Ok(parsed) = name.parse::<NicName>() else { continue };
            if name == FIRST_INTERFACE {
                let origin =
                    layers.0.first().and_then(|table| table.entries.first()).map(|entry| &entry.origin);
                let hint = "its keys stand in the guest's file itself, outside of any [interface]";
                let message = format!("'{name}' is the guest's first interface");
                problems.add(origin.unwrap_or(draft.start()), message, hint);
                continue;
            }
            interfaces.push(further(draft, parsed, &layers, networks, site, &mut taken, explain, problems));
        }
        wiring::check(draft, &interfaces, problems);
        carry(&mut interfaces);
        draft.interfaces = interfaces;
    }
    wiring::together(drafts, problems);
}

/// The tables of `[interface]`, by name.
pub fn tables<'a>(draft: &Draft<'a>) -> Vec<(&'a str, Layers<'a>)> {
    let all = draft.layers.inner("interface");
    all.names().into_iter().map(|name| (name, all.inner(name))).collect()
}

/// Where a key of an interface stands.
pub fn place(layers: &Layers<'_>, key: &str) -> Option<Origin> {
    layers.pick(key).map(|entry| entry.value.origin.clone())
}

fn first(draft: &Draft<'_>, networks: &[NamedNetwork]) -> Option<Interface> {
    let network = networks.get(draft.network?)?.network.as_ref()?;
    let address = IpNet::new(draft.address?, network.subnet.prefix_len()).ok()?;
    let mut first = Interface::first(draft.mac?, address, draft.own_gateway().or(network.gateway));
    let step = |key: &str| draft.step(key);
    common(&mut first, &draft.layers, &step);
    Some(first)
}

/// What the guest's own keys and those of a table have in common.
fn common(nic: &mut Interface, layers: &Layers<'_>, step: &dyn Fn(&str) -> Option<i64>) {
    let text = |key: &str| layers.pick(key).and_then(|entry| entry.value.text());
    let texts = |key: &str| layers.pick(key).map(|entry| entry.value.texts()).unwrap_or_default();
    let flag = |key: &str| layers.pick(key).and_then(|entry| entry.value.flag()).unwrap_or_default();
    let counted = |key: &str, text: &str| {
        let net: IpNet = text.parse().ok()?;
        IpNet::new(plus(net.addr(), step(key).unwrap_or(1) - 1)?, net.prefix_len()).ok()
    };
    nic.addresses.extend(texts("addresses").iter().filter_map(|(text, _)| counted("addresses", text)));
    nic.addresses.extend(text("ipv6").and_then(|text| counted("ipv6", text)));
    nic.gateways.extend(text("ipv6_gateway").and_then(|text| text.parse::<IpAddr>().ok()));
    nic.automatic = Automatic { ipv4: flag("dhcp"), ipv6: flag("ipv6_auto") };
    nic.routes = texts("routes").iter().filter_map(|(text, _)| text.parse::<Route>().ok()).collect();
    nic.mtu = layers.pick("mtu").and_then(|entry| u32::try_from(entry.value.integer()?).ok());
}

fn said_mac(draft: &Draft<'_>, layers: &Layers<'_>) -> Option<MacAddr> {
    let mac: MacAddr = layers.pick("mac")?.value.text()?.parse().ok()?;
    counted_mac(mac, draft.number.unwrap_or(1) - 1)
}

#[expect(clippy::too_many_arguments, reason = "one caller, and each is a different thing")]
fn further(
    draft: &Draft<'_>,
    name: NicName,
    layers: &Layers<'_>,
    networks: &[NamedNetwork],
    site: &SiteName,
    taken: &mut BTreeSet<MacAddr>,
    explain: &mut Explain,
    problems: &mut Problems,
) -> Interface {
    let kind = kind(&name, draft, layers, problems);
    let mut mac = said_mac(draft, layers);
    if mac.is_none() && kind == InterfaceKind::Ethernet {
        mac = derive::further_mac(site, &draft.name, &name, taken);
        if let Some(mac) = mac {
            let from = format!("the names of site '{site}', guest '{}' and interface '{name}'", draft.name);
            let scope = format!("{}.interface.{name}.", draft.name);
            explain.derived(&scope, "mac", &format!("\"{mac}\""), &from);
        }
    }
    let mut nic = Interface { kind, ..Interface::card(name, mac) };
    let text = |key: &str| layers.pick(key).and_then(|entry| entry.value.text());
    if let Some((address, prefix)) = text("address").and_then(checks::split_address) {
        let said = layers.pick("prefix").and_then(|entry| u8::try_from(entry.value.integer()?).ok());
        let address = plus(address, draft.number.unwrap_or(1) - 1);
        let of_network = || {
            let network = cards::network(layers, address, networks);
            network.filter(|_| nic.kind == InterfaceKind::Ethernet).map(|network| network.subnet.prefix_len())
        };
        let net = address
            .zip(prefix.or(said).or_else(of_network))
            .and_then(|(address, prefix)| IpNet::new(address, prefix).ok());
        if net.is_none() {
            let place = place(layers, "address").unwrap_or_else(|| draft.start().clone());
            let message = format!("the address of interface '{}' has no good prefix", nic.name);
            problems.add(&place, message, "for example: address = \"192.168.100.10/24\"");
        }
        nic.addresses.extend(net);
    }
    nic.gateways.extend(text("gateway").and_then(|text| text.parse::<IpAddr>().ok()));
    common(&mut nic, layers, &|_| draft.number);
    cards::plug(&mut nic, draft, layers, networks, problems);
    nic
}

/// What the keys make of it; two kinds at once are told.
fn kind(name: &NicName, draft: &Draft<'_>, layers: &Layers<'_>, problems: &mut Problems) -> InterfaceKind {
    let at = |key: &str| place(layers, key).unwrap_or_else(|| draft.start().clone());
    let has = |key: &str| layers.pick(key).is_some();
    for (key, with) in [("parent", "vlan"), ("bond_mode", "bond")] {
        if has(key) && !has(with) {
            let message = format!("interface '{name}' has '{key}' without '{with}'");
            problems.add(&at(key), message, format!("'{key}' says more of a {with}"));
        }
    }
    if has("vlan") && has("bond") {
        let message = format!("interface '{name}' cannot be a VLAN and a bond");
        problems.add(
            &at("vlan"),
            message,
            "make the bond one interface and the VLAN, with it as parent, another",
        );
    }
    let text = |key: &str| layers.pick(key).and_then(|entry| entry.value.text());
    if let Some(id) = layers.pick("vlan").and_then(|entry| u16::try_from(entry.value.integer()?).ok()) {
        let parent = text("parent").unwrap_or(FIRST_INTERFACE).parse();
        return parent.map_or(InterfaceKind::Ethernet, |parent| InterfaceKind::Vlan { parent, id });
    }
    if let Some(entry) = layers.pick("bond") {
        let members = entry.value.texts().iter().filter_map(|(text, _)| text.parse().ok()).collect();
        let mode = BondMode::ALL.into_iter().find(|mode| Some(mode.name()) == text("bond_mode"));
        return InterfaceKind::Bond { members, mode: mode.unwrap_or_default() };
    }
    InterfaceKind::Ethernet
}

/// A bond that has the first interface has what the guest's own keys say: a card in a bond has no addresses.
fn carry(interfaces: &mut [Interface]) {
    let (Some(first), rest) = (interfaces.first().cloned(), &mut interfaces[1..]) else { return };
    let bond = rest.iter_mut().find(
        |nic| matches!(&nic.kind, InterfaceKind::Bond { members, .. } if members.contains(&first.name)),
    );
    let Some(bond) = bond else { return };
    bond.addresses.splice(0..0, first.addresses);
    bond.gateways.splice(0..0, first.gateways);
    bond.routes.splice(0..0, first.routes);
    bond.automatic.ipv4 |= first.automatic.ipv4;
    bond.automatic.ipv6 |= first.automatic.ipv6;
    bond.mtu = bond.mtu.or(first.mtu);
    // Others know the guest by it.
    bond.mac = bond.mac.or(first.mac);
    interfaces[0] = Interface { mtu: first.mtu, ..Interface::card(first.name, first.mac) };
}

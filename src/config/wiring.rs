//! What must be true of a guest's interfaces together, and of all guests'.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::guest::Draft;
use super::interface::{FIRST_INTERFACE, Interface, InterfaceKind};
use super::interfaces::{place, tables};
use super::network::broadcast;
use super::origin::Origin;
use super::problem::Problems;
use super::suggest;
use crate::names::NicName;

/// Tells problems at the keys of one guest.
struct Desk<'d, 'a> {
    draft: &'d Draft<'a>,
    problems: &'d mut Problems,
}

impl Desk<'_, '_> {
    /// At the first of the keys that the interface has.
    fn tell(&mut self, nic: &NicName, keys: &[&str], message: String, hint: &str) {
        let origin = if nic.as_str() == FIRST_INTERFACE {
            let key = keys.iter().find(|key| self.draft.layers.pick(key).is_some());
            key.map(|key| self.draft.place(key).clone())
        } else {
            let table = tables(self.draft).into_iter().find(|(name, _)| *name == nic.as_str());
            table.and_then(|(_, layers)| {
                let any = layers.0.first().and_then(|table| table.entries.first()).map(|e| e.origin.clone());
                keys.iter().find_map(|key| place(&layers, key)).or(any)
            })
        };
        let origin: Origin = origin.unwrap_or_else(|| self.draft.start().clone());
        self.problems.add(&origin, message, hint);
    }
}

/// Checks one guest's interfaces, the first one first.
pub fn check(draft: &Draft<'_>, interfaces: &[Interface], problems: &mut Problems) {
    let mut desk = Desk { draft, problems };
    for nic in interfaces {
        match &nic.kind {
            InterfaceKind::Ethernet => {}
            InterfaceKind::Vlan { parent, id } => vlan(nic, parent, *id, interfaces, &mut desk),
            InterfaceKind::Bond { members, .. } => bond(nic, members, interfaces, &mut desk),
        }
        addresses(nic, &mut desk);
    }
    ways_out(interfaces, &mut desk);
    overlaps(interfaces, &mut desk);
}

fn find<'i>(interfaces: &'i [Interface], name: &NicName) -> Option<&'i Interface> {
    interfaces.iter().find(|nic| nic.name == *name)
}

fn unknown(nic: &Interface, key: &str, name: &NicName, interfaces: &[Interface], desk: &mut Desk<'_, '_>) {
    let names = interfaces.iter().map(|nic| nic.name.as_str());
    let hint = suggest::hint(name.as_str(), names, "interfaces of the guest");
    desk.tell(&nic.name, &[key], format!("unknown interface '{name}'"), &hint);
}

fn vlan(nic: &Interface, parent: &NicName, id: u16, interfaces: &[Interface], desk: &mut Desk<'_, '_>) {
    let (name, keys) = (&nic.name, ["parent", "vlan"]);
    let Some(on) = find(interfaces, parent) else { return unknown(nic, "parent", parent, interfaces, desk) };
    if let InterfaceKind::Vlan { .. } = on.kind {
        let message = format!("VLAN '{name}' cannot be on '{parent}', which is a VLAN itself");
        desk.tell(name, &keys, message, "a VLAN is on a card or a bond");
    }
    if in_bond(interfaces, parent).is_some() {
        let message = format!("VLAN '{name}' cannot be on '{parent}', which is in a bond");
        desk.tell(name, &keys, message, "put it on the bond");
    }
    let same = |other: &&Interface| matches!(&other.kind, InterfaceKind::Vlan { parent: on, id: number } if on == parent && *number == id);
    if let Some(other) = interfaces.iter().find(same).filter(|other| other.name != *name) {
        let message = format!("VLAN {id} of '{parent}' is already '{}'", other.name);
        desk.tell(name, &["vlan"], message, "a VLAN is one interface; it may have several addresses");
    }
    if nic.mtu.is_some_and(|mtu| mtu > on.mtu.unwrap_or(1500)) {
        let message = format!("VLAN '{name}' has a larger mtu than '{parent}'");
        desk.tell(name, &["mtu"], message, "what it sends must fit through its parent");
    }
}

fn in_bond<'i>(interfaces: &'i [Interface], name: &NicName) -> Option<&'i NicName> {
    interfaces.iter().find_map(|nic| match &nic.kind {
        InterfaceKind::Bond { members, .. } if members.contains(name) => Some(&nic.name),
        _ => None,
    })
}

fn bond(nic: &Interface, members: &[NicName], interfaces: &[Interface], desk: &mut Desk<'_, '_>) {
    let name = &nic.name;
    if members.is_empty() {
        desk.tell(
            name,
            &["bond"],
            format!("bond '{name}' has no interfaces"),
            "name the cards that it is made of",
        );
    }
    for (at, member) in members.iter().enumerate() {
        let Some(card) = find(interfaces, member) else {
            unknown(nic, "bond", member, interfaces, desk);
            continue;
        };
        if card.kind != InterfaceKind::Ethernet {
            let message = format!("bond '{name}' is made of cards, and '{member}' is none");
            desk.tell(name, &["bond"], message, "a VLAN of a bond has the bond as its parent");
        }
        let other = in_bond(interfaces, member).filter(|other| *other != name);
        if other.is_some() || members[..at].contains(member) {
            desk.tell(
                name,
                &["bond"],
                format!("'{member}' is in a bond already"),
                "a card is in one bond only",
            );
        }
        let bare = card.addresses.is_empty() && !card.automatic.ipv4 && !card.automatic.ipv6;
        if !bare && member.as_str() != FIRST_INTERFACE {
            let message = format!("'{member}' is in bond '{name}' and has no addresses of its own");
            desk.tell(member, &["address", "ipv6", "addresses", "dhcp"], message, "give them to the bond");
        }
    }
}

fn addresses(nic: &Interface, desk: &mut Desk<'_, '_>) {
    let keys = ["address", "ipv6", "addresses"];
    // The first one's first address is looked at together with its network.
    let checked = usize::from(nic.name.as_str() == FIRST_INTERFACE);
    for net in nic.addresses.iter().skip(checked) {
        let wide = net.max_prefix_len() - net.prefix_len() >= 2;
        if wide && net.addr().is_ipv4() && (net.addr() == net.network() || Some(net.addr()) == broadcast(net))
        {
            desk.tell(
                &nic.name,
                &keys,
                format!("address {} is no host's in {}", net.addr(), net.trunc()),
                "",
            );
        }
        if net.addr().is_unspecified() || net.addr().is_multicast() || net.addr().is_loopback() {
            desk.tell(&nic.name, &keys, format!("address {} is no host's", net.addr()), "");
        }
    }
    let reaches = |via: &IpAddr| {
        let asked = if via.is_ipv4() { nic.automatic.ipv4 } else { nic.automatic.ipv6 };
        let link_local = matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local());
        asked || link_local || nic.addresses.iter().any(|net| net.contains(via))
    };
    let own = nic.gateways.iter().filter(|gateway| !reaches(gateway));
    for gateway in own {
        // Told already, at the guest's own key.
        if nic.name.as_str() == FIRST_INTERFACE && gateway.is_ipv4() {
            continue;
        }
        let keys = if gateway.is_ipv4() { ["gateway"] } else { ["ipv6_gateway"] };
        let message = format!("gateway {gateway} is in no network of interface '{}'", nic.name);
        desk.tell(&nic.name, &keys, message, "a gateway is a neighbour");
    }
    for via in nic.routes.iter().filter_map(|route| route.via).filter(|via| !reaches(via)) {
        let message = format!("a route goes by {via}, which is in no network of interface '{}'", nic.name);
        desk.tell(&nic.name, &["routes"], message, "give the route to the interface that has this neighbour");
    }
}

/// One default route of each family: with two, which one is taken is left to chance.
fn ways_out(interfaces: &[Interface], desk: &mut Desk<'_, '_>) {
    for ipv4 in [true, false] {
        let has = |nic: &&Interface| nic.gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4);
        let mut with = interfaces.iter().filter(has);
        let Some(first) = with.next() else { continue };
        for other in with {
            let message = format!(
                "'{}' is the guest's way out already, and '{}' would be another",
                first.name, other.name
            );
            let key = if ipv4 { "gateway" } else { "ipv6_gateway" };
            desk.tell(
                &other.name,
                &[key],
                message,
                "give it routes instead, or 'gateway' to one of them only",
            );
        }
    }
}

fn overlaps(interfaces: &[Interface], desk: &mut Desk<'_, '_>) {
    for (at, nic) in interfaces.iter().enumerate() {
        for other in &interfaces[..at] {
            let meet = |a: &IpNet, b: &IpNet| a.contains(&b.trunc()) || b.contains(&a.trunc());
            let mut pairs = nic.addresses.iter().flat_map(|a| other.addresses.iter().map(move |b| (a, b)));
            if let Some((a, b)) = pairs.find(|(a, b)| meet(a, b)) {
                let message = format!(
                    "{} of interface '{}' overlaps {} of interface '{}'",
                    a.trunc(),
                    nic.name,
                    b.trunc(),
                    other.name
                );
                desk.tell(
                    &nic.name,
                    &["address", "ipv6", "addresses"],
                    message,
                    "the guest could not tell which way to send",
                );
            }
        }
    }
}

/// What no two interfaces of the site may share, beyond what guests' own addresses are checked for.
pub fn together(drafts: &[Draft<'_>], problems: &mut Problems) {
    let mut first: BTreeMap<IpAddr, (&Draft<'_>, &NicName)> = BTreeMap::new();
    let own = |draft: &Draft<'_>, net: &IpNet| draft.address == Some(net.addr());
    for draft in drafts {
        first.extend(
            draft.address.and_then(|address| Some((address, (draft, &draft.interfaces.first()?.name)))),
        );
    }
    for draft in drafts {
        for nic in &draft.interfaces {
            for net in nic.addresses.iter().filter(|net| !own(draft, net)) {
                match first.get(&net.addr()) {
                    Some((other, on)) => {
                        let message = format!(
                            "address {} is already that of '{on}' of guest '{}'",
                            net.addr(),
                            other.name
                        );
                        let mut desk = Desk { draft, problems };
                        desk.tell(
                            &nic.name,
                            &["address", "ipv6", "addresses"],
                            message,
                            "give each an address of its own",
                        );
                    }
                    None => drop(first.insert(net.addr(), (draft, &nic.name))),
                }
            }
        }
    }
}

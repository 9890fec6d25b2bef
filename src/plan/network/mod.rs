//! From the networks that a site wants, and those that are there, to the steps between them.
//!
//! What gridgate made is known by the note on it ([`names`]); nothing else is ever changed, but for an interface that
//! the site names as an uplink, and forwarding. What is gridgate's and wanted by nothing is removed, so that taking a
//! site down is planning for no networks at all.

pub mod names;
mod ruleset;
mod step;
mod uplink;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::site::{Guest, Network, NetworkMode, Site};
use crate::facts::network::NetFacts;
use crate::host::net::{Link, LinkKind};
use crate::names::{IfName, NetworkName};
pub use step::{NetProblem, NetStep, Place};

/// The steps that bring the site's networks up, in order; none if all is as it should be. `id` is
/// [`crate::paths::Paths::id`]. All problems are found at once.
pub fn plan(site: &Site, facts: &NetFacts, id: &str) -> Result<Vec<NetStep>, Vec<NetProblem>> {
    let mut planner = Planner::new(facts, id);
    planner.remove_unwanted(&site.networks);
    if site.rehearsed() && facts.namespace.is_none() {
        planner.steps.push(NetStep::MakeNamespace);
    }
    for network in &site.networks {
        planner.network(network);
    }
    let translated: Vec<&Network> = site.networks.iter().filter(|n| n.mode == NetworkMode::Nat).collect();
    planner.translate(&translated);
    planner.addresses_in_use(site);
    if planner.problems.is_empty() { Ok(planner.steps) } else { Err(planner.problems) }
}

/// The steps that take away all that [`plan`] for this site's id ever made, whatever its files say now. Guests should
/// have been stopped: their ports lose their bridge.
pub fn teardown(facts: &NetFacts, id: &str) -> Vec<NetStep> {
    let mut planner = Planner::new(facts, id);
    planner.force = true;
    planner.remove_unwanted(&[]);
    planner.steps
}

struct Planner<'a> {
    facts: &'a NetFacts,
    id: &'a str,
    /// Whether bridges that guests are still on may go.
    force: bool,
    steps: Vec<NetStep>,
    problems: Vec<NetProblem>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a NetFacts, id: &'a str) -> Self {
        Self { facts, id, force: false, steps: Vec::new(), problems: Vec::new() }
    }

    fn problem(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(NetProblem { what: what.into(), hint: hint.into() });
    }

    fn links(&self, place: Place) -> &'a [Link] {
        match place {
            Place::Host => &self.facts.host,
            Place::Rehearsal => self.facts.namespace.as_deref().unwrap_or_default(),
        }
    }

    fn is_our_bridge(&self, link: &Link) -> bool {
        link.kind == LinkKind::Bridge && names::owner(link) == Some(self.id)
    }

    fn our_bridges(&self, place: Place) -> Vec<&'a Link> {
        self.links(place).iter().filter(|l| self.is_our_bridge(l)).collect()
    }

    fn remove_unwanted(&mut self, wanted: &[Network]) {
        let table = names::table(self.id);
        let own_table = self.facts.tables.iter().any(|t| t.name == table);
        let translates = wanted.iter().any(|n| n.mode == NetworkMode::Nat);
        if !translates {
            let others = names::table("");
            let last = !self.facts.tables.iter().any(|t| t.name != table && t.name.starts_with(&others));
            // While it is up, a site that never translated has no say in what another one needed.
            if self.facts.forwarding_is_ours && last && (own_table || wanted.is_empty()) {
                self.steps.push(NetStep::StopForwarding);
            }
            if own_table {
                self.steps.push(NetStep::StopTranslating { table });
            }
        }
        self.release_unwanted(wanted);
        for link in self.our_bridges(Place::Host) {
            let kept =
                wanted.iter().any(|n| n.mode != NetworkMode::Rehearsal && n.bridge.as_str() == link.name);
            if !kept {
                self.remove_bridge(Place::Host, link);
            }
        }
        if wanted.iter().any(|n| n.mode == NetworkMode::Rehearsal) {
            for link in self.our_bridges(Place::Rehearsal) {
                if !wanted.iter().any(|n| n.bridge.as_str() == link.name) {
                    self.remove_bridge(Place::Rehearsal, link);
                }
            }
        } else if let Some(links) = &self.facts.namespace {
            if !self.force && links.iter().any(|l| names::is_guest_port(l, self.id)) {
                self.problem(
                    "the site is not rehearsed any more, but guests still run in its network namespace",
                    "take it down first with 'gridgate down'",
                );
            } else {
                self.steps.push(NetStep::RemoveNamespace);
            }
        }
    }

    fn remove_bridge(&mut self, place: Place, link: &Link) {
        // A name that the kernel has and we would refuse cannot be one that we gave.
        let Ok(bridge) = link.name.parse::<IfName>() else { return };
        let in_use = self
            .links(place)
            .iter()
            .any(|l| l.master == Some(link.index) && names::is_guest_port(l, self.id));
        if in_use && !self.force {
            self.problem(
                format!("no network of the site uses bridge '{bridge}' any more, but guests are still on it"),
                "take the site down first with 'gridgate down'",
            );
        } else {
            self.steps.push(NetStep::RemoveBridge { place, bridge });
        }
    }

    fn network(&mut self, network: &Network) {
        let place = match network.mode {
            NetworkMode::Rehearsal => Place::Rehearsal,
            _ => Place::Host,
        };
        let bridge = &network.bridge;
        match self.links(place).iter().find(|l| l.name == bridge.as_str()) {
            Some(link) if self.is_our_bridge(link) => self.settle_addresses(network, place, Some(link)),
            Some(link) if link.kind == LinkKind::Bridge && names::owner(link).is_some() => {
                return self.problem(
                    format!("bridge '{bridge}' belongs to another site on this host"),
                    format!("give network '{}' a bridge name of its own", network.name),
                );
            }
            Some(link) if link.kind == LinkKind::Bridge && network.mode == NetworkMode::Bridge => {
                return self.existing_bridge(network, link);
            }
            Some(link) => {
                let what = if link.kind == LinkKind::Bridge { "a bridge" } else { "an interface" };
                return self.problem(
                    format!("the name '{bridge}' is taken by {what} that gridgate did not make"),
                    format!("give network '{}' another bridge name", network.name),
                );
            }
            None if network.mode == NetworkMode::Bridge && network.uplink.is_none() => {
                return self.problem(
                    format!("network '{}' has no uplink, and there is no bridge '{bridge}'", network.name),
                    "make the bridge, or name the interface that gridgate is to join to one of its own as 'uplink'",
                );
            }
            None => {
                self.steps.push(NetStep::MakeBridge { place, bridge: bridge.clone() });
                self.settle_addresses(network, place, None);
            }
        }
        if network.mode == NetworkMode::Bridge {
            self.join_uplink(network);
        }
    }

    /// Where the host is the gateway, its address on the bridge is gridgate's affair, and the only one there. On other
    /// bridges the administrator may add what he likes.
    fn settle_addresses(&mut self, network: &Network, place: Place, link: Option<&Link>) {
        if !matches!(network.mode, NetworkMode::Nat | NetworkMode::Rehearsal) {
            return;
        }
        let wanted =
            network.gateway.and_then(|gateway| IpNet::new(gateway, network.subnet.prefix_len()).ok());
        let bridge = &network.bridge;
        let present = link.map(|l| l.addresses.as_slice()).unwrap_or_default();
        for address in present.iter().filter(|a| !is_link_local(a) && Some(**a) != wanted) {
            self.steps.push(NetStep::RemoveAddress { place, bridge: bridge.clone(), address: *address });
        }
        if let Some(address) = wanted.filter(|a| !present.contains(a)) {
            self.steps.push(NetStep::AddAddress { place, bridge: bridge.clone(), address });
        }
    }

    fn translate(&mut self, networks: &[&Network]) {
        for network in networks {
            self.check_translated(network);
        }
        if networks.is_empty() {
            return;
        }
        let table = names::table(self.id);
        let rules = ruleset::ruleset(&table, networks);
        let present = self.facts.tables.iter().find(|t| t.name == table);
        if present.is_none_or(|t| t.comment.as_ref() != Some(&rules.comment)) {
            let replaces = present.is_some();
            self.steps.push(NetStep::Translate { table, script: rules.script, replaces });
        }
        if !self.facts.ip_forward {
            self.steps.push(NetStep::Forward);
        }
    }

    fn check_translated(&mut self, network: &Network) {
        let name = &network.name;
        if network.subnet.addr().is_ipv6() {
            // Forwarding IPv6 makes a host ignore router advertisements, by which it may have its own default route.
            self.problem(
                format!("network '{name}' is to be translated, which works for IPv4 only"),
                "give it an IPv4 subnet, or use mode 'bridge'",
            );
        }
        if network.gateway.is_none() {
            self.problem(
                format!("network '{name}' is to be translated, but has no gateway"),
                "give it a 'gateway' in its subnet; the bridge gets that address",
            );
        }
        if !ruleset::can_name(network.bridge.as_str()) {
            self.problem(
                format!("the bridge name '{}' cannot stand in a rule of nftables", network.bridge),
                "use letters, digits, '-', '_' and '.'",
            );
        }
        let subnet = network.subnet;
        let others = self.facts.host.iter().filter(|l| !self.is_our_bridge(l));
        let clash = others
            .flat_map(|l| l.addresses.iter().map(move |a| (l, a)))
            .find(|(_, a)| subnet.contains(&a.addr()));
        if let Some((link, address)) = clash {
            self.problem(
                format!(
                    "subnet {} of network '{name}' is in use: interface '{}' has {address}",
                    subnet.trunc(),
                    link.name
                ),
                "choose a subnet that the host is not on",
            );
        }
    }

    /// A guest's address that an interface already has, where guest and interface would meet.
    fn addresses_in_use(&mut self, site: &Site) {
        for guest in &site.guests {
            self.address_in_use(site, guest, &guest.network, guest.address);
            for nic in guest.further_cards() {
                let Some(network) = &nic.network else { continue };
                nic.addresses.iter().for_each(|net| self.address_in_use(site, guest, network, net.addr()));
            }
        }
    }

    fn address_in_use(&mut self, site: &Site, guest: &Guest, network: &NetworkName, address: IpAddr) {
        let place = match site.network(network).map(|n| n.mode) {
            Some(NetworkMode::Rehearsal) => Place::Rehearsal,
            _ => Place::Host,
        };
        let has_it = |l: &&Link| l.addresses.iter().any(|a| a.addr() == address);
        let holder = self.links(place).iter().filter(|l| !self.is_our_bridge(l)).find(has_it);
        if let Some(link) = holder {
            self.problem(
                format!(
                    "address {address} of guest '{}' is in use: interface '{}' {place} has it",
                    guest.name, link.name
                ),
                "give the guest another address",
            );
        }
    }
}

fn is_link_local(address: &IpNet) -> bool {
    match address.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;

//! What the renderers are given: interfaces in an order in which they can be made, and the answers to questions that
//! each of them asks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::interface::{Interface, InterfaceKind, Route};
use crate::identity::wanted::Identity;
use crate::names::NicName;

/// A guest's network.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Cards, then bonds, then VLANs: each after those that it is made of.
    pub interfaces: Vec<&'a Interface>,
    /// Name servers.
    pub dns: &'a [IpAddr],
    /// Domains that names are completed with.
    pub search: &'a [String],
    /// The full name.
    pub fqdn: &'a str,
    /// Unlike any other guest's.
    pub machine_id: &'a str,
}

impl<'a> Wanted<'a> {
    /// From an identity and its interfaces, whose names fit the guest.
    pub fn new(identity: &'a Identity, interfaces: &'a [Interface]) -> Self {
        let mut interfaces: Vec<&Interface> = interfaces.iter().collect();
        interfaces.sort_by_key(|nic| match nic.kind {
            InterfaceKind::Ethernet => 0,
            InterfaceKind::Bond { .. } => 1,
            InterfaceKind::Vlan { .. } => 2,
        });
        Self {
            interfaces,
            dns: &identity.dns,
            search: &identity.search,
            fqdn: &identity.fqdn,
            machine_id: &identity.assigned.machine_id,
        }
    }

    /// The bond that the interface is a part of.
    pub fn bond_of(&self, name: &NicName) -> Option<&'a NicName> {
        self.interfaces.iter().find_map(|nic| match &nic.kind {
            InterfaceKind::Bond { members, .. } if members.contains(name) => Some(&nic.name),
            _ => None,
        })
    }

    /// The VLANs on the interface.
    pub fn vlans_on(&self, name: &NicName) -> impl Iterator<Item = &'a NicName> {
        self.interfaces.iter().filter_map(move |nic| match &nic.kind {
            InterfaceKind::Vlan { parent, .. } if parent == name => Some(&nic.name),
            _ => None,
        })
    }

    /// The interface that the name servers are reached through, as far as a renderer wants to know: the first that has
    /// or asks for an address.
    pub fn is_first_addressed(&self, nic: &Interface) -> bool {
        let addressed =
            |nic: &&&Interface| !nic.addresses.is_empty() || nic.automatic.ipv4 || nic.automatic.ipv6;
        self.interfaces.iter().find(addressed).is_some_and(|first| first.name == nic.name)
    }
}

/// What one family of an interface has.
#[derive(Debug)]
pub struct Family<'a> {
    /// Fixed addresses.
    pub addresses: Vec<&'a IpNet>,
    /// The way out.
    pub gateway: Option<&'a IpAddr>,
    /// Addresses are asked for.
    pub automatic: bool,
    /// Further routes.
    pub routes: Vec<&'a Route>,
}

impl Family<'_> {
    /// Whether there is nothing of it.
    pub fn is_unused(&self) -> bool {
        self.addresses.is_empty() && !self.automatic
    }
}

impl Interface {
    /// Its IPv4 part.
    pub(super) fn ipv4(&self) -> Family<'_> {
        Family {
            addresses: self.addresses.iter().filter(|net| net.addr().is_ipv4()).collect(),
            gateway: self.gateways.iter().find(|gateway| gateway.is_ipv4()),
            automatic: self.automatic.ipv4,
            routes: self.routes.iter().filter(|route| route.to.addr().is_ipv4()).collect(),
        }
    }

    /// Its IPv6 part.
    pub(super) fn ipv6(&self) -> Family<'_> {
        Family {
            addresses: self.addresses.iter().filter(|net| net.addr().is_ipv6()).collect(),
            gateway: self.gateways.iter().find(|gateway| gateway.is_ipv6()),
            automatic: self.automatic.ipv6,
            routes: self.routes.iter().filter(|route| route.to.addr().is_ipv6()).collect(),
        }
    }
}

/// Values with something between them.
pub fn joined<T: ToString>(values: impl IntoIterator<Item = T>, between: &str) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(between)
}

/// Whether the server is of the family.
pub fn of_family(servers: &[IpAddr], ipv4: bool) -> impl Iterator<Item = &IpAddr> {
    servers.iter().filter(move |server| server.is_ipv4() == ipv4)
}

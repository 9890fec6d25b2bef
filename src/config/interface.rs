//! A guest's network interfaces as they are to be inside it.

use ipnet::IpNet;
use std::net::IpAddr;

use serde::Serialize;

use super::site::Guest;
use crate::names::{MacAddr, NicName};

/// One network interface inside a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// What it is called inside the guest, whatever runs the guest.
    pub name: NicName,
    /// What it is made of.
    pub kind: InterfaceKind,
    /// Its hardware address; of an Ethernet interface also what it is known by.
    pub mac: Option<MacAddr>,
    /// Fixed addresses with their prefix, of either family.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Addresses are asked for, too (DHCPv4; DHCPv6 or router advertisements).
    pub automatic: Automatic,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Largest packet in bytes; the kernel's own choice if it is not said.
    pub mtu: Option<u32>,
}

/// What an interface is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// A card of its own.
    Ethernet,
    /// Tagged packets of another interface (IEEE 802.1Q).
    Vlan {
        /// The other interface.
        parent: NicName,
        /// 1 to 4094.
        id: u16,
    },
    /// Several interfaces as one (the kernel's bonding driver).
    Bond {
        /// Its interfaces.
        members: Vec<NicName>,
        /// How they share the work.
        mode: BondMode,
    },
}

/// How the interfaces of a bond share the work (the kernel's Documentation/networking/bonding.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BondMode {
    /// One after the other.
    RoundRobin,
    /// One works, the others wait for its end.
    #[default]
    ActiveBackup,
    /// Chosen by a hash of the addresses.
    Xor,
    /// All send everything.
    Broadcast,
    /// IEEE 802.3ad: agreed with the switch.
    Lacp,
    /// By load when sending.
    TransmitLoad,
    /// By load in both directions.
    AdaptiveLoad,
}

impl BondMode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::RoundRobin,
        Self::ActiveBackup,
        Self::Xor,
        Self::Broadcast,
        Self::Lacp,
        Self::TransmitLoad,
        Self::AdaptiveLoad,
    ];

    /// As the kernel calls it, and with it every kind of network configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "balance-rr",
            Self::ActiveBackup => "active-backup",
            Self::Xor => "balance-xor",
            Self::Broadcast => "broadcast",
            Self::Lacp => "802.3ad",
            Self::TransmitLoad => "balance-tlb",
            Self::AdaptiveLoad => "balance-alb",
        }
    }
}

impl Serialize for BondMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Which families' addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Automatic {
    /// DHCP (RFC 2131).
    pub ipv4: bool,
    /// Router advertisements (RFC 4861), and DHCPv6 if they say so.
    pub ipv6: bool,
}

/// A route that is not the default one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Through whom; on the link itself if nobody.
    pub via: Option<IpAddr>,
    /// The lower the better; the kernel's own choice if it is not said.
    pub metric: Option<u32>,
}

/// What a guest's first interface is called inside the guest, whatever runs it: the kernel's own name would be `vec0`, `ens3`,
/// `enp0s2` or `eth0`.
pub const FIRST_INTERFACE: &str = "net0";

impl Guest {
    /// Its interfaces, the first one first.
    pub fn interfaces(&self) -> Vec<Interface> {
        #[expect(clippy::expect_used, reason = "both come from checked values")]
        let (name, address) = (
            FIRST_INTERFACE.parse().expect("it is a name"),
            IpNet::new(self.address, self.prefix).expect("checked when the site was read"),
        );
        vec![Interface {
            name,
            kind: InterfaceKind::Ethernet,
            mac: Some(self.mac),
            addresses: vec![address],
            gateways: self.gateway.into_iter().collect(),
            automatic: Automatic::default(),
            routes: Vec::new(),
            mtu: None,
        }]
    }
}

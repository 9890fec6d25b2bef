//! A guest's network interfaces as they are to be inside it.

use ipnet::IpNet;
use std::net::IpAddr;

use serde::Serialize;

use crate::names::{BadName, MacAddr, NetworkName, NicName};

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
    /// The site's network that a further card is plugged into, if the site has one for it. The first card is plugged into the
    /// guest's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
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

/// [`FIRST_INTERFACE`].
#[expect(clippy::expect_used, reason = "the text is right here")]
pub fn first_name() -> NicName {
    FIRST_INTERFACE.parse().expect("it is a name")
}

impl Interface {
    /// A card, nothing said of it yet.
    pub fn card(name: NicName, mac: Option<MacAddr>) -> Self {
        Self {
            name,
            kind: InterfaceKind::Ethernet,
            mac,
            addresses: Vec::new(),
            gateways: Vec::new(),
            automatic: Automatic::default(),
            routes: Vec::new(),
            mtu: None,
            network: None,
        }
    }

    /// The card that every guest has.
    pub fn first(mac: MacAddr, address: IpNet, gateway: Option<IpAddr>) -> Self {
        let gateways = gateway.into_iter().collect();
        Self { addresses: vec![address], gateways, ..Self::card(first_name(), Some(mac)) }
    }
}

/// `10.0.0.0/8 via 10.77.0.254 metric 50`, as ip(8) has it; `via` and `metric` may be missing.
impl std::str::FromStr for Route {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why: &str| BadName(why.to_owned());
        let mut words = text.split_whitespace();
        let to = words.next().and_then(|to| to.parse::<IpNet>().ok());
        let to = to.ok_or_else(|| bad("does not begin with a network such as 10.0.0.0/8"))?;
        if to.trunc() != to {
            return Err(BadName(format!(
                "begins with an address within a network; the network is {}",
                to.trunc()
            )));
        }
        if to.prefix_len() == 0 {
            return Err(bad("is the default route, which is the gateway"));
        }
        let mut route = Self { to, via: None, metric: None };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| BadName(format!("has nothing behind '{word}'")))?;
            match word {
                "via" if route.via.is_none() => {
                    let via = value.parse::<IpAddr>().map_err(|_| bad("has no address behind 'via'"))?;
                    route.via = Some(via);
                }
                "metric" if route.metric.is_none() => {
                    let metric = value.parse().map_err(|_| bad("has no number behind 'metric'"))?;
                    route.metric = Some(metric);
                }
                _ => return Err(bad("is not NETWORK via ADDRESS metric NUMBER")),
            }
        }
        if route.via.is_some_and(|via| via.is_ipv4() != to.addr().is_ipv4()) {
            return Err(bad("mixes IPv4 and IPv6"));
        }
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_route_is_read_as_ip_has_it() {
        let route: Route = "10.0.0.0/8 via 10.77.0.254 metric 50".parse().unwrap();
        assert_eq!(route.to.to_string(), "10.0.0.0/8");
        assert_eq!((route.via, route.metric), (Some("10.77.0.254".parse().unwrap()), Some(50)));
        assert_eq!("10.0.0.0/8".parse::<Route>().unwrap().via, None);
        for bad in
            ["", "10.0.0.1/8", "0.0.0.0/0 via 10.0.0.1", "10.0.0.0/8 via", "10.0.0.0/8 via ::1", "::/8 x y"]
        {
            assert!(bad.parse::<Route>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_route_or_refused(text in "(10\\.0\\.0\\.0/8|via|metric|::1|[0-9]{1,3}| |\\PC){0,8}") {
            let _ = text.parse::<Route>();
        }
    }
}

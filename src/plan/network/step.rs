//! The steps that a plan of networks is made of.

use std::fmt;

use ipnet::IpNet;

use crate::names::IfName;

/// Where a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the host's own network namespace.
    Host,
    /// In the namespace of a rehearsed site.
    Rehearsal,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Host => "on the host",
            Place::Rehearsal => "in the site's namespace",
        })
    }
}

/// One change. Each is fine if it is done already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetStep {
    /// Make the network namespace that a rehearsed site lives in.
    MakeNamespace,
    /// Make a bridge, up and marked as the site's.
    MakeBridge {
        /// Where.
        place: Place,
        /// Its name.
        bridge: IfName,
    },
    /// Give a bridge of ours an address.
    AddAddress {
        /// Where.
        place: Place,
        /// Which bridge.
        bridge: IfName,
        /// The address, with the length of its network's prefix.
        address: IpNet,
    },
    /// Take an address that is not wanted any more off a bridge of ours.
    RemoveAddress {
        /// Where.
        place: Place,
        /// Which bridge.
        bridge: IfName,
        /// The address, with the length of its network's prefix.
        address: IpNet,
    },
    /// Join an interface of the host to a bridge, and bring it up if it is not.
    Join {
        /// The interface.
        uplink: IfName,
        /// The bridge.
        bridge: IfName,
        /// Whether it is down now.
        raise: bool,
    },
    /// Take an interface of the host out of its bridge, as it was before.
    Release {
        /// The interface.
        uplink: IfName,
        /// Whether it was down before.
        lower: bool,
    },
    /// Put the table of nftables in place, as a whole.
    Translate {
        /// Its name.
        table: String,
        /// What nft is given.
        script: String,
        /// Whether a table of that name is there now.
        replaces: bool,
    },
    /// Remove the table of nftables.
    StopTranslating {
        /// Its name.
        table: String,
    },
    /// Let the host pass packets on, remembering what was set.
    Forward,
    /// Set forwarding as it was before.
    StopForwarding,
    /// Remove a bridge of ours.
    RemoveBridge {
        /// Where.
        place: Place,
        /// Its name.
        bridge: IfName,
    },
    /// Remove the network namespace and all that is in it.
    RemoveNamespace,
}

impl fmt::Display for NetStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetStep::MakeNamespace => f.write_str("make the site's network namespace"),
            NetStep::MakeBridge { place, bridge } => write!(f, "make bridge '{bridge}' {place}"),
            NetStep::AddAddress { place, bridge, address } => {
                write!(f, "give bridge '{bridge}' {place} the address {address}")
            }
            NetStep::RemoveAddress { place, bridge, address } => {
                write!(f, "take the address {address} off bridge '{bridge}' {place}")
            }
            NetStep::Join { uplink, bridge, raise: false } => {
                write!(f, "join interface '{uplink}' to bridge '{bridge}'")
            }
            NetStep::Join { uplink, bridge, raise: true } => {
                write!(f, "join interface '{uplink}' to bridge '{bridge}' and bring it up")
            }
            NetStep::Release { uplink, lower: false } => {
                write!(f, "take interface '{uplink}' out of its bridge")
            }
            NetStep::Release { uplink, lower: true } => {
                write!(f, "take interface '{uplink}' out of its bridge and down")
            }
            NetStep::Translate { table, replaces: false, .. } => {
                write!(f, "make nftables table '{table}' that translates the guests' addresses")
            }
            NetStep::Translate { table, replaces: true, .. } => {
                write!(f, "replace nftables table '{table}' that translates the guests' addresses")
            }
            NetStep::StopTranslating { table } => write!(f, "remove nftables table '{table}'"),
            NetStep::Forward => f.write_str("let the host forward IPv4 packets"),
            NetStep::StopForwarding => f.write_str("set forwarding of IPv4 packets as it was before"),
            NetStep::RemoveBridge { place, bridge } => write!(f, "remove bridge '{bridge}' {place}"),
            NetStep::RemoveNamespace => f.write_str("remove the site's network namespace"),
        }
    }
}

/// Why networks cannot be made as the site wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetProblem {
    /// What is wrong.
    pub what: String,
    /// The next move.
    pub hint: String,
}

impl fmt::Display for NetProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.hint)
    }
}

impl std::error::Error for NetProblem {}

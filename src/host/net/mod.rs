//! Networks of the host: links, addresses, namespaces, taps, translation.
//!
//! Everything goes through the kernel's own interfaces (netlink, `/dev/net/tun`, `/proc/sys/net`); only rule sets go
//! through `nft`, whose language is the stable interface. Every call says in which network namespace it acts: `None`
//! is the caller's own, which for gridgate is the host's.

mod arp;
mod links;
mod netlink;
mod netns;
mod nft;
mod ports;
mod tc;

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use crate::names::{IfName, MacAddr};
pub use netns::{become_program, in_netns};
pub use tc::{Rates, lost_shapers, shaper_of};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in its namespace.
    pub index: u32,
    /// Its name, unique in its namespace. Not always one that gridgate would accept, so plain text.
    pub name: String,
    /// What drives it.
    pub kind: LinkKind,
    /// Its hardware address, if it has an Ethernet one.
    pub mac: Option<MacAddr>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Index of the bridge (or bond) that it is a port of.
    pub master: Option<u32>,
    /// A note that whoever made it left on it (`IFLA_IFALIAS`); gridgate's own links are known by theirs.
    pub alias: Option<String>,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// Whether a default route goes out of it.
    pub default_route: bool,
}

/// What drives an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A device without a kind of its own: hardware, or the loopback.
    Device,
    /// A bridge.
    Bridge,
    /// A tap or tun.
    Tap,
    /// One end of a virtual cable.
    Veth,
    /// Any other kind, by the kernel's name for it.
    Other(String),
}

/// A table of nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The comment on it.
    pub comment: Option<String>,
}

/// A port for a guest, to be made on a bridge.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Name of the host's end.
    pub name: &'a IfName,
    /// The bridge it is joined to, in the same namespace; the port takes its MTU.
    pub bridge: &'a IfName,
    /// What marks it as gridgate's.
    pub alias: &'a str,
}

/// What gridgate asks of the host's networks.
pub trait Net {
    /// All interfaces, by index.
    fn links(&self, ns: Option<&Path>) -> Result<Vec<Link>>;
    /// Makes a bridge, marked with the alias, up, without spanning tree, deaf to router advertisements, and with a
    /// random MAC of its own that does not change with its ports. A name that is taken is an error.
    fn make_bridge(&self, ns: Option<&Path>, name: &IfName, alias: &str) -> Result<()>;
    /// Removes an interface. Gone already is fine.
    fn remove_link(&self, ns: Option<&Path>, name: &IfName) -> Result<()>;
    /// Gives an interface an address. Done already is fine.
    fn add_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()>;
    /// Takes an address off an interface. Gone already is fine.
    fn remove_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()>;
    /// Brings an interface up. Done already is fine.
    fn set_up(&self, ns: Option<&Path>, link: &IfName) -> Result<()>;
    /// Takes an interface down. Done already is fine.
    fn set_down(&self, ns: Option<&Path>, link: &IfName) -> Result<()>;
    /// Makes an interface a port of a bridge, or of none. Done already is fine.
    fn set_master(&self, ns: Option<&Path>, link: &IfName, bridge: Option<&IfName>) -> Result<()>;
    /// Makes a network namespace, its loopback up, and binds it to a file. There already is fine.
    fn make_netns(&self, path: &Path) -> Result<()>;
    /// Removes the file; the namespace itself lives until the last process, socket or tap in it is gone. Gone already
    /// is fine.
    fn remove_netns(&self, path: &Path) -> Result<()>;
    /// Whether a namespace is bound there. (A namespace of another sort, or a plain file, is not one.)
    fn netns_exists(&self, path: &Path) -> Result<bool>;
    /// Opens the namespace that is bound there; it lives at least as long as the descriptor.
    fn open_netns(&self, path: &Path) -> Result<OwnedFd>;
    /// A namespace without a name, its loopback up, that lives as long as something uses it.
    fn fresh_netns(&self) -> Result<OwnedFd>;
    /// The tables of nftables; none where there is no nftables, or for a caller that may not look.
    fn nft_tables(&self, ns: Option<&Path>) -> Result<Vec<Table>>;
    /// Runs an nft(8) script, which takes effect as a whole or not at all.
    fn nft(&self, ns: Option<&Path>, script: &str) -> Result<()>;
    /// Reads a kernel setting under `/proc/sys`, such as `net/ipv4/ip_forward`; `None` if this kernel has none such.
    fn sysctl_read(&self, ns: Option<&Path>, key: &str) -> Result<Option<String>>;
    /// Writes a kernel setting under `/proc/sys`.
    fn sysctl_write(&self, ns: Option<&Path>, key: &str, value: &str) -> Result<()>;
    /// Makes a tap (without packet information header) that is up and a port of the bridge, with a random MAC unless
    /// one is given (this is the host's end: it must not be the guest's). It vanishes with the last copy of the
    /// descriptor, which is close-on-exec. A name that is taken is an error, even if by a tap.
    fn open_tap(&self, ns: Option<&Path>, port: Port<'_>, mac: Option<MacAddr>) -> Result<OwnedFd>;
    /// Makes a virtual cable from the bridge into another namespace, where its end has the name and MAC of the guest's
    /// interface and is left down, as a new interface would be. Both ends vanish with that namespace.
    fn make_veth(
        &self,
        ns: Option<&Path>,
        port: Port<'_>,
        peer_ns: BorrowedFd<'_>,
        peer_name: &IfName,
        peer_mac: MacAddr,
    ) -> Result<()>;
    /// Limits how fast packets go through a guest's port, or lets them go. The same again is fine. What shapes the guest's
    /// own packets is an interface of its own, which outlives the port: see [`lost_shapers`].
    fn set_rates(&self, ns: Option<&Path>, port: &IfName, rates: Rates) -> Result<()>;
    /// Asks on the interface's wire who has an address (a probe of RFC 5227, which disturbs nobody's tables), and waits
    /// at most `limit` for the first answer.
    fn arp_probe(
        &self,
        ns: Option<&Path>,
        link: &IfName,
        address: Ipv4Addr,
        limit: Duration,
    ) -> Result<Option<MacAddr>>;
}

impl Net for super::Live {
    fn links(&self, ns: Option<&Path>) -> Result<Vec<Link>> {
        links::list(ns).context("listing network interfaces")
    }

    fn make_bridge(&self, ns: Option<&Path>, name: &IfName, alias: &str) -> Result<()> {
        links::make_bridge(ns, name.as_str(), alias).with_context(|| format!("making bridge '{name}'"))
    }

    fn remove_link(&self, ns: Option<&Path>, name: &IfName) -> Result<()> {
        links::remove(ns, name.as_str()).with_context(|| format!("removing interface '{name}'"))
    }

    fn add_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        links::add_address(ns, link.as_str(), address)
            .with_context(|| format!("giving interface '{link}' the address '{address}'"))
    }

    fn remove_address(&self, ns: Option<&Path>, link: &IfName, address: IpNet) -> Result<()> {
        links::remove_address(ns, link.as_str(), address)
            .with_context(|| format!("taking the address '{address}' off interface '{link}'"))
    }

    fn set_up(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        links::set_up(ns, link.as_str()).with_context(|| format!("bringing interface '{link}' up"))
    }

    fn set_down(&self, ns: Option<&Path>, link: &IfName) -> Result<()> {
        links::set_down(ns, link.as_str()).with_context(|| format!("taking interface '{link}' down"))
    }

    fn set_master(&self, ns: Option<&Path>, link: &IfName, bridge: Option<&IfName>) -> Result<()> {
        links::set_master(ns, link.as_str(), bridge.map(IfName::as_str)).with_context(|| match bridge {
            Some(bridge) => format!("joining interface '{link}' to bridge '{bridge}'"),
            None => format!("taking interface '{link}' out of its bridge"),
        })
    }

    fn make_netns(&self, path: &Path) -> Result<()> {
        netns::make(path)
    }

    fn remove_netns(&self, path: &Path) -> Result<()> {
        netns::remove(path)
    }

    fn netns_exists(&self, path: &Path) -> Result<bool> {
        netns::exists(path)
    }

    fn open_netns(&self, path: &Path) -> Result<OwnedFd> {
        netns::open(path)
    }

    fn fresh_netns(&self) -> Result<OwnedFd> {
        netns::fresh()
    }

    fn nft_tables(&self, ns: Option<&Path>) -> Result<Vec<Table>> {
        nft::tables(ns).context("listing tables of nftables")
    }

    fn nft(&self, ns: Option<&Path>, script: &str) -> Result<()> {
        nft::run(self, ns, script)
    }

    fn sysctl_read(&self, ns: Option<&Path>, key: &str) -> Result<Option<String>> {
        let path = Path::new("/proc/sys").join(key);
        let read = in_netns(ns, || match std::fs::read_to_string(&path) {
            Ok(value) => Ok(Some(value.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        });
        read.with_context(|| format!("reading '{}'", path.display()))
    }

    fn sysctl_write(&self, ns: Option<&Path>, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        in_netns(ns, || Ok(std::fs::write(&path, value)?))
            .with_context(|| format!("writing '{value}' to '{}'", path.display()))
    }

    fn open_tap(&self, ns: Option<&Path>, port: Port<'_>, mac: Option<MacAddr>) -> Result<OwnedFd> {
        ports::open_tap(ns, port, mac).with_context(|| format!("making tap '{}'", port.name))
    }

    fn make_veth(
        &self,
        ns: Option<&Path>,
        port: Port<'_>,
        peer_ns: BorrowedFd<'_>,
        peer_name: &IfName,
        peer_mac: MacAddr,
    ) -> Result<()> {
        ports::make_veth(ns, port, peer_ns, peer_name.as_str(), peer_mac)
            .with_context(|| format!("making virtual cable '{}'", port.name))
    }

    fn set_rates(&self, ns: Option<&Path>, port: &IfName, rates: Rates) -> Result<()> {
        tc::set_rates(ns, port.as_str(), rates)
            .with_context(|| format!("limiting what goes through interface '{port}'"))
    }

    fn arp_probe(
        &self,
        ns: Option<&Path>,
        link: &IfName,
        address: Ipv4Addr,
        limit: Duration,
    ) -> Result<Option<MacAddr>> {
        in_netns(ns, || arp::probe(link.as_str(), address, limit))
            .with_context(|| format!("asking on interface '{link}' who has '{address}'"))
    }
}

//! The way from here to a guest.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;

use crate::config::site::{Guest, NetworkMode, Site};
use crate::host::Host;
use crate::host::net::Link;
use crate::names::{IfName, MacAddr};
use crate::paths::Paths;

/// Where the site's network is: the namespace file of a rehearsed site, `None` for the host's own namespace.
pub fn namespace(site: &Site, paths: &Paths) -> Option<PathBuf> {
    site.rehearsed().then(|| paths.netns())
}

/// Where to connect to for a port of a guest with that address and MAC, on that bridge; `links` are those of the site's namespace.
///
/// That is the guest's address, if an interface is on the guest's network. In `isolated` and `bridge` mode none needs to
/// be; the way then is the bridge itself, to the link-local address that a guest makes from its MAC (RFC 4291, appendix
/// A) unless it is told not to, if the bridge speaks IPv6 at all.
pub fn endpoint(address: IpAddr, mac: MacAddr, bridge: &IfName, links: &[Link], port: u16) -> SocketAddr {
    let plain = SocketAddr::new(address, port);
    let on_network = |link: &Link| link.addresses.iter().any(|a| a.contains(&address));
    if links.iter().any(on_network) {
        return plain;
    }
    match bridge_with_link_local(bridge, links) {
        Some(index) => SocketAddrV6::new(link_local(mac), port, 0, index).into(),
        None => plain,
    }
}

/// Asks on the guest's networks whether somebody has one of its addresses already, which, and who. Only networks that are
/// joined to the world are asked, and only for the cards' IPv4 addresses. Ask before the guest is started, or it answers
/// itself; up to the limit for each address.
pub fn probe_addresses(
    host: &dyn Host,
    site: &Site,
    guest: &Guest,
    limit: Duration,
) -> Result<Option<(IpAddr, MacAddr)>> {
    let first = std::iter::once((Some(&guest.network), Some(guest.mac), guest.address));
    let further = guest
        .further_cards()
        .into_iter()
        .flat_map(|nic| nic.addresses.iter().map(move |net| (nic.network.as_ref(), nic.mac, net.addr())));
    for (network, mac, address) in first.chain(further) {
        let (Some(network), IpAddr::V4(asked)) = (network.and_then(|name| site.network(name)), address)
        else {
            continue;
        };
        if network.mode != NetworkMode::Bridge {
            continue;
        }
        if let Some(who) = host.arp_probe(None, &network.bridge, asked, limit)?
            && Some(who) != mac
        {
            return Ok(Some((address, who)));
        }
    }
    Ok(None)
}

fn bridge_with_link_local(bridge: &IfName, links: &[Link]) -> Option<u32> {
    let bridge = links.iter().find(|l| l.name == bridge.as_str() && l.up)?;
    let speaks = |a: &IpNet| matches!(a.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
    bridge.addresses.iter().any(speaks).then_some(bridge.index)
}

fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = u16::from_be_bytes;
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair([a ^ 2, b]), pair([c, 0xff]), pair([0xfe, d]), pair([e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_comes_from_the_mac() {
        let mac = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::5054:ff:fe12:3456");
    }
}

//! Interfaces and their addresses, over rtnetlink (rtnetlink(7)).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoData, InfoKind, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::netlink::{Netlink, Refusal};
use super::netns::in_netns;
use super::{Link, LinkKind};
use crate::names::MacAddr;

/// Numbers of interfaces that gridgate chooses itself start here, far above those that the kernel counts up.
const OWN_INDEX: u32 = 1 << 24;

pub(super) fn open(ns: Option<&Path>) -> Result<Netlink> {
    Netlink::open(ns, NETLINK_ROUTE)
}

pub(super) fn act(
    netlink: &mut Netlink,
    requests: Vec<(RouteNetlinkMessage, u16)>,
) -> Result<Result<(), Refusal>> {
    Ok(netlink.request::<_, RouteNetlinkMessage>(requests)?.map(drop))
}

pub(super) fn list(ns: Option<&Path>) -> Result<Vec<Link>> {
    let netlink = &mut open(ns)?;
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let messages: Vec<RouteNetlinkMessage> = netlink.dump(RouteNetlinkMessage::GetLink(question))??;
    let mut links: Vec<Link> = messages.into_iter().filter_map(link).collect();
    links.sort_by_key(|l| l.index);

    let mut addresses = addresses(netlink)?;
    let mut routed = HashSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        default_routes(netlink, family, &mut routed)?;
    }
    for link in &mut links {
        link.addresses = addresses.remove(&link.index).unwrap_or_default();
        link.default_route = routed.contains(&link.index);
    }
    Ok(links)
}

/// One interface, without its addresses and routes.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    let mut question = named(name);
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match netlink.request(vec![(RouteNetlinkMessage::GetLink(question), 0)])? {
        Ok(answers) => Ok(answers.into_iter().find_map(link)),
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

pub(super) fn make_bridge(ns: Option<&Path>, name: &str, alias: &str) -> Result<()> {
    let netlink = &mut open(ns)?;
    // The alias cannot be given at birth. By sending both requests at once, and the second one by a number that no
    // other interface has, neither a kill leaves a bridge that nobody owns nor is a bridge of somebody else's marked.
    let index = own_index()?;
    let mut bridge = named(name);
    bridge.header.index = index;
    let settings = vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
    bridge.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(settings)),
    ]));
    bridge.attributes.push(LinkAttribute::Address(random_mac()?.0.to_vec()));
    let mut mark = LinkMessage::default();
    mark.header.index = index;
    mark.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    let made = act(
        netlink,
        vec![
            (RouteNetlinkMessage::NewLink(bridge), NLM_F_CREATE | NLM_F_EXCL),
            (RouteNetlinkMessage::SetLink(mark), 0),
        ],
    )?;
    if let Err(refusal) = made {
        if refusal.errno == Errno::EEXIST {
            bail!("the name is taken");
        }
        return Err(refusal.into());
    }
    // A router on the guests' network has no say in how the host reaches the world.
    in_netns(ns, || {
        let key = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
        match std::fs::write(&key, "0") {
            // Without IPv6 there is no such setting, and in a container none of them can be written; neither is a reason
            // to be without a bridge.
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) => {
                Err(e).with_context(|| format!("writing '{key}'"))
            }
            _ => Ok(()),
        }
    })?;
    let mut up = LinkMessage::default();
    up.header.index = index;
    raise(&mut up);
    Ok(act(netlink, vec![(RouteNetlinkMessage::SetLink(up), 0)])??)
}

pub(super) fn remove(ns: Option<&Path>, name: &str) -> Result<()> {
    let removed = act(&mut open(ns)?, vec![(RouteNetlinkMessage::DelLink(named(name)), 0)])?;
    fine_if(removed, Errno::ENODEV)
}

pub(super) fn set_up(ns: Option<&Path>, name: &str) -> Result<()> {
    let mut message = named(name);
    raise(&mut message);
    Ok(act(&mut open(ns)?, vec![(RouteNetlinkMessage::SetLink(message), 0)])??)
}

pub(super) fn set_down(ns: Option<&Path>, name: &str) -> Result<()> {
    let mut message = named(name);
    message.header.change_mask = LinkFlags::Up;
    Ok(act(&mut open(ns)?, vec![(RouteNetlinkMessage::SetLink(message), 0)])??)
}

pub(super) fn set_master(ns: Option<&Path>, name: &str, bridge: Option<&str>) -> Result<()> {
    let netlink = &mut open(ns)?;
    let master = match bridge {
        Some(bridge) => {
            find(netlink, bridge)?.with_context(|| format!("there is no bridge '{bridge}'"))?.index
        }
        None => 0,
    };
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Controller(master));
    Ok(act(netlink, vec![(RouteNetlinkMessage::SetLink(message), 0)])??)
}

pub(super) fn add_address(ns: Option<&Path>, name: &str, address: IpNet) -> Result<()> {
    let netlink = &mut open(ns)?;
    let mut message = address_message(netlink, name, address)?.context("there is no such interface")?;
    // The site's own files say whose address it is, and a bridge without ports could not ask anyway.
    message.header.flags |= AddressHeaderFlags::Nodad;
    let request = (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    fine_if(act(netlink, vec![request])?, Errno::EEXIST)
}

pub(super) fn remove_address(ns: Option<&Path>, name: &str, address: IpNet) -> Result<()> {
    let netlink = &mut open(ns)?;
    let Some(message) = address_message(netlink, name, address)? else { return Ok(()) };
    fine_if(act(netlink, vec![(RouteNetlinkMessage::DelAddress(message), 0)])?, Errno::EADDRNOTAVAIL)
}

/// A number for a new interface that no other one has.
pub(super) fn own_index() -> Result<u32> {
    Ok(OWN_INDEX + u32::from_ne_bytes(random()?) % OWN_INDEX)
}

/// A message about the interface of that name.
pub(super) fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Asks for the interface to be up.
pub(super) fn raise(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

/// Asks for no link-local address: a bridge's port is a wire, nobody talks to it, and each address would join
/// multicast groups on the guests' network.
pub(super) fn mute() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])
}

/// A unicast address that nobody administers (the second bit of the first byte, IEEE 802).
pub(super) fn random_mac() -> Result<MacAddr> {
    let [a, b, c, d, e, f]: [u8; 6] = random()?;
    Ok(MacAddr([a & 0xfc | 2, b, c, d, e, f]))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("reading '/dev/urandom'")?;
    Ok(bytes)
}

fn fine_if(done: Result<(), Refusal>, errno: Errno) -> Result<()> {
    match done {
        Err(refusal) if refusal.errno != errno => Err(refusal.into()),
        _ => Ok(()),
    }
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Device,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        alias: None,
        addresses: Vec::new(),
        default_route: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master).filter(|m| *m != 0),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::LinkInfo(infos) => {
                if let Some(kind) =
                    infos.into_iter().find_map(|i| if let LinkInfo::Kind(k) = i { Some(k) } else { None })
                {
                    link.kind = match kind {
                        InfoKind::Bridge => LinkKind::Bridge,
                        InfoKind::Tun => LinkKind::Tap,
                        InfoKind::Veth => LinkKind::Veth,
                        other => LinkKind::Other(other.to_string()),
                    };
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn addresses(netlink: &mut Netlink) -> Result<HashMap<u32, Vec<IpNet>>> {
    let mut addresses: HashMap<u32, Vec<IpNet>> = HashMap::new();
    let messages: Vec<RouteNetlinkMessage> =
        netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))??;
    for message in messages {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        // On a point-to-point link the plain address is the other side's.
        let (mut local, mut plain) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => plain = Some(*address),
                _ => {}
            }
        }
        if let Some(net) = local.or(plain).and_then(|a| IpNet::new(a, message.header.prefix_len).ok()) {
            addresses.entry(message.header.index).or_default().push(net);
        }
    }
    Ok(addresses)
}

fn default_routes(netlink: &mut Netlink, family: AddressFamily, routed: &mut HashSet<u32>) -> Result<()> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    // A kernel without IPv6 refuses the question, and has no such routes.
    let routes: Vec<RouteNetlinkMessage> =
        netlink.dump(RouteNetlinkMessage::GetRoute(question))?.unwrap_or_default();
    for route in routes {
        let RouteNetlinkMessage::NewRoute(route) = route else { continue };
        let header = &route.header;
        let counts = header.destination_prefix_length == 0
            && header.kind == RouteType::Unicast
            && header.table == RouteHeader::RT_TABLE_MAIN;
        if counts {
            routed.extend(route.attributes.iter().filter_map(|a| match a {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            }));
            routed.extend(route.attributes.iter().flat_map(|a| match a {
                RouteAttribute::MultiPath(hops) => hops.iter().map(|h| h.interface_index).collect(),
                _ => Vec::new(),
            }));
        }
    }
    Ok(())
}

fn address_message(netlink: &mut Netlink, name: &str, address: IpNet) -> Result<Option<AddressMessage>> {
    let Some(link) = find(netlink, name)? else { return Ok(None) };
    let mut message = AddressMessage::default();
    message.header.index = link.index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    Ok(Some(message))
}

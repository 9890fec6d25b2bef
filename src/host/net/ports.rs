//! Ports for guests: taps for those that are handed packets through a descriptor, virtual cables for containers.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;
use nix::libc;
use rustix::fs::{CWD, Mode, OFlags};

use super::netlink::Netlink;
use super::netns::in_netns;
use super::{Link, LinkKind, Port, links};
use crate::names::MacAddr;

const TUN_DEVICE: &CStr = c"/dev/net/tun";

pub(super) fn open_tap(ns: Option<&Path>, port: Port<'_>, mac: Option<MacAddr>) -> Result<OwnedFd> {
    let name = port.name.as_str();
    let tap = in_netns(ns, || attach(name))?;
    let netlink = &mut links::open(ns)?;
    let bridge = bridge(netlink, port)?;
    let index = links::find(netlink, name)?.context("it vanished at once")?.index;
    join(netlink, index, port, &bridge, mac)?;
    Ok(tap)
}

pub(super) fn make_veth(
    ns: Option<&Path>,
    port: Port<'_>,
    peer_ns: BorrowedFd<'_>,
    peer_name: &str,
    peer_mac: MacAddr,
) -> Result<()> {
    let name = port.name.as_str();
    let netlink = &mut links::open(ns)?;
    let bridge = bridge(netlink, port)?;
    let mut peer = links::named(peer_name);
    peer.attributes.push(LinkAttribute::Address(peer_mac.0.to_vec()));
    peer.attributes.push(LinkAttribute::Mtu(bridge.mtu));
    peer.attributes.push(LinkAttribute::NetNsFd(peer_ns.as_raw_fd()));
    let mut cable = links::named(name);
    cable.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let request = (RouteNetlinkMessage::NewLink(cable), NLM_F_CREATE | NLM_F_EXCL);
    if let Err(refusal) = links::act(netlink, vec![request])? {
        if refusal.errno == Errno::EEXIST {
            bail!("the name is taken, here or by '{peer_name}' in the guest's namespace");
        }
        return Err(refusal.into());
    }
    let joined = match links::find(netlink, name)? {
        Some(link) => join(netlink, link.index, port, &bridge, None),
        None => bail!("it vanished at once"),
    };
    if joined.is_err() {
        // The first error is the one to tell.
        let _ = links::remove(ns, name);
    }
    joined
}

fn bridge(netlink: &mut Netlink, port: Port<'_>) -> Result<Link> {
    match links::find(netlink, port.bridge.as_str())? {
        Some(link) if link.kind == LinkKind::Bridge => Ok(link),
        Some(_) => bail!("'{}' is not a bridge", port.bridge),
        None => bail!("there is no bridge '{}'; 'gridgate up' makes it", port.bridge),
    }
}

/// Marks the new interface, joins it to the bridge and brings it up.
fn join(
    netlink: &mut Netlink,
    index: u32,
    port: Port<'_>,
    bridge: &Link,
    mac: Option<MacAddr>,
) -> Result<()> {
    let about = |attributes: Vec<LinkAttribute>| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        message
    };
    let mut mark = about(vec![LinkAttribute::IfAlias(port.alias.to_owned()), LinkAttribute::Mtu(bridge.mtu)]);
    mark.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let mut up = about(vec![LinkAttribute::Controller(bridge.index)]);
    links::raise(&mut up);
    // A kernel without IPv6 refuses this one, and need not be told.
    let _ = links::act(netlink, vec![(RouteNetlinkMessage::SetLink(about(vec![links::mute()])), 0)])?;
    let requests = [mark, up].map(|m| (RouteNetlinkMessage::SetLink(m), 0));
    links::act(netlink, requests.into())?.with_context(|| format!("joining it to bridge '{}'", port.bridge))
}

/// Makes a tap in the caller's namespace.
#[expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
fn attach(name: &str) -> Result<OwnedFd> {
    let device = match rustix::fs::openat(CWD, TUN_DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => {
            bail!("there is no '/dev/net/tun'; 'modprobe tun' brings it")
        }
        opened => opened.context("opening '/dev/net/tun'")?,
    };
    // SAFETY: ifreq is a C struct of integers and unions of them, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // Without IFF_TUN_EXCL an unused persistent tap of somebody else's would be taken over.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one ifreq at that address.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    match Errno::result(done) {
        Ok(_) => Ok(device),
        Err(Errno::EBUSY | Errno::EINVAL) => {
            bail!("the name is taken: another process has this tap open, or another interface is called so")
        }
        Err(Errno::EPERM) => bail!("permission denied; this needs root (CAP_NET_ADMIN)"),
        Err(e) => bail!("{}", e.desc().to_lowercase()),
    }
}

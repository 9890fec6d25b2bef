//! Who has an address, asked on the wire.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike, bind, recv, sendto};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::links;
use crate::names::MacAddr;

/// A packet is lost now and then; RFC 5227 sends three, a second apart, and we have no second.
const PROBES: u32 = 2;

/// ARP for IPv4 over Ethernet (RFC 826): kinds and lengths, then operation, then who says it, then who is meant.
const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];
const PACKET_LEN: usize = 28;

pub(super) fn probe(link: &str, address: Ipv4Addr, limit: Duration) -> Result<Option<MacAddr>> {
    let link = links::find(&mut links::open(None)?, link)?.context("there is no such interface")?;
    let own = link.mac.context("it is not an Ethernet interface")?;
    let socket = listen(link.index)?;
    let everybody = wire_address(link.index, [0xff; 6])?;
    let started = Instant::now();
    for turn in 1..=PROBES {
        sendto(socket.as_raw_fd(), &question(own, address), &everybody, MsgFlags::empty())?;
        let until = started + limit * turn / PROBES;
        // Where the processor was away for longer than that, what has come meanwhile is still read.
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up: a wait of 0 ms would be a busy one.
            let left = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], left)? == 0 {
                break;
            }
            let mut packet = [0; 64];
            let len = recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            let holder = holder(&packet[..len], address).filter(|mac| *mac != own);
            if holder.is_some() {
                return Ok(holder);
            }
        }
    }
    Ok(None)
}

/// "Who has this?", said by nobody: with our own address in it, everybody would learn that we have it.
fn question(own: MacAddr, address: Ipv4Addr) -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    packet[..6].copy_from_slice(&PREFIX);
    packet[7] = 1;
    packet[8..14].copy_from_slice(&own.0);
    packet[24..].copy_from_slice(&address.octets());
    packet
}

/// Whoever says in this packet, question or answer, that the address is his.
fn holder(packet: &[u8], address: Ipv4Addr) -> Option<MacAddr> {
    let packet: &[u8; PACKET_LEN] = packet.first_chunk()?;
    let says = packet[..6] == PREFIX && packet[14..18] == address.octets();
    says.then(|| MacAddr([packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]]))
}

fn listen(index: u32) -> Result<OwnedFd> {
    // Without a protocol it hears nothing until it is bound, so nothing of other interfaces either.
    let socket =
        socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None::<Protocol>)?;
    bind(socket.as_raw_fd(), &wire_address(index, [0; 6])?)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "nix makes link addresses only from raw ones")]
fn wire_address(index: u32, mac: [u8; 6]) -> Result<LinkAddr> {
    // SAFETY: sockaddr_ll is a C struct of integers, for which all zeros is a value.
    let mut raw: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    raw.sll_family = libc::AF_PACKET as u16;
    raw.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
    raw.sll_ifindex = i32::try_from(index)?;
    raw.sll_halen = 6;
    raw.sll_addr[..6].copy_from_slice(&mac);
    let len = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address points to a whole sockaddr_ll of the length and family that are said.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(len)) }.context("it makes no link address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_probe_claims_no_address() {
        let packet = question(MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(packet[14..18], [0, 0, 0, 0]);
        assert_eq!(holder(&packet, Ipv4Addr::new(192, 0, 2, 7)), None);
        assert_eq!(packet[24..], [192, 0, 2, 7]);
    }

    #[test]
    fn whoever_says_the_address_is_its_holder() {
        let mut packet = question(MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 1));
        packet[14..18].copy_from_slice(&[192, 0, 2, 7]);
        assert_eq!(holder(&packet, Ipv4Addr::new(192, 0, 2, 7)), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(holder(&packet, Ipv4Addr::new(192, 0, 2, 8)), None);
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_passed_over(packet in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = holder(&packet, Ipv4Addr::LOCALHOST);
        }
    }
}

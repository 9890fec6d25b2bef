//! What guests leave open, worked out so that it stays the same from run to run and from machine to machine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::explain::Explain;
use super::guest::Draft;
use super::network::{NamedNetwork, broadcast};
use super::problem::Problems;
use super::site::NetworkMode;
use crate::names::{GuestName, MacAddr, NicName, SiteName};

/// Gives an address to each guest that has none: in the order of names, the first of its network that is nobody's. The
/// gateway of a network that the host itself serves is found the same way, before them.
pub fn addresses(
    drafts: &mut [Draft<'_>],
    networks: &mut [NamedNetwork],
    servers: &[IpAddr],
    explain: &mut Explain,
    problems: &mut Problems,
) {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|at| natural(&drafts[*at].name));
    for (place, named) in networks.iter_mut().enumerate() {
        let Some(network) = &mut named.network else { continue };
        let subnet = network.subnet;
        let mut taken: BTreeSet<IpAddr> = drafts.iter().filter_map(|d| d.address).collect();
        taken.extend(drafts.iter().filter_map(Draft::own_gateway));
        taken.extend(servers);
        taken.extend([subnet.network()].into_iter().chain(broadcast(&subnet)).chain(network.gateway));
        let mut free = subnet.hosts().filter(|address| !taken.contains(address));
        let served = matches!(network.mode, NetworkMode::Nat | NetworkMode::Rehearsal);
        if served && network.gateway.is_none() {
            network.gateway = free.next();
            if let Some(gateway) = network.gateway {
                let scope = format!("networks.{}.", named.name);
                explain.derived(
                    &scope,
                    "gateway",
                    &format!("\"{gateway}\""),
                    "the first free address of its subnet",
                );
            }
        }
        for at in &order {
            let draft = &mut drafts[*at];
            if draft.network != Some(place)
                || draft.address.is_some()
                || draft.layers.pick("address").is_some()
            {
                continue;
            }
            draft.address = free.next();
            match draft.address {
                Some(address) => {
                    let from =
                        format!("the free addresses of network '{}', in the order of names", named.name);
                    explain.derived(&format!("{}.", draft.name), "address", &format!("\"{address}\""), &from);
                }
                None => {
                    let message = format!("network '{}' has too few addresses for its guests", named.name);
                    problems.add(
                        draft.start(),
                        message,
                        format!("{subnet} is full; give it a larger subnet"),
                    );
                }
            }
        }
        for draft in drafts.iter().filter(|d| d.network == Some(place) && d.layers.pick("gateway").is_none())
        {
            if let Some(gateway) = network.gateway {
                let from = format!("network '{}'", named.name);
                explain.derived(&format!("{}.", draft.name), "gateway", &format!("\"{gateway}\""), &from);
            }
        }
    }
}

/// Gives a hardware address to each guest that has none, from the names of site and guest.
pub fn macs(drafts: &mut [Draft<'_>], site: &SiteName, explain: &mut Explain) {
    let mut taken: BTreeSet<MacAddr> = drafts.iter().filter_map(|d| d.mac).collect();
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|at| natural(&drafts[*at].name));
    for at in order {
        let draft = &mut drafts[at];
        if draft.mac.is_some() || draft.layers.pick("mac").is_some() {
            continue;
        }
        let mac = (0..).map(|attempt| mac(site, &draft.name, attempt)).find(|mac| taken.insert(*mac));
        draft.mac = mac;
        if let Some(mac) = mac {
            let from = format!("the names of site '{site}' and guest '{}'", draft.name);
            explain.derived(&format!("{}.", draft.name), "mac", &format!("\"{mac}\""), &from);
        }
    }
}

/// Gives a hardware address to a further card, that nobody has yet.
pub fn further_mac(
    site: &SiteName,
    guest: &GuestName,
    nic: &NicName,
    taken: &mut BTreeSet<MacAddr>,
) -> Option<MacAddr> {
    (0..)
        .map(|attempt| hashed(&[site.as_str(), guest.as_str(), nic.as_str()], attempt))
        .find(|mac| taken.insert(*mac))
}

fn mac(site: &SiteName, guest: &GuestName, attempt: u32) -> MacAddr {
    hashed(&[site.as_str(), guest.as_str()], attempt)
}

/// 52:54:00 is the locally administered range that QEMU and libvirt use, too: administrators know it as "a guest".
fn hashed(names: &[&str], attempt: u32) -> MacAddr {
    let mut hash = blake3::Hasher::new_derive_key("gridgate 2025 hardware address of a guest");
    for (number, name) in names.iter().enumerate() {
        if number > 0 {
            hash.update(b"\0");
        }
        hash.update(name.as_bytes());
    }
    hash.update(&attempt.to_be_bytes());
    let hash = hash.finalize();
    let [d, e, f, ..] = *hash.as_bytes();
    MacAddr([0x52, 0x54, 0x00, d, e, f])
}

/// Sorts `wn2` before `wn10`.
fn natural(name: &GuestName) -> (String, u64, String) {
    let text = name.as_str();
    let letters = text.trim_end_matches(|c: char| c.is_ascii_digit());
    (letters.to_owned(), text[letters.len()..].parse().unwrap_or(0), text.to_owned())
}

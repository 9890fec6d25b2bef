//! Which of the site's networks a guest's further card is plugged into.

use std::net::IpAddr;

use super::cross::no_host;
use super::guest::Draft;
use super::interface::{Interface, InterfaceKind};
use super::interfaces::place;
use super::layers::Layers;
use super::network::NamedNetwork;
use super::problem::Problems;
use super::site::Network;
use super::suggest;

/// The network that a card's own key names, or else the one that its address is of.
pub fn network<'n>(
    layers: &Layers<'_>,
    address: Option<IpAddr>,
    networks: &'n [NamedNetwork],
) -> Option<&'n Network> {
    if let Some(entry) = layers.pick("network") {
        let name = entry.value.text()?;
        return networks.iter().find(|network| network.name.as_str() == name)?.network.as_ref();
    }
    let address = address?;
    networks.iter().filter_map(|named| named.network.as_ref()).find(|known| known.subnet.contains(&address))
}

/// Plugs a further interface in if it is a card: into the network that it names, else the one that its first address is of. A
/// card without addresses goes where the guest is; one with an address of no network is for a machine that runs elsewhere.
pub fn plug(
    nic: &mut Interface,
    draft: &Draft<'_>,
    layers: &Layers<'_>,
    networks: &[NamedNetwork],
    problems: &mut Problems,
) {
    let said = layers.pick("network").and_then(|entry| Some((entry.value.text()?, &entry.value.origin)));
    if nic.kind != InterfaceKind::Ethernet {
        if let Some((_, origin)) = said {
            let message = format!("interface '{}' is no card and is plugged into nothing", nic.name);
            problems.add(origin, message, "'network' is for the card that it is made of");
        }
        return;
    }
    if let Some((name, origin)) = said
        && !networks.iter().any(|network| network.name.as_str() == name)
    {
        let hint = suggest::hint(name, networks.iter().map(|n| n.name.as_str()), "networks of the site");
        problems.add(origin, format!("unknown network '{name}'"), &hint);
        return;
    }
    let first = nic.addresses.first().map(|net| net.addr());
    let guests = || networks.get(draft.network?)?.network.as_ref();
    let found = network(layers, first, networks).or_else(|| if first.is_none() { guests() } else { None });
    let Some(network) = found else { return };
    nic.network = Some(network.name.clone());
    // Further addresses may be of other networks on the same cable.
    let Some(address) = first.filter(|address| address.is_ipv4() == network.subnet.addr().is_ipv4()) else {
        return;
    };
    if let Some(message) = no_host(address, network) {
        let origin = place(layers, "address").or_else(|| place(layers, "addresses"));
        problems.add(origin.as_ref().unwrap_or(draft.start()), message, "give it an address of its network");
    }
}

//! The site's networks.

use super::checks;
use super::explain::Explain;
use super::layers::Layers;
use super::origin::Origin;
use super::problem::Problems;
use super::site::{Network, NetworkMode};
use super::tree::{Entry, Kind};
use crate::names::{IfName, NetworkName};

/// A network that was named; what it is made of is missing if something about it is wrong.
#[derive(Debug)]
pub struct NamedNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Where it is described.
    pub origin: Origin,
    /// What it is.
    pub network: Option<Network>,
}

/// Reads all networks. With `rehearse`, each is rehearsed, whatever mode it has.
pub fn read(
    networks: &Layers<'_>,
    rehearse: bool,
    site: &Origin,
    explain: &mut Explain,
    problems: &mut Problems,
) -> Vec<NamedNetwork> {
    let mut read: Vec<NamedNetwork> = Vec::new();
    for entry in networks.0.iter().flat_map(|table| &table.entries) {
        if read.iter().any(|n| n.name.as_str() == entry.key) {
            continue;
        }
        match entry.key.parse::<NetworkName>() {
            Ok(name) => {
                let layers = networks.inner(&entry.key);
                let network = network(&name, entry, &layers, rehearse, explain, problems);
                read.push(NamedNetwork { name, origin: entry.origin.clone(), network });
            }
            Err(why) => {
                problems.add(
                    &entry.origin,
                    format!("network '{}' {why}", super::shape::shown(&entry.key)),
                    "",
                );
            }
        }
    }
    if networks.0.iter().all(|table| table.entries.is_empty()) {
        let hint = if site.place.ends_with(".conf") {
            "for example: NETWORK_MODE=nat NETWORK_SUBNET=10.77.0.0/24"
        } else {
            "for example: [networks.lan] with mode = \"nat\" and subnet = \"10.77.0.0/24\""
        };
        problems.add(site, "the site has no network", hint);
    }
    together(&read, networks, rehearse, problems);
    read
}

fn network(
    name: &NetworkName,
    entry: &Entry,
    layers: &Layers<'_>,
    rehearse: bool,
    explain: &mut Explain,
    problems: &mut Problems,
) -> Option<Network> {
    if !matches!(entry.value.kind, Kind::Table(_)) {
        let hint =
            format!("for example: [networks.{name}] with mode = \"nat\" and subnet = \"10.77.0.0/24\"");
        problems.add(&entry.value.origin, format!("network '{name}' must be a table"), hint);
        return None;
    }
    let scope = format!("networks.{name}.");
    for key in ["mode", "subnet", "gateway", "bridge", "uplink"] {
        explain.layered(&scope, key, layers);
    }
    let mut mode = layers.pick("mode").map(|e| e.value.text().and_then(checks::parse_mode));
    if rehearse {
        mode = Some(Some(NetworkMode::Rehearsal));
        explain.derived(&scope, "mode", "\"rehearsal\"", "'rehearsal = true' for the whole site");
    }
    if mode.is_none() {
        let hint = "mode is \"bridge\", \"nat\", \"isolated\" or \"rehearsal\"";
        problems.add(&entry.origin, format!("network '{name}' has no mode"), hint);
    }
    let subnet = layers.pick("subnet");
    if subnet.is_none() {
        problems.add(
            &entry.origin,
            format!("network '{name}' has no subnet"),
            "for example: subnet = \"10.77.0.0/24\"",
        );
    }
    let subnet: ipnet::IpNet = subnet?.value.text()?.parse().ok()?;
    let mode = mode??;
    let gateway = match layers.pick("gateway") {
        Some(gateway) => {
            let address = gateway.value.text()?.parse().ok()?;
            if !subnet.contains(&address)
                || address == subnet.network()
                || Some(address) == broadcast(&subnet)
            {
                let message = format!("gateway {address} is no host's address in {subnet}");
                problems.add(&gateway.value.origin, message, "give one of the network's own addresses");
            }
            Some(address)
        }
        None => None,
    };
    let bridge = layers.pick("bridge");
    let uplink = layers.pick("uplink");
    if let Some(uplink) = uplink
        && matches!(mode, NetworkMode::Nat | NetworkMode::Isolated)
    {
        let hint = "mode = \"bridge\" joins the guests to it; nat goes out by the host's own routes";
        problems.add(&uplink.value.origin, "only a network of mode 'bridge' has an uplink", hint);
    }
    if mode == NetworkMode::Bridge && uplink.is_none() && bridge.is_none() {
        let hint = "name the host's interface as uplink, or a bridge that you made yourself as bridge";
        problems.add(&entry.origin, format!("network '{name}' is a bridge to nowhere"), hint);
    }
    let bridge = match bridge {
        Some(entry) => entry.value.text()?.parse().ok()?,
        None => {
            let derived = derived_bridge(name)?;
            explain.derived(&scope, "bridge", &format!("\"{derived}\""), "the network's name");
            derived
        }
    };
    let uplink = match uplink.filter(|_| mode == NetworkMode::Bridge) {
        Some(entry) => Some(entry.value.text()?.parse().ok()?),
        None => None,
    };
    Some(Network { name: name.clone(), mode, bridge, uplink, subnet, gateway })
}

/// `gg-NAME`, cut to the 15 bytes of an interface's name with four digits of a hash where it is longer.
fn derived_bridge(name: &NetworkName) -> Option<IfName> {
    let plain = format!("gg-{name}");
    let short = || {
        let hash = blake3::hash(name.as_str().as_bytes()).to_hex();
        format!("gg-{}-{}", &name.as_str()[..7], &hash[..4])
    };
    if plain.len() <= 15 { plain.parse().ok() } else { short().parse().ok() }
}

/// What no two networks may share.
fn together(read: &[NamedNetwork], networks: &Layers<'_>, rehearse: bool, problems: &mut Problems) {
    let place = |n: &NamedNetwork, key: &str| {
        let entry = networks.inner(n.name.as_str()).pick(key).map(|e| e.value.origin.clone());
        entry.unwrap_or_else(|| n.origin.clone())
    };
    let whole: Vec<(&NamedNetwork, &Network)> =
        read.iter().filter_map(|n| Some((n, n.network.as_ref()?))).collect();
    for (at, (named, network)) in whole.iter().enumerate() {
        for (other_named, other) in &whole[..at] {
            if network.bridge == other.bridge {
                let message =
                    format!("bridge '{}' is already that of network '{}'", network.bridge, other.name);
                problems.add(&place(named, "bridge"), message, "give each network a bridge of its own");
            }
            if network.uplink.is_some() && network.uplink == other.uplink {
                let message = format!("this uplink is already that of network '{}'", other.name);
                problems.add(&place(named, "uplink"), message, "an interface can be in one bridge only");
            }
            if network.subnet.contains(&other.subnet) || other.subnet.contains(&network.subnet) {
                let message = format!(
                    "subnet {} overlaps {} of network '{}'",
                    network.subnet, other.subnet, other.name
                );
                let hint = format!("that is at {}", place(other_named, "subnet"));
                problems.add(&place(named, "subnet"), message, hint);
            }
        }
        if let Some(user) = whole.iter().find(|(_, n)| n.uplink.as_ref() == Some(&network.bridge)) {
            let message =
                format!("bridge '{}' is also the uplink of network '{}'", network.bridge, user.1.name);
            problems.add(&place(named, "bridge"), message, "give the bridge another name");
        }
    }
    let rehearsed = |n: &Network| n.mode == NetworkMode::Rehearsal;
    if !rehearse && whole.iter().any(|(_, n)| !rehearsed(n)) {
        for (named, _) in whole.iter().filter(|(_, n)| rehearsed(n)) {
            let hint = "'rehearsal = true' in the site file rehearses them all";
            problems.add(&place(named, "mode"), "either all networks are rehearsed or none", hint);
        }
    }
}

/// The address that reaches all hosts of a network; IPv6 has none.
pub fn broadcast(subnet: &ipnet::IpNet) -> Option<std::net::IpAddr> {
    match subnet {
        ipnet::IpNet::V4(net) => Some(net.broadcast().into()),
        ipnet::IpNet::V6(_) => None,
    }
}

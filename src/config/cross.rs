//! What only shows when guests are looked at together, or beside what the site and this machine have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::checks;
use super::guest::Draft;
use super::limits::{self, Limit};
use super::network::{NamedNetwork, broadcast};
use super::origin::Origin;
use super::problem::Problems;
use super::site::Network;
use super::suggest;

/// Names that a guest may refer to.
#[derive(Debug, Default)]
pub struct Known {
    /// Golden images.
    pub images: Vec<String>,
    /// Profiles.
    pub profiles: Vec<String>,
}

/// Everything about single guests that the tables of keys cannot tell.
pub fn each(drafts: &[Draft<'_>], networks: &[NamedNetwork], known: &Known, problems: &mut Problems) {
    for draft in drafts {
        name(draft, "image", &known.images, "known images", problems);
        name(draft, "profile", &known.profiles, "known profiles", problems);
        backend(draft, problems);
        memory_limit(draft, problems);
        address(draft, networks, problems);
    }
}

fn name(draft: &Draft<'_>, key: &str, known: &[String], noun: &str, problems: &mut Problems) {
    let Some(name) = draft.text(key) else { return };
    let well_formed = if key == "image" { checks::image(name) } else { checks::label(name) };
    if well_formed.is_ok() && !known.iter().any(|k| k == name) {
        let hint = suggest::hint(name, known.iter().map(String::as_str), noun);
        let hint = format!("{hint} (a new one is a file '{key}s/{name}.toml' in the site)");
        problems.add(draft.place(key), format!("unknown {key} '{name}'"), hint);
    }
}

fn backend(draft: &Draft<'_>, problems: &mut Problems) {
    let cpus = draft.layers.pick("cpus").and_then(|e| e.value.integer()).unwrap_or(1);
    match draft.text("backend") {
        Some("uml") if cpus > 1 => {
            let message = format!("user-mode Linux runs one processor, not {cpus}");
            problems.add(draft.place("cpus"), message, "backend = \"qemu\" has as many as you like");
        }
        Some("nspawn") if draft.text("kernel_args").is_some_and(|args| !args.is_empty()) => {
            let message = "a guest of backend 'nspawn' has no kernel of its own for kernel_args";
            problems.add(
                draft.place("kernel_args"),
                message,
                "take them away, or choose backend \"qemu\" or \"uml\"",
            );
        }
        _ => {}
    }
}

/// A guest whose hypervisor has less than its memory is killed by the kernel while it boots.
fn memory_limit(draft: &Draft<'_>, problems: &mut Problems) {
    let memory = draft.layers.pick("memory").and_then(|entry| entry.value.size());
    let (Some(limit), Some(memory)) = (draft.limits().memory_bytes, memory) else { return };
    let overhead = limits::overhead(draft.text("backend").unwrap_or_default());
    if let Some(overhead) = overhead.filter(|overhead| limit < memory.0 + overhead) {
        let least = Limit::Memory.show(memory.0 + overhead);
        let message = format!(
            "a limit of {} is too little for {memory} of memory and its hypervisor",
            Limit::Memory.show(limit)
        );
        let hint = format!(
            "limits.memory = \"{least}\" is the least that a guest lives with, or give it less memory"
        );
        let said = draft.layers.inner("limits").pick("memory").map(|entry| &entry.value.origin);
        problems.add(said.unwrap_or(draft.start()), message, hint);
    }
}

fn address(draft: &Draft<'_>, networks: &[NamedNetwork], problems: &mut Problems) {
    let named = draft.network.and_then(|at| networks.get(at));
    let Some(network) = named.and_then(|n| n.network.as_ref()) else { return };
    let (subnet, name) = (network.subnet, &network.name);
    let said = draft.text("address").and_then(checks::split_address);
    let prefix_entry = draft.layers.pick("prefix").map(|e| ("prefix", e.value.integer()));
    let in_address = said.and_then(|(_, prefix)| prefix).map(|prefix| ("address", Some(i64::from(prefix))));
    for (key, prefix) in [in_address, prefix_entry].into_iter().flatten() {
        let Some(prefix) = prefix else { continue };
        if prefix != i64::from(subnet.prefix_len()) {
            let message = format!("a prefix of {prefix} bits is not that of network '{name}', {subnet}");
            problems.add(draft.place(key), message, "leave it away: the network says it");
        }
    }
    if let Some(gateway) = draft.own_gateway() {
        if !subnet.contains(&gateway) || gateway == subnet.network() || Some(gateway) == broadcast(&subnet) {
            let message = format!("gateway {gateway} is no host's address in network '{name}', {subnet}");
            problems.add(draft.place("gateway"), message, "leave it away: the network says it");
        } else if draft.address == Some(gateway) {
            let message = format!("address {gateway} is the guest's own gateway");
            problems.add(draft.place("address"), message, "give the guest another address");
        }
    }
    let Some(address) = draft.address.filter(|_| said.is_some()) else { return };
    let place = draft.place("address");
    let free = "leave it away to get the next free one";
    if let Some(message) = no_host(address, network) {
        problems.add(place, message, free);
    }
}

/// Why no guest on this network may have the address.
pub(super) fn no_host(address: IpAddr, network: &Network) -> Option<String> {
    let (subnet, name) = (network.subnet, &network.name);
    if !subnet.contains(&address) {
        return Some(format!("address {address} is outside network '{name}', {subnet}"));
    }
    if address == subnet.network() {
        return Some(format!("address {address} is that of network '{name}' itself"));
    }
    if Some(address) == broadcast(&subnet) {
        return Some(format!("address {address} reaches all of network '{name}'"));
    }
    (network.gateway == Some(address))
        .then(|| format!("address {address} is the gateway of network '{name}'"))
}

/// What no two guests may share.
pub fn together(drafts: &[Draft<'_>], problems: &mut Problems) {
    let name = |d: &Draft<'_>| Some(d.name.to_string());
    unique(drafts, "name", name, |d| d.start(), problems);
    unique(drafts, "address", |d| d.address.map(|a| a.to_string()), |d| d.place("address"), problems);
    unique(drafts, "mac", |d| d.mac.map(|m| m.to_string()), |d| d.place("mac"), problems);
    unique(drafts, "host name", |d| Some(d.fqdn.clone()), |d| d.place("hostname"), problems);
}

fn unique<'a, 'b: 'a>(
    drafts: &'a [Draft<'b>],
    noun: &str,
    value: impl Fn(&Draft<'_>) -> Option<String>,
    place: impl Fn(&'a Draft<'b>) -> &'a Origin,
    problems: &mut Problems,
) {
    let mut order: Vec<&Draft<'_>> = drafts.iter().collect();
    order.sort_by_key(|d| place(d));
    let mut first: BTreeMap<String, &Draft<'_>> = BTreeMap::new();
    for draft in order {
        let Some(value) = value(draft) else { continue };
        match first.get(&value) {
            // Two guests of one name have the same derived host name, too; once is enough.
            Some(other) if noun == "host name" && other.name == draft.name => {}
            Some(other) => {
                let message = match noun {
                    "name" => format!("two guests are called '{value}'"),
                    _ => format!("{noun} {value} is already that of guest '{}'", other.name),
                };
                problems.add(place(draft), message, format!("that is at {}", place(other)));
            }
            None => drop(first.insert(value, draft)),
        }
    }
}

//! What a command that was cut short left of networks.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use super::apply::apply;
use crate::facts::network::gather;
use crate::host::Host;
use crate::host::net::lost_shapers;
use crate::names::IfName;
use crate::paths::Paths;
use crate::plan::network::{NetStep, names, teardown};

/// Something of the site's networks that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// What `down` would have taken away.
    Step(NetStep),
    /// What a guest's packets waited in.
    Shaper { ns: Option<PathBuf>, name: IfName },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match &self.0 {
            Kind::Step(step) => step,
            Kind::Shaper { name, .. } => return write!(f, "interface '{name}' of a guest that is gone"),
        };
        match step {
            NetStep::RemoveBridge { place, bridge } => write!(f, "bridge '{bridge}' {place}"),
            NetStep::RemoveNamespace => f.write_str("the network namespace of the site"),
            NetStep::StopTranslating { table } => write!(f, "nftables table '{table}'"),
            NetStep::StopForwarding => f.write_str("forwarding of IPv4 packets"),
            NetStep::Release { uplink, .. } => write!(f, "interface '{uplink}' in a bridge of gridgate's"),
            step => write!(f, "{step}"),
        }
    }
}

/// Shapers whose guest is gone; and all of the site's networks if no guest is on any of them, else nothing. The networks of a site that is up but whose
/// guests are all stopped look the same, so ask only when the site is meant to be down.
///
/// Ports of guests cannot be left over: a tap goes with the last descriptor of it, a virtual cable with the guest's
/// namespace.
pub fn leftovers(host: &dyn Host, paths: &Paths) -> Result<Vec<Leftover>> {
    let facts = gather(host, paths)?;
    let id = paths.id();
    let mut found = Vec::new();
    for (ns, links) in [(None, Some(&facts.host)), (Some(paths.netns()), facts.namespace.as_ref())] {
        let links = links.map_or(&[][..], Vec::as_slice);
        let lost = lost_shapers(links).filter(|link| names::owner(link) == Some(&id));
        found.extend(lost.filter_map(|link| {
            Some(Leftover(Kind::Shaper { ns: ns.clone(), name: link.name.parse().ok()? }))
        }));
    }
    let in_use =
        facts.host.iter().chain(facts.namespace.iter().flatten()).any(|l| names::is_guest_port(l, &id));
    if in_use {
        return Ok(found);
    }
    found.extend(teardown(&facts, &id).into_iter().map(|step| Leftover(Kind::Step(step))));
    // A namespace that was begun: the file is there, and nothing is bound to it.
    if facts.namespace.is_none() && host.stat(&paths.netns())?.is_some() {
        found.push(Leftover(Kind::Step(NetStep::RemoveNamespace)));
    }
    Ok(found)
}

/// Frees it. Free already is fine.
pub fn free(host: &dyn Host, paths: &Paths, leftover: &Leftover) -> Result<()> {
    match &leftover.0 {
        Kind::Step(step) => apply(host, paths, step),
        Kind::Shaper { ns, name } => host.remove_link(ns.as_deref(), name),
    }
}

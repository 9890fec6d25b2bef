//! What a command that was cut short left of networks.

use std::fmt;

use anyhow::Result;

use super::apply::apply;
use crate::facts::network::gather;
use crate::host::Host;
use crate::paths::Paths;
use crate::plan::network::{NetStep, names, teardown};

/// Something of the site's networks that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover(NetStep);

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            NetStep::RemoveBridge { place, bridge } => write!(f, "bridge '{bridge}' {place}"),
            NetStep::RemoveNamespace => f.write_str("the network namespace of the site"),
            NetStep::StopTranslating { table } => write!(f, "nftables table '{table}'"),
            NetStep::StopForwarding => f.write_str("forwarding of IPv4 packets"),
            NetStep::Release { uplink, .. } => write!(f, "interface '{uplink}' in a bridge of gridgate's"),
            step => write!(f, "{step}"),
        }
    }
}

/// All of the site's networks if no guest is on any of them, else nothing. The networks of a site that is up but whose
/// guests are all stopped look the same, so ask only when the site is meant to be down.
///
/// Ports of guests cannot be left over: a tap goes with the last descriptor of it, a virtual cable with the guest's
/// namespace.
pub fn leftovers(host: &dyn Host, paths: &Paths) -> Result<Vec<Leftover>> {
    let facts = gather(host, paths)?;
    let id = paths.id();
    let in_use =
        facts.host.iter().chain(facts.namespace.iter().flatten()).any(|l| names::is_guest_port(l, &id));
    if in_use {
        return Ok(Vec::new());
    }
    let mut found: Vec<Leftover> = teardown(&facts, &id).into_iter().map(Leftover).collect();
    // A namespace that was begun: the file is there, and nothing is bound to it.
    if facts.namespace.is_none() && host.stat(&paths.netns())?.is_some() {
        found.push(Leftover(NetStep::RemoveNamespace));
    }
    Ok(found)
}

/// Frees it. Free already is fine.
pub fn free(host: &dyn Host, paths: &Paths, leftover: &Leftover) -> Result<()> {
    apply(host, paths, &leftover.0)
}

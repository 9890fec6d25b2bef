//! Which links, tables and settings of networks there are.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::host::net::{Link, Table};
use crate::paths::Paths;

/// The kernel's switch for passing IPv4 packets on between interfaces.
pub const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// What planning networks needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetFacts {
    /// Links of the host's own namespace.
    pub host: Vec<Link>,
    /// Links of the site's namespace, if there is one.
    pub namespace: Option<Vec<Link>>,
    /// Tables of nftables in the host's own namespace.
    pub tables: Vec<Table>,
    /// Whether the host passes IPv4 packets on.
    pub ip_forward: bool,
    /// Whether it does so because a site of gridgate on this host needed it.
    pub forwarding_is_ours: bool,
    /// Interfaces that gridgate joined to this site's bridges.
    pub uplinks: Vec<Uplink>,
}

/// An interface of the host that gridgate joined to a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The interface.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// Whether it was down before.
    pub raised: bool,
}

/// Looks at the host, and into the site's namespace if there is one.
pub fn gather(host: &dyn Host, paths: &Paths) -> Result<NetFacts> {
    let netns = paths.netns();
    let namespace = match host.netns_exists(&netns)? {
        true => Some(host.links(Some(&netns))?),
        false => None,
    };
    Ok(NetFacts {
        host: host.links(None)?,
        namespace,
        tables: host.nft_tables(None)?,
        ip_forward: host.sysctl_read(None, IP_FORWARD)?.as_deref() == Some("1"),
        forwarding_is_ours: host.stat(&paths.forwarding())?.is_some(),
        uplinks: uplinks(host, &paths.uplinks())?,
    })
}

/// The record of uplinks; empty if there is none.
pub fn uplinks(host: &dyn Host, path: &Path) -> Result<Vec<Uplink>> {
    match host.read(path)? {
        Some(text) => serde_json::from_slice(&text).with_context(|| format!("reading '{}'", path.display())),
        None => Ok(Vec::new()),
    }
}

//! What outlives a guest's process although it was only the guest's: what its packets waited in, and its control group.

use std::path::Path;

use anyhow::{Context, Result};

use super::Host;
use super::cgroups::Tree;
use super::net::shaper_of;
use crate::names::{GuestName, IfName};
use crate::paths::Paths;

/// Takes it away; whether all of it is gone. Processes that the guest left behind may take a moment to end, and keep its
/// group so long. Call it when the guest has ended, and no other run of it has begun. Gone already is fine.
pub fn take_away(host: &dyn Host, paths: &Paths, guest: &GuestName, netns: Option<&Path>) -> Result<bool> {
    let id = paths.id();
    let links = match netns {
        // A rehearsed site that is being taken down has its namespace gone, and all that was in it.
        Some(ns) if !host.netns_exists(ns)? => Vec::new(),
        ns => host.links(ns)?,
    };
    if let Some(shaper) = shaper_of(&links, &format!("gridgate:{id}:{guest}")) {
        let name: IfName = shaper.name.parse().with_context(|| format!("naming '{}'", shaper.name))?;
        host.remove_link(netns, &name)?;
    }
    let Ok(tree) = Tree::find() else { return Ok(true) };
    let group = tree.group(&id, guest.as_str());
    if group.is_dir() {
        tree.sweep(&id);
    }
    Ok(!group.is_dir())
}

//! One step of a plan, forwards and backwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::facts::network::{IP_FORWARD, Uplink, uplinks};
use crate::host::Host;
use crate::host::net::LinkKind;
use crate::names::IfName;
use crate::paths::Paths;
use crate::plan::network::{NetStep, Place, names};

/// How long another site's command may hold what all sites of a host share.
const SHARED_LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Does one step. If it fails, nothing of it is left. Done already is fine.
pub fn apply(host: &dyn Host, paths: &Paths, step: &NetStep) -> Result<()> {
    match step {
        NetStep::MakeNamespace => host.make_netns(&paths.netns()),
        NetStep::MakeBridge { place, bridge } => make_bridge(host, paths, *place, bridge),
        NetStep::AddAddress { place, bridge, address } => {
            host.add_address(at(paths, *place).as_deref(), bridge, *address)
        }
        NetStep::RemoveAddress { place, bridge, address } => {
            host.remove_address(at(paths, *place).as_deref(), bridge, *address)
        }
        NetStep::Join { uplink, bridge, raise } => join(host, paths, uplink, bridge, *raise),
        NetStep::Release { uplink, lower } => release(host, paths, uplink, *lower),
        NetStep::Translate { table, script, .. } => {
            host.nft(None, script).with_context(|| format!("making nftables table '{table}'"))
        }
        NetStep::StopTranslating { table } => stop_translating(host, table),
        NetStep::Forward => forward(host, paths),
        NetStep::StopForwarding => stop_forwarding(host, paths),
        NetStep::RemoveBridge { place, bridge } => remove_bridge(host, paths, *place, bridge),
        NetStep::RemoveNamespace => host.remove_netns(&paths.netns()),
    }
}

/// Takes back one step that was done, for walking back after a later one failed. What a step removed stays removed: it
/// was gridgate's own and wanted by nothing; and a table that replaced another stays, because it holds the rules for all
/// networks that are left.
pub fn undo(host: &dyn Host, paths: &Paths, step: &NetStep) -> Result<()> {
    match step {
        NetStep::MakeNamespace => host.remove_netns(&paths.netns()),
        NetStep::MakeBridge { place, bridge } => remove_bridge(host, paths, *place, bridge),
        NetStep::AddAddress { place, bridge, address } => {
            host.remove_address(at(paths, *place).as_deref(), bridge, *address)
        }
        NetStep::RemoveAddress { place, bridge, address } => {
            host.add_address(at(paths, *place).as_deref(), bridge, *address)
        }
        NetStep::Join { uplink, raise, .. } => release(host, paths, uplink, *raise),
        NetStep::Translate { table, replaces: false, .. } => stop_translating(host, table),
        NetStep::Forward => stop_forwarding(host, paths),
        NetStep::Translate { replaces: true, .. }
        | NetStep::Release { .. }
        | NetStep::StopTranslating { .. }
        | NetStep::StopForwarding
        | NetStep::RemoveBridge { .. }
        | NetStep::RemoveNamespace => Ok(()),
    }
}

fn at(paths: &Paths, place: Place) -> Option<PathBuf> {
    match place {
        Place::Host => None,
        Place::Rehearsal => Some(paths.netns()),
    }
}

fn make_bridge(host: &dyn Host, paths: &Paths, place: Place, bridge: &IfName) -> Result<()> {
    let (ns, id) = (at(paths, place), paths.id());
    if is_ours(host, ns.as_deref(), bridge, &id)? {
        return Ok(());
    }
    host.make_bridge(ns.as_deref(), bridge, &names::alias(&id))
}

/// Looks again before removing: what was planned is a moment old, and another program may have made the name its own.
fn remove_bridge(host: &dyn Host, paths: &Paths, place: Place, bridge: &IfName) -> Result<()> {
    let ns = at(paths, place);
    if let Some(path) = &ns
        && !host.netns_exists(path)?
    {
        return Ok(());
    }
    match is_ours(host, ns.as_deref(), bridge, &paths.id())? {
        true => host.remove_link(ns.as_deref(), bridge),
        false => Ok(()),
    }
}

fn is_ours(host: &dyn Host, ns: Option<&Path>, bridge: &IfName, id: &str) -> Result<bool> {
    let links = host.links(ns)?;
    let found = links.iter().find(|l| l.name == bridge.as_str());
    Ok(found.is_some_and(|l| l.kind == LinkKind::Bridge && names::owner(l) == Some(id)))
}

fn join(host: &dyn Host, paths: &Paths, uplink: &IfName, bridge: &IfName, raise: bool) -> Result<()> {
    // Noted first: should this process end in between, what was noted is found and released.
    let mut joined = uplinks(host, &paths.uplinks())?;
    // Noted before means joined before, by a command that did not come to its end, so it may be up because of that one.
    let raised = raise || joined.iter().any(|u| u.name == uplink.as_str() && u.raised);
    joined.retain(|u| u.name != uplink.as_str());
    joined.push(Uplink { name: uplink.to_string(), bridge: bridge.to_string(), raised });
    note(host, paths, &joined)?;
    let done = host.set_master(None, uplink, Some(bridge)).and_then(|()| match raise {
        true => host.set_up(None, uplink),
        false => Ok(()),
    });
    if done.is_err() {
        // The first error is the one to tell.
        let _ = release(host, paths, uplink, raise);
    }
    done
}

fn release(host: &dyn Host, paths: &Paths, uplink: &IfName, lower: bool) -> Result<()> {
    let mut joined = uplinks(host, &paths.uplinks())?;
    let links = host.links(None)?;
    // Somebody may have put it into a bridge of his own meanwhile; then it is not ours to take out.
    let link = links.iter().find(|l| l.name == uplink.as_str());
    let noted = joined.iter().find(|u| u.name == uplink.as_str()).map(|u| u.bridge.as_str());
    let master = link.and_then(|l| l.master).and_then(|m| links.iter().find(|l| l.index == m));
    if let Some(link) = link
        && master.is_none_or(|m| Some(m.name.as_str()) == noted)
    {
        if link.master.is_some() {
            host.set_master(None, uplink, None)?;
        }
        if lower {
            host.set_down(None, uplink)?;
        }
    }
    joined.retain(|u| u.name != uplink.as_str());
    note(host, paths, &joined)
}

fn note(host: &dyn Host, paths: &Paths, joined: &[Uplink]) -> Result<()> {
    match joined.is_empty() {
        true => host.remove(&paths.uplinks()),
        false => host.write(&paths.uplinks(), &serde_json::to_vec(joined)?, 0o644),
    }
}

fn stop_translating(host: &dyn Host, table: &str) -> Result<()> {
    if !host.nft_tables(None)?.iter().any(|t| t.name == table) {
        return Ok(());
    }
    host.nft(None, &format!("delete table inet {table}\n"))
        .with_context(|| format!("removing nftables table '{table}'"))
}

fn forward(host: &dyn Host, paths: &Paths) -> Result<()> {
    let _shared = lock_shared(host, paths)?;
    let Some(was) = host.sysctl_read(None, IP_FORWARD)? else { bail!("this kernel has no '{IP_FORWARD}'") };
    if was == "1" {
        return Ok(());
    }
    // Noted first, so that it is set back even if this process ends in between.
    host.write(&paths.forwarding(), was.as_bytes(), 0o644)?;
    let done = host.sysctl_write(None, IP_FORWARD, "1");
    if done.is_err() {
        // The first error is the one to tell.
        let _ = host.remove(&paths.forwarding());
    }
    done
}

fn stop_forwarding(host: &dyn Host, paths: &Paths) -> Result<()> {
    let _shared = lock_shared(host, paths)?;
    let Some(was) = host.read(&paths.forwarding())? else { return Ok(()) };
    let own = names::table(&paths.id());
    let others =
        host.nft_tables(None)?.into_iter().any(|t| t.name != own && t.name.starts_with(&names::table("")));
    if others {
        return Ok(());
    }
    host.sysctl_write(None, IP_FORWARD, String::from_utf8_lossy(&was).trim())?;
    host.remove(&paths.forwarding())
}

fn lock_shared(host: &dyn Host, paths: &Paths) -> Result<crate::host::files::LockGuard> {
    host.lock(&paths.forwarding().with_extension("lock"), SHARED_LOCK_LIMIT)
}

//! `gridgate gc`: find and free what a killed command left; only gridgate's own, and only what nobody uses.

use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde::Serialize;

use super::{Context, Exit, clone};
use crate::backup::commit;
use crate::chunks::pull;
use crate::console::client;
use crate::console::record::RunRecord;
use crate::host::begun;
use crate::host::cgroups::Tree;
use crate::host::disks::Disks;
use crate::host::files::Files;
use crate::host::newfs;
use crate::image::store;
use crate::machine::bundle::unpack;
use crate::names::GuestName;
use crate::network;
use crate::remote;
use crate::service::{self, direct};

/// Find and free what a killed command left
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only show what would be freed; exit 3 if there is something
    #[arg(long)]
    pub dry_run: bool,
}

/// What a pull fetched before it was cut off is kept so long for the next one.
const UNFINISHED: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Serialize)]
struct Document {
    version: u32,
    found: Vec<String>,
    freed: bool,
}

/// Frees everything that it finds; the first error is told at the end.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    context.need_root("looking for leftovers")?;
    let _lock = context.lock()?;
    let (host, paths) = (&context.host, &context.paths);
    let mut found = Vec::new();
    let mut freed: Vec<Result<()>> = Vec::new();

    let mut files = store::leftovers(host, paths)?;
    files.extend(remote::leftovers());
    files.extend(clone::leftovers());
    files.extend(newfs::leftovers());
    files.extend(pull::leftovers(host, paths, UNFINISHED)?);
    files.extend(commit::leftover(host, paths, UNFINISHED));
    files.extend(begun::leftovers(host, &paths.state)?);
    let own = ["", "keys", "kernels", "kernels/uml"].map(|dir| paths.state.join(dir));
    for dir in own.into_iter().chain([paths.run.clone(), unpack::place(&paths.state)]) {
        files.extend(host.abandoned(&dir)?);
    }
    for site in host.list(&paths.state.join("sites"))? {
        let kept = paths.state.join("sites").join(site);
        for dir in ["", "keys", "identities"] {
            files.extend(host.abandoned(&kept.join(dir))?);
        }
        for guest in host.list(&kept.join("guests"))? {
            files.extend(host.abandoned(&kept.join("guests").join(guest))?);
        }
    }
    for guest in host.list(&paths.guests())? {
        files.extend(host.abandoned(&paths.guests().join(guest))?);
    }
    for name in host.list(&paths.run.join("guests"))? {
        let Ok(guest) = name.parse::<GuestName>() else { continue };
        let gone = RunRecord::read(paths, &guest)?.is_none_or(|record| !record.is_alive());
        if gone && !direct::is_waiting(paths, &guest) {
            files.push(paths.run_guest(&guest));
        }
    }
    let nobody = !direct::any_running(paths) && !direct::any_waiting(paths);
    if nobody && host.stat(&paths.run)?.is_some() && !client::holder_runs(paths) {
        files.retain(|path| !path.starts_with(&paths.run));
    }
    for path in files {
        found.push(path.display().to_string());
        if !args.dry_run {
            freed.push(host.remove(&path));
        }
    }
    for leftover in network::leftovers(host, paths)? {
        found.push(leftover.to_string());
        if !args.dry_run {
            freed.push(network::free(host, paths, &leftover));
        }
    }
    if let Ok(tree) = Tree::find() {
        found.extend(tree.empty(&paths.id()).iter().map(|group| group.display().to_string()));
        if !args.dry_run {
            tree.sweep(&paths.id());
        }
    }
    // Last, since the namespace of a rehearsed site is bound there.
    if nobody && host.stat(&paths.run)?.is_some() {
        match client::holder_runs(paths) {
            true => {
                found.push("a console holder without a guest".to_owned());
                if !args.dry_run {
                    freed.push(service::manager(paths)?.retire());
                    freed.push(host.remove(&paths.run));
                }
            }
            false => {
                found.push(paths.run.display().to_string());
                if !args.dry_run {
                    freed.push(host.remove(&paths.run));
                }
            }
        }
    }

    if context.json {
        super::print_json(&Document { version: 1, found: found.clone(), freed: !args.dry_run })?;
    } else {
        for line in &found {
            super::print(&format!("{line}\n"))?;
        }
    }
    if found.is_empty() {
        context.progress.say("nothing was left behind");
    }
    freed.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(if args.dry_run && !found.is_empty() { Exit::Differs } else { Exit::Done })
}

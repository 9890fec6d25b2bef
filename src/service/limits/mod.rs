//! How much of the host a guest may use: what was asked for, how it is brought about, and whether it holds.
//!
//! ```text
//!   [limits] of the site's files < limits.json (kept by `gridgate limit`)
//!        |
//!        +-- processor, memory, processes, disk:   the guest's unit, where systemd keeps it up ([`unit_lines`]);
//!        |                                         a control group of its own, where nobody does
//!        +-- network:                              its port ([`crate::host::net::Net::set_rates`])
//! ```
//!
//! A limit that this host cannot hold is told of, and the guest runs without it.

mod control;
mod kept;
mod unit;

pub use kept::{Change, Kept, To};
pub use unit::unit_lines;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::backend::backend;
use crate::backend::spec::Spec;
use crate::config::limits::{Limit, Limits};
use crate::console::record::RunRecord;
use crate::host::blockdev::Device;
use crate::host::cgroups::Tree;
use crate::host::net::Rates;
use crate::host::programs::Program;
use crate::host::{Host, blockdev, writeback};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service;
use crate::service::generate;
use crate::service::systemd::Systemd;

/// A limit that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Its key.
    pub limit: &'static str,
    /// Why.
    pub why: String,
}

/// What holds for a guest whose site says this: what is kept wins.
pub fn over(host: &dyn Host, paths: &Paths, guest: &GuestName, site: Limits) -> Result<Limits> {
    Ok(Kept::read(host, paths, guest)?.over(site))
}

/// What has to be done before the guest's hypervisor runs, by a process of root's that is in the guest's unit, or, where no
/// unit is, by the process that becomes the guest. The guest's disk must be nobody else's yet. What cannot be limited keeps
/// no guest from starting: [`started`] says so.
pub fn prepare(host: &dyn Host, paths: &Paths, spec: &Spec) -> Result<()> {
    let limits = over(host, paths, &spec.guest, spec.limits)?;
    let pid = std::process::id().cast_signed();
    if keeper(paths)? == Keeper::Nobody {
        say(enter(paths, spec, &limits, pid));
    }
    let writes = limits.disk_write_bytes.or(limits.disk_write_ops).is_some();
    let group = tree_with_controllers().and_then(|tree| own_group(&tree, paths, &spec.guest, pid));
    if let Some(group) = group.filter(|group| group.join("io.max").exists())
        && writes
        && !backend(&spec.engine).wants_tree()
    {
        say(writeback::claim(&spec.disk, &group).and_then(|claimed| {
            anyhow::ensure!(
                claimed,
                "the guest's writes are not on its own account yet, and not limited so long"
            );
            Ok(())
        }));
    }
    Ok(())
}

/// What can only be done when the guest's port is there and its process on record; by root. Says on stderr which limits do
/// not hold.
pub fn started(host: &dyn Host, paths: &Paths, spec: &Spec, run: &RunRecord) -> Result<()> {
    let limits = over(host, paths, &spec.guest, spec.limits)?;
    if limits.net_in_bytes.or(limits.net_out_bytes).is_some() {
        say(rate(host, spec, &limits));
    }
    match keeper(paths)? {
        // Its disk was not mounted before.
        Keeper::Nobody => say(again(paths, spec, &limits, run.pid)),
        Keeper::Unit => say(of_disk(paths, spec, &limits, run.pid)),
        Keeper::Systemd => {}
    }
    for ignored in ignored(paths, spec, &limits, run) {
        eprintln!("ignoring limit {}: {}", ignored.limit, ignored.why);
    }
    Ok(())
}

fn say(done: Result<()>) {
    if let Err(error) = done {
        eprintln!("ignoring: {error:#}");
    }
}

/// Makes these the limits of a running guest, at once.
pub fn apply(host: &dyn Host, paths: &Paths, spec: &Spec, run: &RunRecord, limits: &Limits) -> Result<()> {
    rate(host, spec, limits)?;
    match keeper(paths)? {
        Keeper::Unit => {
            to_unit(host, spec, limits)?;
            of_disk(paths, spec, limits, run.pid)
        }
        Keeper::Nobody => again(paths, spec, limits, run.pid),
        Keeper::Systemd => Ok(()),
    }
}

/// Those of the limits that do not hold for a running guest, by what its control group says.
pub fn ignored(paths: &Paths, spec: &Spec, limits: &Limits, run: &RunRecord) -> Vec<Ignored> {
    let tree = Tree::find().ok();
    let group = tree.as_ref().and_then(|tree| own_group(tree, paths, &spec.guest, run.pid));
    let found = group.as_deref().map(control::found).unwrap_or_default();
    let mut ignored = Vec::new();
    for (limit, wanted) in limits.iter() {
        let Some(controller) = control::controller(limit) else { continue };
        if found.get(limit).is_some_and(|is| same(limit, is, wanted)) {
            continue;
        }
        let has = tree.as_ref().is_some_and(|tree| tree.controllers().contains(&controller));
        let why = match (&group, found.get(limit), is_of_disk(limit).then(|| blockdev::below(&spec.disk))) {
            _ if !has => {
                format!("this host has no controller for '{controller}' (control groups, version 2)")
            }
            (None, ..) => "the guest was started without a control group of its own".to_owned(),
            (_, _, Some(Err(why))) => format!("{why:#}"),
            (_, Some(is), _) => format!("it is {} in the guest's control group", limit.show(is)),
            (_, None, _) => "the guest's control group does not have it".to_owned(),
        };
        ignored.push(Ignored { limit: limit.name(), why });
    }
    ignored
}

/// Memory that a running guest holds and cannot give back, in bytes, where its control group tells.
pub fn held_memory(paths: &Paths, run: &RunRecord, guest: &GuestName) -> Option<u64> {
    control::held(&own_group(&Tree::find().ok()?, paths, guest, run.pid)?)
}

/// Who has the control groups of a site's guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// Their units.
    Unit,
    /// systemd, but not for this site.
    Systemd,
    /// Nobody else.
    Nobody,
}

fn keeper(paths: &Paths) -> Result<Keeper> {
    Ok(match Systemd::for_site(paths)? {
        Some(_) => Keeper::Unit,
        None if Path::new("/run/systemd/system").is_dir() => Keeper::Systemd,
        None => Keeper::Nobody,
    })
}

fn rate(host: &dyn Host, spec: &Spec, limits: &Limits) -> Result<()> {
    let rates = Rates { to_guest: limits.net_in_bytes, from_guest: limits.net_out_bytes };
    spec.cards().iter().try_for_each(|card| host.set_rates(spec.netns.as_deref(), &card.tap, rates))
}

fn enter(paths: &Paths, spec: &Spec, limits: &Limits, pid: i32) -> Result<()> {
    let Some(tree) = tree_with_controllers() else { return Ok(()) };
    tree.enter(&paths.id(), spec.guest.as_str(), pid)?;
    set(&tree, paths, spec, limits, pid)
}

fn again(paths: &Paths, spec: &Spec, limits: &Limits, pid: i32) -> Result<()> {
    match tree_with_controllers() {
        Some(tree) if own_group(&tree, paths, &spec.guest, pid).is_some() => {
            set(&tree, paths, spec, limits, pid)
        }
        _ => Ok(()),
    }
}

fn tree_with_controllers() -> Option<Tree> {
    Tree::find().ok().filter(|tree| !tree.controllers().is_empty())
}

fn set(tree: &Tree, paths: &Paths, spec: &Spec, limits: &Limits, pid: i32) -> Result<()> {
    let device = loop_device(paths, spec, pid).or_else(|| blockdev::below(&spec.disk).ok());
    let settings = control::settings(limits, &tree.controllers(), device.as_slice());
    Tree::set(&tree.group(&paths.id(), spec.guest.as_str()), &settings)
}

/// What systemd does not do for a unit's disk. What a container reads and writes goes through the loop device that its disk is
/// mounted from, and only there can it be held up at once: below it are pages that whoever touched the file first answers
/// for. No unit can name it, because the kernel gives it out at launch; systemd leaves settings alone that are for devices
/// which it was not told of. It also leaves those that a unit has lost with its last line about the disk.
fn of_disk(paths: &Paths, spec: &Spec, limits: &Limits, pid: i32) -> Result<()> {
    let Some(group) = Tree::find().ok().and_then(|tree| own_group(&tree, paths, &spec.guest, pid)) else {
        return Ok(());
    };
    let lost = blockdev::below(&spec.disk).ok().filter(|device| control::limits_device(&group, *device));
    let devices = [loop_device(paths, spec, pid), lost].into_iter().flatten();
    let settings: Vec<_> = devices.map(|device| control::of_disk(limits, device)).collect();
    Tree::set(&group, &settings)
}

fn loop_device(paths: &Paths, spec: &Spec, pid: i32) -> Option<Device> {
    blockdev::mounted(pid, &paths.run_guest(&spec.guest).join(service::launch::TREE))
}

/// Units that the generator wrote are read anew, by which running ones change, too; others are told one setting after the
/// other. Settings that are told win over files until the next boot, so they are for want of something better.
fn to_unit(host: &dyn Host, spec: &Spec, limits: &Limits) -> Result<()> {
    let unit = generate::unit(&spec.guest);
    let generated = ["/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late"];
    for dir in generated {
        if host.list(Path::new(dir))?.iter().any(|entry| entry.starts_with(&unit)) {
            return host.run(&Program::new("systemctl").arg("daemon-reload")).map(drop);
        }
    }
    let program = Program::new("systemctl").args(["set-property", "--runtime", &unit]);
    host.run(&program.args(unit::properties(limits, &spec.disk))).map(drop)
}

fn own_group(tree: &Tree, paths: &Paths, guest: &GuestName, pid: i32) -> Option<PathBuf> {
    let (unit, own) = (generate::unit(guest), Path::new("gridgate").join(paths.id()).join(guest));
    tree.groups_of(pid).into_iter().find(|group| group.ends_with(&unit) || group.ends_with(&own))
}

fn is_of_disk(limit: Limit) -> bool {
    control::controller(limit) == Some("io")
}

/// The kernel counts memory in pages.
fn same(limit: Limit, is: u64, wanted: u64) -> bool {
    let page = rustix::param::page_size() as u64;
    is == wanted || (limit == Limit::Memory && is / page == wanted / page)
}

//! Desired and observed state of every guest. The fields are the ones of `gridgate status --json`: once shipped, a
//! field keeps its name and meaning.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use crate::backend::spec::Spec;
use crate::config::limits::Limits;
use crate::config::site::Site;
use crate::console::exit::marks::StopMark;
use crate::console::record::{ExitRecord, ReadyRecord, ReadyState, RunRecord};
use crate::console::restart::Restarts;
use crate::host::{Host, processes};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::profile::record::Compiled;
use crate::service::desired::{self, Desired};
use crate::service::limits::{self, Ignored};

/// The whole document.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Format.
    pub version: u32,
    /// Name of the site.
    pub site: String,
    /// In the site's order; then those that run and that the site does not name.
    pub guests: Vec<GuestStatus>,
}

/// One guest.
#[derive(Debug, Clone, Serialize)]
pub struct GuestStatus {
    /// Name.
    pub name: GuestName,
    /// Role; empty if the site does not name the guest.
    pub role: String,
    /// What was asked for last.
    pub desired: Desired,
    /// What is.
    pub observed: Observed,
    /// Whether it answers.
    pub ready: Readiness,
    /// What runs it (or would; empty if it was never brought up).
    pub backend: String,
    /// Its address.
    pub address: IpAddr,
    /// The process that runs it.
    pub pid: Option<i32>,
    /// Since its launch.
    pub uptime_ms: Option<u64>,
    /// From launch to ready.
    pub ready_after_ms: Option<u64>,
    /// What its processes hold, as the kernel counts it; pages that they share are counted once for each.
    pub memory_bytes: Option<u64>,
    /// Processor time that its processes have used.
    pub cpu_ms: Option<u64>,
    /// How much of the host it may use.
    pub limits: Limits,
    /// Those of them that do not hold, though it runs.
    pub limits_ignored: Vec<Ignored>,
    /// How its last run ended.
    pub last_exit: Option<ExitRecord>,
    /// Who is stopping it has come so far.
    pub stopping: Option<StopMark>,
    /// The signs of readiness that are missing.
    pub missing: Vec<String>,
    /// What it says of itself.
    pub says: Option<String>,
    /// Why its console's log cannot be written; none if it can.
    pub log_trouble: Option<String>,
    /// What is remembered of early deaths, and when it is tried again.
    pub restarts: Option<Restarts>,
    /// What was compiled into its disk last.
    pub profile: Option<Compiled>,
}

/// Whether a guest's process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// It is.
    Running,
    /// It is not.
    Stopped,
}

/// Whether a guest answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It does not run.
    No,
    /// It runs and has not answered yet.
    Waiting,
    /// It answers.
    Ready,
    /// It runs and did not answer in its time.
    Degraded,
}

impl Status {
    /// Whether every guest is as it was asked to be.
    pub fn as_desired(&self) -> bool {
        self.guests.iter().all(|guest| match guest.desired {
            Desired::Running => guest.ready == Readiness::Ready,
            Desired::Stopped => guest.observed == Observed::Stopped,
        })
    }
}

/// Looks at the guests of these names, or at all. A guest that runs but that the site does not name is shown after the
/// others; if the site names none at all, whatever is kept here is.
pub fn gather(host: &dyn Host, paths: &Paths, site: &Site, names: &[GuestName]) -> Result<Status> {
    let wanted = |name: &GuestName| names.is_empty() || names.contains(name);
    let mut used = Usage::default();
    let mut guests = Vec::new();
    for guest in site.guests.iter().filter(|guest| wanted(&guest.name)) {
        guests.push(look(host, paths, &guest.name, &guest.role, guest.address, guest.limits, &mut used)?);
    }
    for name in host.list(&paths.guests())? {
        let Ok(name) = name.parse::<GuestName>() else { continue };
        if site.guest(&name).is_some() || !wanted(&name) {
            continue;
        }
        let Some(spec) = Spec::read(host, paths, &name)? else { continue };
        let found = look(host, paths, &name, "", spec.address, spec.limits, &mut used)?;
        if found.observed == Observed::Running || site.guests.is_empty() || !names.is_empty() {
            guests.push(found);
        }
    }
    Ok(Status { version: 1, site: site.name.to_string(), guests })
}

fn look(
    host: &dyn Host,
    paths: &Paths,
    name: &GuestName,
    role: &str,
    address: IpAddr,
    wanted: Limits,
    used: &mut Usage,
) -> Result<GuestStatus> {
    let run = RunRecord::read(paths, name)?.filter(RunRecord::is_alive);
    let ready = ReadyRecord::read(paths, name)?.filter(|ready| {
        run.as_ref().is_some_and(|run| run.pid == ready.pid && run.start_ticks == ready.start_ticks)
    });
    let usage = run.as_ref().map(|run| used.of(run));
    let spec = Spec::read(host, paths, name)?;
    // A guest that runs has the limits that it was started with, or was told since.
    let said = spec.as_ref().filter(|_| run.is_some()).map_or(wanted, |spec| spec.limits);
    let held = limits::over(host, paths, name, said)?;
    let limits_ignored = match (&spec, &run) {
        (Some(spec), Some(run)) => limits::ignored(paths, spec, &held, run),
        _ => Vec::new(),
    };
    let missing = ready.iter().filter(|ready| ready.state != ReadyState::Ready);
    let missing = missing.flat_map(|ready| &ready.checks).filter(|check| check.at_ms.is_none());
    let restarts = Restarts::read(paths, name);
    let says = ready.as_ref().and_then(|ready| ready.said.clone());
    let mut profile = Compiled::recall(host, paths, name)?;
    if let Some(profile) = &mut profile {
        profile.look_again(&paths.disk(name));
    }
    let log_trouble = ready.as_ref().and_then(|ready| ready.log_trouble.clone());
    Ok(GuestStatus {
        name: name.clone(),
        role: role.to_owned(),
        desired: desired::read(host, paths, name)?,
        observed: if run.is_some() { Observed::Running } else { Observed::Stopped },
        ready: match (&run, ready.as_ref().map(|ready| ready.state)) {
            (None, _) => Readiness::No,
            (Some(_), Some(ReadyState::Ready)) => Readiness::Ready,
            (Some(_), Some(ReadyState::Degraded)) => Readiness::Degraded,
            (Some(_), Some(ReadyState::Waiting) | None) => Readiness::Waiting,
        },
        backend: match &run {
            Some(run) => run.backend.clone(),
            None => {
                spec.map(|spec| crate::backend::backend(&spec.engine).name().to_owned()).unwrap_or_default()
            }
        },
        address,
        pid: run.as_ref().map(|run| run.pid),
        uptime_ms: run.as_ref().map(|run| run.launched().elapsed().as_millis() as u64),
        ready_after_ms: ready
            .as_ref()
            .filter(|ready| ready.state == ReadyState::Ready)
            .map(|ready| ready.after_ms),
        memory_bytes: usage.map(|(memory, _)| memory),
        cpu_ms: usage.map(|(_, cpu)| cpu),
        limits: held,
        limits_ignored,
        last_exit: ExitRecord::latest(paths, name)?,
        stopping: run.as_ref().and_then(|run| StopMark::read(paths, name, run.launched_at_ms)),
        profile,
        missing: missing.map(|check| check.check.to_string()).collect(),
        says,
        log_trouble,
        restarts: (restarts != Restarts::default()).then_some(restarts),
    })
}

/// Memory and processor time of guests; the processes are looked at once for all of them.
#[derive(Default)]
struct Usage(Option<Vec<processes::Stat>>);

const MS_PER_TICK: u64 = 10;

impl Usage {
    fn of(&mut self, run: &RunRecord) -> (u64, u64) {
        let seen = self.0.get_or_insert_with(|| processes::all().collect());
        let family = processes::family(seen, run.pid);
        let pages = family.iter().map(|process| process.resident_pages);
        let pages = match run.backend.as_str() {
            "nspawn" => pages.sum(),
            // One process holds the guest's memory; a user-mode Linux has others, which map parts of the same.
            _ => pages.max().unwrap_or(0),
        };
        let cpu_ticks: u64 = family.iter().map(|process| process.cpu_ticks).sum();
        (pages * rustix::param::page_size() as u64, cpu_ticks * MS_PER_TICK)
    }
}

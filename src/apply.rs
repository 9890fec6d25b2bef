//! Walks a plan: what is independent goes on side by side; what fails is walked back as far as it can be, and what is
//! left is said.

pub mod gate;

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apply::gate::Gate;
use crate::config::site::{Guest, Site};
use crate::console::record::RunRecord;
use crate::host::Host;
use crate::identity::known_hosts;
use crate::identity::personalise::{self, Scrubbing};
use crate::names::GuestName;
use crate::network;
use crate::paths::Paths;
use crate::plan::{Action, Plan};
use crate::progress::Progress;
use crate::service::desired::{self, Desired};
use crate::service::ladder::{Rung, Stopped};
use crate::service::{Manager, Readiness};

/// All that walking a plan needs.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The host.
    pub host: &'a dyn Host,
    /// Who keeps guests up.
    pub manager: &'a dyn Manager,
    /// Where everything is.
    pub paths: &'a Paths,
    /// The site.
    pub site: &'a Site,
    /// Talk.
    pub progress: &'a Progress,
    /// The site's lock.
    pub gate: &'a Gate<'a>,
    /// How many steps may go on side by side.
    pub workers: usize,
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps done, in the order in which they ended.
    pub done: Vec<usize>,
    /// Steps that failed and why.
    pub failed: Vec<(usize, anyhow::Error)>,
    /// Steps that were walked back.
    pub undone: Vec<usize>,
    /// Walking back failed here.
    pub left: Vec<(usize, anyhow::Error)>,
    /// Guests that were started and are not ready in their time.
    pub not_ready: Vec<GuestName>,
    /// Guests that were stopped, and how.
    pub stopped: Vec<(GuestName, Stopped)>,
    /// Guests that were started and run.
    pub started: Vec<GuestName>,
}

impl Outcome {
    /// Whether everything was done.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty()
    }

    /// Whether, after a failure, the machine is as it was.
    pub fn all_undone(&self) -> bool {
        self.left.is_empty() && self.done.iter().all(|step| self.undone.contains(step))
    }
}

struct Walk {
    waiting: BTreeSet<usize>,
    running: usize,
    outcome: Outcome,
}

/// Does all steps of the plan. After a failure, nothing that depends on it is begun, what is independent goes on, and at the
/// end what belongs to the failed guests is walked back; the site's own things too, if no guest runs on them.
pub fn apply(machine: Machine<'_>, plan: &Plan) -> Outcome {
    let walk = Walk { waiting: (0..plan.steps.len()).collect(), running: 0, outcome: Outcome::default() };
    let (walk, changed) = (Mutex::new(walk), Condvar::new());
    std::thread::scope(|scope| {
        for _ in 0..machine.workers.clamp(1, plan.steps.len().max(1)) {
            scope.spawn(|| work(machine, plan, &walk, &changed));
        }
    });
    let mut outcome = walk.into_inner().unwrap_or_else(PoisonError::into_inner).outcome;
    if !outcome.is_good() {
        match machine.gate.enter() {
            Ok(_inside) => walk_back(machine, plan, &mut outcome),
            Err(error) => outcome.left.extend(outcome.done.first().map(|step| (*step, error))),
        }
    }
    outcome
}

fn work(machine: Machine<'_>, plan: &Plan, walk: &Mutex<Walk>, changed: &Condvar) {
    let mut at = walk.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let free = free(plan, &at);
        let Some(step) = free.filter(|_| !crate::progress::interrupted()) else {
            if at.running == 0 {
                if crate::progress::interrupted() && at.outcome.failed.is_empty() {
                    let first = at.waiting.iter().next().copied();
                    at.outcome
                        .failed
                        .extend(first.map(|step| (step, anyhow::anyhow!("interrupted before it began"))));
                }
                changed.notify_all();
                return;
            }
            at = changed.wait(at).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        at.waiting.remove(&step);
        at.running += 1;
        drop(at);
        let action = &plan.steps[step].action;
        machine.progress.detail(&action.to_string());
        let result = act(machine, action);
        at = walk.lock().unwrap_or_else(PoisonError::into_inner);
        at.running -= 1;
        match result {
            Ok(did) => {
                at.outcome.done.push(step);
                match (did, action.guest()) {
                    (Did::Stopped(how), Some(guest)) => at.outcome.stopped.push((guest.clone(), how)),
                    (Did::Started, Some(guest)) => at.outcome.started.push(guest.clone()),
                    (Did::NotReady, Some(guest)) => at.outcome.not_ready.push(guest.clone()),
                    _ => {}
                }
            }
            Err(error) => at.outcome.failed.push((step, error)),
        }
        changed.notify_all();
    }
}

/// A step that may be begun now, the first one of them.
fn free(plan: &Plan, at: &Walk) -> Option<usize> {
    let is_done = |step: &usize| at.outcome.done.contains(step);
    // Prerequisites have lower numbers, so that one pass finds all that will never have its turn.
    let mut lost: BTreeSet<usize> = at.outcome.failed.iter().map(|(step, _)| *step).collect();
    for step in &at.waiting {
        if plan.steps[*step].after.iter().any(|before| lost.contains(before)) {
            lost.insert(*step);
        }
    }
    let over = |step: &usize| is_done(step) || lost.contains(step);
    at.waiting.iter().copied().find(|step| {
        let step = &plan.steps[*step];
        step.after.iter().all(is_done) && step.behind.iter().all(over)
    })
}

enum Did {
    Something,
    Started,
    Stopped(Stopped),
    NotReady,
}

fn act(machine: Machine<'_>, action: &Action) -> Result<Did> {
    let Machine { host, manager, paths, site, progress, gate, .. } = machine;
    if let Action::Ready { guest } = action {
        gate.begin_to_wait();
        return await_ready(machine, named(site, guest)?);
    }
    let _inside = gate.enter()?;
    match action {
        Action::Network(step) => network::apply(host, paths, step)?,
        Action::Prepare => manager.prepare(host, site)?,
        Action::Clone { guest, from, size, .. } => {
            let what = || format!("making the disk of guest '{guest}'");
            host.make_dir(&paths.guest(guest), 0o700).with_context(what)?;
            host.clone_file(from, &paths.disk(guest), size.0, progress).with_context(what)?;
        }
        Action::KnownHosts => known_hosts::write(host, paths, site)?,
        Action::Personalise { guest } => {
            let done = personalise::disk(host, paths, site, named(site, guest)?, &Scrubbing::default())?;
            for note in &done.notes {
                progress.say(&format!("{guest}: note: {note}"));
            }
        }
        Action::Spec(spec) => spec.write(host, paths)?,
        Action::Start { guest, .. } => {
            desired::write(host, paths, guest, Desired::Running)?;
            // Another command may have been faster while this one waited for another guest.
            if !runs(paths, guest)? {
                nobody_else_has_address(machine, named(site, guest)?)?;
                manager.start(guest)?;
                progress.say(&format!("{guest}: started"));
            }
            return Ok(Did::Started);
        }
        // Above, since it is no change.
        Action::Ready { .. } => {}
        Action::Stop { guest } => {
            desired::write(host, paths, guest, Desired::Stopped)?;
            let mut tell = |rung: &str| progress.detail(&format!("{guest}: stopping: {rung}"));
            let stopped = manager.stop(guest, &mut tell)?;
            if stopped.rung != Rung::Already {
                progress.say(&format!("{guest}: {stopped}"));
            }
            return Ok(Did::Stopped(stopped));
        }
        Action::Purge { guest } => {
            host.remove(&paths.guest(guest))?;
            host.remove(&paths.run_guest(guest))?;
        }
        Action::Retire => {
            manager.retire()?;
            host.remove(&paths.run)?;
        }
    }
    Ok(Did::Something)
}

fn await_ready(machine: Machine<'_>, guest: &Guest) -> Result<Did> {
    let Machine { host, manager, paths, progress, gate, .. } = machine;
    match manager.await_ready(&guest.name, guest.ready_timeout) {
        Ok(Readiness::Ready { after }) => {
            let _inside = gate.enter()?;
            personalise::settle(host, paths, &guest.name)?;
            progress.say(&format!("{}: ready after {:.1} s", guest.name, after.as_secs_f64()));
            Ok(Did::Something)
        }
        Ok(Readiness::NotYet) => Ok(Did::NotReady),
        Err(_) if desired::read(host, paths, &guest.name)? == Desired::Stopped => {
            bail!("guest '{}' was stopped by another command while this one waited for it", guest.name)
        }
        Err(error) => Err(error),
    }
}

fn runs(paths: &Paths, guest: &GuestName) -> Result<bool> {
    Ok(RunRecord::read(paths, guest)?.is_some_and(|run| run.is_alive()))
}

/// On a network that others are on too, an address that somebody has is found before the guest takes it from him.
fn nobody_else_has_address(machine: Machine<'_>, guest: &Guest) -> Result<()> {
    /// For both questions and their answers; on one segment an answer takes under a millisecond.
    const LIMIT: Duration = Duration::from_millis(200);
    match network::probe_addresses(machine.host, machine.site, guest, LIMIT)? {
        Some((address, mac)) => bail!(
            "address {address} is in use: the machine with hardware address {mac} has it; hint: give guest '{}' another address",
            guest.name
        ),
        None => Ok(()),
    }
}

fn named<'a>(site: &'a Site, guest: &GuestName) -> Result<&'a Guest> {
    match site.guest(guest) {
        Some(guest) => Ok(guest),
        None => bail!("the site has no guest '{guest}'"),
    }
}

fn walk_back(machine: Machine<'_>, plan: &Plan, outcome: &mut Outcome) {
    let guests_run = !outcome.started.is_empty() || machine.manager.any_running();
    let steps: Vec<usize> = outcome.done.iter().rev().copied().collect();
    for step in steps {
        let action = &plan.steps[step].action;
        let undo = match action.guest() {
            // A guest that was started keeps what it runs on, and its console tells what happened.
            Some(guest) => !outcome.started.contains(guest),
            None => !guests_run,
        };
        if undo {
            match walk_step_back(machine, action) {
                Ok(true) => outcome.undone.push(step),
                Ok(false) => {}
                Err(error) => outcome.left.push((step, error)),
            }
        }
    }
    // Last, since it holds what undoing networks has to know. If it stays, the next command uses it.
    if !guests_run && outcome.all_undone() {
        let _ = machine.host.remove(&machine.paths.run);
    }
}

/// Whether the machine is as it was before the step; what was drawn or written for later counts as no change.
fn walk_step_back(machine: Machine<'_>, action: &Action) -> Result<bool> {
    let Machine { host, manager, paths, .. } = machine;
    match action {
        Action::Network(step) => network::undo(host, paths, step)?,
        Action::Prepare => manager.retire()?,
        Action::Clone { guest, .. } => {
            personalise::forget(host, paths, guest)?;
            host.remove(&paths.disk(guest))?;
        }
        Action::Personalise { .. } | Action::Spec(_) | Action::KnownHosts => {}
        Action::Start { .. }
        | Action::Ready { .. }
        | Action::Stop { .. }
        | Action::Purge { .. }
        | Action::Retire => {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod rehearsal;

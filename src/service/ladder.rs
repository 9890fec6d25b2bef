//! How a guest is stopped: one rung after the other, each with its own time, until its process is gone.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::backend::spec::Spec;
use crate::backend::{Backend, Order, Taken, Target, backend};
use crate::config::supervision::{StopRung, StopStep};
use crate::console::exit::marks::StopMark;
use crate::console::now_ms;
use crate::console::record::RunRecord;
use crate::host::processes;
use crate::paths::Paths;
use crate::service::{shell, still};

/// Which rung of the ladder worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// It was not running.
    Already,
    /// It shut itself down after a command of the site's.
    Command,
    /// It shut itself down when its agent was asked.
    Agent,
    /// It shut itself down when asked.
    Asked,
    /// It was gone when its kernel had written its filesystems back.
    Sysrq,
    /// Its hypervisor was told to end.
    Quit,
    /// It did not, in its time, and was killed; or that was what was wanted.
    Killed,
}

impl Rung {
    fn of(rung: &StopRung) -> Self {
        match rung {
            StopRung::Command(_) => Self::Command,
            StopRung::Agent => Self::Agent,
            StopRung::Ask => Self::Asked,
            StopRung::Sysrq => Self::Sysrq,
            StopRung::Quit => Self::Quit,
            StopRung::Kill => Self::Killed,
        }
    }
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// What worked.
    pub rung: Rung,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Stopped {
    /// For a guest that was not running.
    pub fn already() -> Self {
        Self { rung: Rung::Already, took_ms: 0 }
    }
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took_ms as f64 / 1000.0;
        match self.rung {
            Rung::Already => f.write_str("was not running"),
            Rung::Asked => write!(f, "shut itself down in {seconds:.1} s"),
            Rung::Command => write!(f, "shut itself down in {seconds:.1} s, after its command"),
            Rung::Agent => write!(f, "shut itself down in {seconds:.1} s, asked by its agent"),
            Rung::Sysrq => write!(f, "ended after {seconds:.1} s, its filesystems written back"),
            Rung::Quit => write!(f, "did not shut itself down; its hypervisor ended after {seconds:.1} s"),
            Rung::Killed => write!(f, "was killed after {seconds:.1} s"),
        }
    }
}

/// A guest in early boot, or one without a listener yet, misses a request: it is repeated this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Until the request could be handed over at all (the hypervisor's socket may not be there yet).
const HAND_OVER_AGAIN: Duration = Duration::from_millis(500);
/// For handing one order over; also bounded by the rung's own limit.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between writing back and mounting read-only, which a kernel does behind its caller's back.
const WRITE_BACK: Duration = Duration::from_secs(1);
/// For a guest whose connection was lost while it ran a command: it may be on its way down, or was never reached.
const CUT_OFF: Duration = Duration::from_secs(5);
/// The kernel needs this long at most to take a killed process apart.
const GRACE: Duration = Duration::from_secs(10);

/// Stops the guest that `record` tells of, by the ladder that it was started with. `progress` is told each rung as it is
/// come to: `ask, 60 s at most`. Who looks at the guest's status meanwhile sees it too.
pub fn stop(
    paths: &Paths,
    spec: &Spec,
    record: &RunRecord,
    progress: &mut dyn FnMut(&str),
) -> Result<Stopped> {
    climb(paths, spec, record, &spec.supervision.stop, progress)
}

/// Stops it as a power cut would.
pub fn kill(paths: &Paths, spec: &Spec, record: &RunRecord) -> Result<Stopped> {
    climb(paths, spec, record, &[], &mut |_| ())
}

fn climb(
    paths: &Paths,
    spec: &Spec,
    record: &RunRecord,
    steps: &[StopStep],
    progress: &mut dyn FnMut(&str),
) -> Result<Stopped> {
    let what = || format!("stopping guest '{}' (process {})", spec.guest, record.pid);
    let Some(process) = open(record).with_context(what)? else { return Ok(Stopped::already()) };
    // One that is held still hears nothing.
    let _ = still::let_go(paths, &spec.guest);
    let (started, began_ms) = (Instant::now(), now_ms());
    let mut ladder = Ladder { paths, spec, record, process, backend: backend(&spec.engine), asked: false };
    let kill = StopStep { rung: StopRung::Kill, limit: Duration::ZERO };
    // Whatever the file says, nothing comes after a kill, and nothing else ends a guest that hangs.
    let polite = steps.iter().take_while(|step| step.rung != StopRung::Kill);
    for step in polite.chain([&kill]) {
        ladder.mark(step, began_ms);
        let last = step.rung == StopRung::Kill;
        progress(&match last {
            true => "kill".to_owned(),
            false => format!("{}, {:.0} s at most", step.rung.name(), step.limit.as_secs_f64().ceil()),
        });
        if ladder.step(step).with_context(what)? {
            // User-mode Linux has a process for each of the guest's, and they outlive a killed kernel. The launcher made the
            // session, so that nothing else is in it.
            processes::end(record.pid, &[]);
            let rung = Rung::of(&step.rung);
            return Ok(Stopped { rung, took_ms: started.elapsed().as_millis() as u64 });
        }
    }
    bail!("{}: it does not end although it was killed; it may wait for a disk", what());
}

struct Ladder<'a> {
    paths: &'a Paths,
    spec: &'a Spec,
    record: &'a RunRecord,
    process: OwnedFd,
    backend: &'static dyn Backend,
    /// It has heard a request that must not be repeated.
    asked: bool,
}

impl Ladder<'_> {
    fn mark(&self, step: &StopStep, began_ms: u64) {
        let limit_ms = u64::try_from(step.limit.as_millis()).unwrap_or(u64::MAX);
        let mark = StopMark {
            launched_at_ms: self.record.launched_at_ms,
            began_ms,
            rung: step.rung.name().to_owned(),
            until_ms: if limit_ms == 0 { 0 } else { now_ms().saturating_add(limit_ms) },
        };
        // A guest can be stopped although nobody will know who did it.
        let _ = mark.write(self.paths, &self.spec.guest);
    }

    /// One rung; whether the guest is gone.
    fn step(&mut self, step: &StopStep) -> Result<bool> {
        let until = Instant::now() + step.limit;
        match &step.rung {
            StopRung::Command(line) => {
                match self.command(line, until) {
                    Some(0) => self.gone_by(until),
                    // A guest that goes down ends the connection, too.
                    Some(shell::CUT_OFF) => self.gone_by(until.min(Instant::now() + CUT_OFF)),
                    _ => self.gone_by(Instant::now()),
                }
            }
            StopRung::Agent => match self.order(Order::Agent, until) {
                Ok(Taken::Yes) => self.gone_by(until),
                // There is none, or none that hears: the next rung asks in another way.
                _ => self.gone_by(Instant::now()),
            },
            StopRung::Ask => self.ask(until),
            StopRung::Sysrq => {
                if !matches!(self.order(Order::Sync, until), Ok(Taken::Yes)) {
                    return self.gone_by(Instant::now());
                }
                if self.gone_by(until.min(Instant::now() + WRITE_BACK))? {
                    return Ok(true);
                }
                let _ = self.order(Order::Remount, until);
                self.gone_by(until.min(Instant::now() + WRITE_BACK))
            }
            StopRung::Quit => match self.order(Order::Quit, until) {
                Ok(Taken::Yes) => self.gone_by(until),
                _ => self.gone_by(Instant::now()),
            },
            StopRung::Kill => {
                // The first process of a container outlives systemd-nspawn.
                let children = match self.backend.wants_tree() {
                    true => processes::children(self.record.pid),
                    false => Vec::new(),
                };
                match rustix::process::pidfd_send_signal(&self.process, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => return Err(e.into()),
                }
                processes::end(self.record.pid, &children);
                self.gone_by(Instant::now() + GRACE)
            }
        }
    }

    fn ask(&mut self, until: Instant) -> Result<bool> {
        while Instant::now() < until {
            let mut again = ASK_AGAIN;
            if !(self.asked && self.backend.asks_once()) {
                match self.order(Order::Ask, until) {
                    Ok(_) => self.asked = true,
                    // Not up far enough, hung, or gone meanwhile: the wait below tells which.
                    Err(_) => again = HAND_OVER_AGAIN,
                }
            }
            if self.gone_by(until.min(Instant::now() + again))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs the command in the guest, and gives back its status.
    fn command(&self, line: &str, until: Instant) -> Option<i32> {
        match shell::run(self.paths, self.spec, line, until, || {
            self.gone_by(Instant::now() + SLICE).unwrap_or(false)
        }) {
            Ok(status) => status,
            Err(error) => {
                eprintln!("guest '{}': ignoring: {error:#}", self.spec.guest);
                None
            }
        }
    }

    fn order(&self, order: Order, until: Instant) -> Result<Taken> {
        let left = until.saturating_duration_since(Instant::now());
        let run_dir = self.paths.run_guest(&self.spec.guest);
        let patience = left.clamp(Duration::from_millis(10), PATIENCE);
        let target = Target { spec: self.spec, run_dir: &run_dir, pid: self.record.pid, patience };
        self.backend.order(order, &target)
    }

    fn gone_by(&self, until: Instant) -> Result<bool> {
        ended_by(&self.process, until)
    }
}

/// How often it is looked whether a command is still needed.
const SLICE: Duration = Duration::from_millis(100);

/// The process as a descriptor, if it still is the one of the record.
fn open(record: &RunRecord) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(None) };
    let process = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // The number may have come round to another process before it was opened; after this look it cannot.
    Ok(record.is_alive().then_some(process))
}

fn ended_by(process: &OwnedFd, until: Instant) -> Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut poll = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

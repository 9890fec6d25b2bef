//! How a guest is stopped: asked, asked again, and at the end of its time killed.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::backend::backend;
use crate::backend::spec::{Engine, Spec};
use crate::console::record::RunRecord;
use crate::paths::Paths;

/// Which rung of the ladder worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// It was not running.
    Already,
    /// It shut itself down when asked.
    Asked,
    /// It did not, in its time, and was killed; or that was what was wanted.
    Killed,
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
            Rung::Killed => write!(f, "was killed after {seconds:.1} s"),
        }
    }
}

/// A guest in early boot, or one without a listener yet, misses a request: it is repeated this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Until the request could be handed over at all (the hypervisor's socket may not be there yet).
const HAND_OVER_AGAIN: Duration = Duration::from_millis(500);
/// The kernel needs this long at most to take a killed process apart.
const GRACE: Duration = Duration::from_secs(10);

/// Stops the guest that `record` tells of; `limit` is for the polite part, and zero means a power cut.
pub fn stop(paths: &Paths, spec: &Spec, record: &RunRecord, limit: Duration) -> Result<Stopped> {
    let started = Instant::now();
    let done = |rung| Stopped { rung, took_ms: started.elapsed().as_millis() as u64 };
    let what = || format!("stopping guest '{}' (process {})", spec.guest, record.pid);
    let Some(process) = open(record).with_context(what)? else { return Ok(Stopped::already()) };
    let run_dir = paths.run_guest(&spec.guest);
    let backend = backend(&spec.engine);
    let only_once = matches!(spec.engine, Engine::Nspawn);
    let mut heard = false;
    while started.elapsed() < limit {
        let mut again = ASK_AGAIN;
        if !(heard && only_once) {
            match backend.ask_to_stop(spec, &run_dir, record.pid) {
                Ok(()) => heard = true,
                // Not up far enough, hung, or gone meanwhile: the wait below tells which.
                Err(_) => again = HAND_OVER_AGAIN,
            }
        }
        if ended_within(&process, again.min(limit.saturating_sub(started.elapsed()))).with_context(what)? {
            sweep(record.pid);
            return Ok(done(Rung::Asked));
        }
    }
    match rustix::process::pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => return Err(e).with_context(what),
    }
    sweep(record.pid);
    if !ended_within(&process, GRACE).with_context(what)? {
        anyhow::bail!("{}: it does not end although it was killed; it may wait for a disk", what());
    }
    Ok(done(Rung::Killed))
}

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

fn ended_within(process: &OwnedFd, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
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

/// Ends what is left of the guest's session: user-mode Linux has a process for each of the guest's, and they outlive a
/// killed kernel. The launcher made the session, so that nothing else is in it.
fn sweep(session: i32) {
    for pid in crate::host::processes::in_session(session) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

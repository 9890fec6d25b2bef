//! The end of a guest: who ended it and how, from all that can be known of it.

pub mod marks;

use std::os::fd::AsFd;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::console::record::{ReadyRecord, RunRecord, boot_id, read_json, write_json};
use crate::console::{logread, now_ms};
use crate::host::processes;
use crate::names::GuestName;
use crate::paths::Paths;
use marks::{EndHint, Hint, StopMark};

/// What ended a guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// It ended by itself; the code is its status.
    Exit,
    /// A signal; the code is its number.
    Signal,
    /// Seen by a process that may not know (not its parent).
    Unknown,
}

/// Who ended a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// It shut itself down.
    Guest,
    /// It was asked to by gridgate, or killed by it; the rung says how.
    Host,
    /// Its kernel panicked.
    Panic,
    /// Its hypervisor was killed by somebody else, or failed.
    Killed,
    /// The host went down without stopping it.
    PowerCut,
    /// Nobody was there to see it.
    #[default]
    Unknown,
}

impl EndedBy {
    /// As in `status --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Panic => "panic",
            Self::Killed => "killed",
            Self::PowerCut => "power-cut",
            Self::Unknown => "unknown",
        }
    }
}

/// `last-exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What ended it.
    pub cause: Cause,
    /// Exit status or signal.
    pub code: Option<i32>,
    /// The boot that ended, as the console's log counts; 0 if nothing was ever logged.
    pub boot: u32,
    /// The end of its console, without escape sequences: at most 20 lines, none empty, the newest last. If its kernel
    /// panicked the last one says why, and not the stack that the kernel prints after it.
    pub last_lines: Vec<String>,
    /// Who ended it.
    #[serde(default)]
    pub by: EndedBy,
    /// If it was the host: the rung of the ladder that worked, as in the site's files.
    #[serde(default)]
    pub rung: Option<String>,
    /// How long the ladder took then.
    #[serde(default)]
    pub stop_took_ms: Option<u64>,
    /// When the life that ended was launched, in milliseconds since 1970; 0 if that is not known.
    #[serde(default)]
    pub launched_at_ms: u64,
    /// When it first was ready; none if it never was.
    #[serde(default)]
    pub ready_at_ms: Option<u64>,
    /// It could not be started at all: the last lines are those of its launcher.
    #[serde(default)]
    pub start_failed: bool,
}

impl ExitRecord {
    /// One that knows little.
    pub fn bare(at_ms: u64, cause: Cause, code: Option<i32>, boot: u32) -> Self {
        Self {
            at_ms,
            cause,
            code,
            boot,
            last_lines: Vec::new(),
            by: EndedBy::Unknown,
            rung: None,
            stop_took_ms: None,
            launched_at_ms: 0,
            ready_at_ms: None,
            start_failed: false,
        }
    }

    /// The guest's record; `None` if it never ended.
    pub fn read(paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        read_json(&paths.last_exit(guest))
    }

    /// As [`ExitRecord::read`], and a life that the host's own end cut short has ended too, although nobody could write
    /// that down.
    pub fn latest(paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        match cut_short(paths, guest)? {
            Some(cut) => Ok(Some(cut)),
            None => Self::read(paths, guest),
        }
    }

    /// What the process said by its end: `exit 1`, `signal 9`, `ended`.
    pub fn told(&self) -> String {
        told(self.cause, self.code)
    }

    /// Why, in a few words: `panic: VFS: Unable to mount root fs`, `signal 9`, `power cut`.
    pub fn why(&self) -> String {
        match self.by {
            _ if self.start_failed => match self.last_lines.last() {
                Some(said) => said.clone(),
                None => self.told(),
            },
            EndedBy::Panic => match self.panic() {
                Some(said) => format!("panic: {said}"),
                None => "panic".to_owned(),
            },
            EndedBy::PowerCut => "power cut".to_owned(),
            _ => self.told(),
        }
    }

    /// Who ended it and how, as a person would say it.
    pub fn how(&self) -> String {
        let took = self.stop_took_ms.unwrap_or(0) as f64 / 1000.0;
        match (self.by, self.cause, self.code) {
            _ if self.start_failed => format!("it could not be started: {}", self.why()),
            (EndedBy::Guest, ..) => "it shut itself down".to_owned(),
            (EndedBy::Host, ..) => match self.rung.as_deref().unwrap_or("kill") {
                "kill" => format!("killed after {took:.1} s"),
                "quit" => format!("its hypervisor was told to end, after {took:.1} s"),
                "ask" => format!("asked: it shut itself down in {took:.1} s"),
                rung => format!("asked by {rung}: it shut itself down in {took:.1} s"),
            },
            (EndedBy::Panic, ..) => match self.panic() {
                Some(said) => format!("its kernel panicked: {said}"),
                None => "its kernel panicked".to_owned(),
            },
            (EndedBy::Killed, Cause::Signal, Some(signal)) => {
                format!("its hypervisor was killed by signal {signal}")
            }
            (EndedBy::Killed, Cause::Exit, Some(0)) => "its hypervisor was told to end".to_owned(),
            (EndedBy::Killed, Cause::Exit, Some(code)) => format!("its hypervisor failed with status {code}"),
            (EndedBy::Killed, ..) => "its hypervisor was killed".to_owned(),
            (EndedBy::PowerCut, ..) => "the host went down without stopping it".to_owned(),
            (EndedBy::Unknown, ..) => format!("nobody saw how: {}", self.told()),
        }
    }

    fn panic(&self) -> Option<&str> {
        self.last_lines.iter().rev().find_map(|line| panic_of(line)).filter(|said| !said.is_empty())
    }
}

/// As a person would say it.
pub(super) fn told(cause: Cause, code: Option<i32>) -> String {
    match (cause, code) {
        (Cause::Exit, Some(code)) => format!("exit {code}"),
        (Cause::Signal, Some(code)) => format!("signal {code}"),
        _ => "ended".to_owned(),
    }
}

/// What a line of a console says of a kernel's panic, if it does.
pub fn panic_of(line: &str) -> Option<&str> {
    let (_, said) = line.split_once("Kernel panic - not syncing")?;
    Some(said.trim_start_matches(':').trim())
}

const LAST_LINES: usize = 20;
/// A panic's stack has about thirty lines; a machine with many processors prints more of them.
const LINES_WITH_STACK: usize = 200;

fn telling(mut lines: Vec<String>) -> Vec<String> {
    if let Some(panic) = lines.iter().position(|line| panic_of(line).is_some()) {
        lines.truncate(panic + 1);
    }
    lines.split_off(lines.len().saturating_sub(LAST_LINES))
}

/// The last words of a guest's newest boot, and the boot's number.
fn last_words(paths: &Paths, guest: &GuestName) -> (u32, Vec<String>) {
    let dir = paths.console(guest);
    let boot = logread::resolve(&dir, 0).unwrap_or(0);
    (boot, telling(logread::last_lines(&dir, boot, LINES_WITH_STACK)))
}

/// Writes down the end of the life that was launched at the given time, and gives back what now stands there. The holder
/// calls it when it sees the end, and a service manager's stop hook when it is told the cause, in either order: what one
/// of them knew is not forgotten when the other knows less.
pub fn write_exit(
    paths: &Paths,
    guest: &GuestName,
    launched_at_ms: u64,
    cause: Cause,
    code: Option<i32>,
) -> Result<ExitRecord> {
    let known = ExitRecord::read(paths, guest)?.filter(|known| known.launched_at_ms == launched_at_ms);
    let (cause, code) = match &known {
        Some(known) if cause == Cause::Unknown => (known.cause, known.code),
        _ => (cause, code),
    };
    let (boot, last_lines) = match &known {
        Some(known) => (known.boot, known.last_lines.clone()),
        None => last_words(paths, guest),
    };
    let at_ms = known.as_ref().map_or_else(now_ms, |known| known.at_ms);
    let run = last_run(paths, guest).filter(|run| run.launched_at_ms == launched_at_ms);
    let stop = StopMark::read(paths, guest, launched_at_ms);
    let seen = Seen {
        backend: run.as_ref().map_or("", |run| &run.backend),
        cause,
        code,
        hint: EndHint::read(paths, guest, launched_at_ms),
        stopping: stop.is_some(),
        other_boot: run.as_ref().is_some_and(|run| boot_id().is_ok_and(|now| now != run.boot_id)),
        last_lines: &last_lines,
    };
    let by = match (seen.by(), &known) {
        (EndedBy::Unknown, Some(known)) => known.by,
        (by, _) => by,
    };
    let ready = ReadyRecord::read(paths, guest).ok().flatten();
    let ready = ready.filter(|r| run.as_ref().is_some_and(|run| run.start_ticks == r.start_ticks));
    let ready_at_ms = ready.and_then(|r| r.ready_at_ms).or(known.and_then(|known| known.ready_at_ms));
    let stop_took_ms = stop.as_ref().map(|stop| at_ms.saturating_sub(stop.began_ms));
    let rung = stop.map(|stop| stop.rung);
    let record = ExitRecord {
        at_ms,
        cause,
        code,
        boot,
        last_lines,
        by,
        rung,
        stop_took_ms,
        launched_at_ms,
        ready_at_ms,
        start_failed: false,
    };
    write_json(&paths.last_exit(guest), &record)?;
    Ok(record)
}

/// Writes down that the guest could not be started, and what its launcher said last.
pub fn write_failed_start(
    paths: &Paths,
    guest: &GuestName,
    cause: Cause,
    code: Option<i32>,
    said: Vec<String>,
) -> Result<ExitRecord> {
    let (now, boot) = (now_ms(), logread::resolve(&paths.console(guest), 0).unwrap_or(0));
    let record = ExitRecord {
        last_lines: said,
        by: EndedBy::Killed,
        launched_at_ms: now,
        start_failed: true,
        ..ExitRecord::bare(now, cause, code, boot)
    };
    write_json(&paths.last_exit(guest), &record)?;
    Ok(record)
}

/// As [`write_exit`], for a service manager's stop hook, which is told how the process ended, but not which life that
/// was; also for a launcher that never became a guest.
pub fn ended(paths: &Paths, guest: &GuestName, cause: Cause, code: Option<i32>) -> Result<ExitRecord> {
    let told = ExitRecord::read(paths, guest)?.filter(|exit| exit.cause != Cause::Unknown);
    let run = last_run(paths, guest);
    let run = run.filter(|run| told.is_none_or(|told| told.launched_at_ms != run.launched_at_ms));
    write_exit(paths, guest, run.map_or_else(now_ms, |run| run.launched_at_ms), cause, code)
}

/// When the guest's newest life was launched, in milliseconds since 1970; now, if there is none on record.
pub fn last_launch(paths: &Paths, guest: &GuestName) -> u64 {
    last_run(paths, guest).map_or_else(now_ms, |run| run.launched_at_ms)
}

fn last_run(paths: &Paths, guest: &GuestName) -> Option<RunRecord> {
    read_json(&paths.last_run(guest)).ok().flatten()
}

/// The end of a life that began before the host's last boot and whose end nobody wrote down.
fn cut_short(paths: &Paths, guest: &GuestName) -> Result<Option<ExitRecord>> {
    let Some(run) = last_run(paths, guest) else { return Ok(None) };
    let told = ExitRecord::read(paths, guest)?.is_some_and(|exit| exit.launched_at_ms == run.launched_at_ms);
    if told || boot_id()? == run.boot_id {
        return Ok(None);
    }
    let (boot, last_lines) = last_words(paths, guest);
    let newest = logread::segments(&paths.console(guest)).pop();
    let written =
        newest.and_then(|segment| segment.path(&paths.console(guest)).metadata().ok()?.modified().ok());
    let since = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let at_ms = since.map_or(run.launched_at_ms, |d| d.as_millis() as u64).max(run.launched_at_ms);
    Ok(Some(ExitRecord {
        last_lines,
        by: EndedBy::PowerCut,
        launched_at_ms: run.launched_at_ms,
        ..ExitRecord::bare(at_ms, Cause::Unknown, None, boot)
    }))
}

/// To be called before the next life is written down: writes down how the host's own end cut the last one short, if it did.
pub(super) fn note_power_cut(paths: &Paths, guest: &GuestName) -> Result<()> {
    match cut_short(paths, guest)? {
        Some(cut) => write_json(&paths.last_exit(guest), &cut),
        None => Ok(()),
    }
}

/// How a process ended that this one is not the parent of, as far as the kernel and the hypervisor's own log tell.
pub fn of_stranger(
    paths: &Paths,
    guest: &GuestName,
    backend: &str,
    pidfd: impl AsFd,
) -> (Cause, Option<i32>) {
    match processes::exit_status(pidfd) {
        Some(status) if libc_signal(status) != 0 => (Cause::Signal, Some(libc_signal(status))),
        Some(status) => (Cause::Exit, Some((status >> 8) & 0xff)),
        None if backend == "nspawn" => said_by_launcher(paths, guest),
        None => (Cause::Unknown, None),
    }
}

/// How systemd-nspawn ended by its own account, where no service manager keeps that.
pub fn said_by_launcher(paths: &Paths, guest: &GuestName) -> (Cause, Option<i32>) {
    let said = std::fs::read(paths.launch_log(guest)).unwrap_or_default();
    said_by_nspawn(&String::from_utf8_lossy(&said))
}

/// The low bits of a wait status (wait(2)); the core dump flag left out.
fn libc_signal(status: i32) -> i32 {
    status & 0x7f
}

/// The exit status that systemd-nspawn's last words announce.
fn said_by_nspawn(said: &str) -> (Cause, Option<i32>) {
    let last = said.lines().rev().find(|line| line.starts_with("Container "));
    match last {
        Some(line) if line.ends_with("is being rebooted.") => (Cause::Exit, Some(133)),
        Some(line) if line.ends_with("has been shut down.") => (Cause::Exit, Some(0)),
        _ => (Cause::Unknown, None),
    }
}

/// All that can be known of an end.
struct Seen<'a> {
    backend: &'a str,
    cause: Cause,
    code: Option<i32>,
    hint: Option<Hint>,
    stopping: bool,
    other_boot: bool,
    last_lines: &'a [String],
}

impl Seen<'_> {
    fn by(&self) -> EndedBy {
        let last = self.last_lines.last().map_or("", String::as_str);
        let panicked = panic_of(last).is_some();
        match (&self.hint, self.cause, self.code) {
            _ if self.stopping => EndedBy::Host,
            (Some(Hint::Panic { .. }), ..) => EndedBy::Panic,
            _ if self.other_boot => EndedBy::PowerCut,
            (Some(Hint::Shutdown), ..) => EndedBy::Guest,
            (Some(Hint::Quit), ..) => EndedBy::Killed,
            (None, Cause::Exit, Some(0)) => EndedBy::Guest,
            // abort(3) is what a user-mode Linux does after its panic.
            (None, Cause::Signal, Some(6)) if self.backend == "uml" => EndedBy::Panic,
            (None, Cause::Exit | Cause::Unknown, _) if panicked => EndedBy::Panic,
            (None, Cause::Exit | Cause::Signal, _) => EndedBy::Killed,
            // The kernel's own farewell.
            (None, Cause::Unknown, _) if last.contains("reboot: Power down") => EndedBy::Guest,
            (None, Cause::Unknown, _) if last.contains("reboot: System halted") => EndedBy::Guest,
            (None, Cause::Unknown, _) => EndedBy::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;

//! Guests that are held still for a moment, and that nobody forgets.
//!
//! ```text
//!   hold:     guard started (opens its grip, says ready) -> mark -> the guest is held
//!   release:  the guest goes on -> mark gone -> guard told, and gone
//! ```
//!
//! The guard is a process of its own that does nothing but wait: when whoever holds the guest has ended, however that came, or
//! when the time is over, it lets the guest go on. If both were killed, the mark tells the next command that changes
//! something, `gridgate gc`, and whoever stops the guest.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::backend::Target;
use crate::backend::spec::Spec;
use crate::backend::still::{Grip, Way};
use crate::console::now_ms;
use crate::console::record::{RunRecord, read_json, write_json};
use crate::host::Live;
use crate::host::files::Files;
use crate::host::programs::Program;
use crate::host::temporary::Maker;
use crate::names::GuestName;
use crate::paths::Paths;
use crate::service::launch::TREE;
use crate::service::systemd::Systemd;

/// Somebody holds the guest (`still.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Which run of the guest.
    launched_at_ms: u64,
    /// How.
    way: Way,
    /// Who, as in the name of what is half made.
    by: String,
    /// Milliseconds since 1970 after which it is too long.
    until_ms: u64,
}

/// A guest that is held. Dropping it lets the guest go on, as does the end of this process.
#[derive(Debug)]
pub struct Held {
    paths: Paths,
    guest: GuestName,
    grip: Grip,
    mark: Mark,
    since: Instant,
    guard: Child,
    over: bool,
}

/// How a guest was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    /// How.
    pub way: Way,
    /// From the first moment in which it may have been held to the last one.
    pub paused: Duration,
}

/// What a guard says when it has its grip.
const READY: &str = "ready";
/// A hypervisor that is busy takes orders a moment later.
const AGAIN: Duration = Duration::from_millis(200);
const TRIES: usize = 50;

fn grip(paths: &Paths, spec: &Spec, record: &RunRecord) -> Result<Grip> {
    let run_dir = paths.run_guest(&spec.guest);
    let target = Target { spec, run_dir: &run_dir, pid: record.pid, patience: Duration::from_secs(2) };
    Grip::on(&target, run_dir.join(TREE))
}

/// Has a guest write out what it can, without holding it.
pub fn write_out(paths: &Paths, spec: &Spec, record: &RunRecord) -> Result<()> {
    grip(paths, spec, record)?.write_out()
}

/// A guest that is about to be held: all is ready that takes time.
#[derive(Debug)]
pub struct Ready {
    held: Held,
    ways: Vec<Way>,
}

impl Ready {
    /// Gets ready to hold a guest until so long from now at most.
    pub fn to_hold(paths: &Paths, spec: &Spec, record: &RunRecord, limit: Duration) -> Result<Self> {
        let what = || format!("holding guest '{}'", spec.guest);
        let grip = grip(paths, spec, record).with_context(what)?;
        let ways = grip.ways().with_context(what)?;
        let way = *ways.first().with_context(what)?;
        let guard = guard_of(paths, &spec.guest, limit).with_context(what)?;
        let until_ms = now_ms().saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let by = Maker::this().name("still");
        let mark = Mark { launched_at_ms: record.launched_at_ms, way, by, until_ms };
        let (paths, guest) = (paths.clone(), spec.guest.clone());
        let held = Held { paths, guest, grip, mark, since: Instant::now(), guard, over: true };
        Ok(Self { held, ways })
    }

    /// Holds it.
    pub fn hold(self) -> Result<Held> {
        let Self { mut held, ways } = self;
        let guest = held.guest.clone();
        let what = || format!("holding guest '{guest}'");
        let mut failed = None;
        for way in ways {
            if failed.is_some() {
                held.grip.release(held.mark.way).with_context(what)?;
            }
            held.mark.way = way;
            // From here on dropping it releases the guest, whatever has come of holding it.
            held.over = false;
            write_json(&held.paths.still_mark(&held.guest), &held.mark).with_context(what)?;
            held.since = Instant::now();
            match held.grip.hold(way) {
                Ok(()) => return Ok(held),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| anyhow!("there is no way"))).with_context(what)
    }
}

impl Held {
    /// Lets the guest go on. An error says that it has not been still all the time since it was held, or that it could not be
    /// told.
    pub fn release(mut self) -> Result<Was> {
        let what = || format!("letting guest '{}' go on", self.guest);
        let path = self.paths.still_mark(&self.guest);
        let still = read_json::<Mark>(&path)?.as_ref() == Some(&self.mark);
        self.grip.release(self.mark.way).with_context(what)?;
        let was = Was { way: self.mark.way, paused: self.since.elapsed() };
        Live.remove(&path)?;
        self.over = true;
        match still {
            true => Ok(was),
            false => bail!("guest '{}' went on before its disk was copied: that took too long", self.guest),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nothing to do for one that was never held.
        if !self.over && self.grip.release(self.mark.way).is_ok() {
            // What cannot be removed tells the guard, which tries longer.
            let _ = Live.remove(&self.paths.still_mark(&self.guest));
        }
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Under systemd the guard is a unit of its own: whoever ends all of another one's processes at once, as systemd does with one
/// that has no memory left, does not end it.
fn guard_of(paths: &Paths, guest: &GuestName, limit: Duration) -> Result<Child> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    if Systemd::for_site(paths)?.is_some() {
        let mut apart = Program::new("systemd-run").args(["--quiet", "--collect", "--pipe"]).command();
        apart.arg(format!("--description=Guard of guest {guest}")).arg("--").arg(&own);
        if let Ok(guard) = ready_guard(apart, paths, guest, limit) {
            return Ok(guard);
        }
    }
    ready_guard(Command::new(own), paths, guest, limit)
}

fn ready_guard(mut command: Command, paths: &Paths, guest: &GuestName, limit: Duration) -> Result<Child> {
    command.arg("--site").arg(&paths.site).arg("--state").arg(&paths.state);
    command.args(["guard", guest.as_str(), "--limit", &format!("{}ms", limit.as_millis())]);
    // What is for the terminal's processes, such as Ctrl-C, is not for it.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut guard = command.spawn().context("starting its guard")?;
    let mut line = String::new();
    let said = guard.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    if !matches!(said, Some(Ok(_))) || line.trim() != READY {
        let _ = guard.kill();
        let _ = guard.wait();
        bail!("its guard does not start");
    }
    Ok(guard)
}

/// What the guard does: waits for the end of its standard input, and then has the guest go on if it is still held.
pub fn guard(paths: &Paths, guest: &GuestName, limit: Duration) -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    // Whoever ends a whole group of processes politely ends the one that holds the guest, and this one sees that.
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().context("closing its ears")?;
    let until = Instant::now() + limit;
    let (record, spec) = (RunRecord::read(paths, guest)?, Spec::read(&Live, paths, guest)?);
    let (Some(record), Some(spec)) = (record, spec) else { bail!("guest '{guest}' does not run") };
    let grip = grip(paths, &spec, &record)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{READY}").and_then(|()| out.flush()).context("saying that it is ready")?;
    let stdin = std::io::stdin();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let span = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        // Nothing ever comes but the end.
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&span)) {
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    let path = paths.still_mark(guest);
    let mut last = Ok(());
    for _ in 0..TRIES {
        let Some(mark) = read_json::<Mark>(&path)? else { return Ok(()) };
        if mark.launched_at_ms != record.launched_at_ms {
            return Ok(());
        }
        last = grip.release(mark.way);
        if last.is_ok() || !record.is_alive() {
            return Live.remove(&path);
        }
        std::thread::sleep(AGAIN);
    }
    last
}

/// Has guests go on that nobody holds any more: whoever did has been killed, with the guard, or takes too long. Guests that
/// went on. One that cannot be told is told of: it must not keep anybody from ending it.
pub fn recover(paths: &Paths) -> Result<Vec<GuestName>> {
    let mut found = Vec::new();
    for name in Live.list(&paths.run.join("guests"))? {
        let Ok(guest) = name.parse::<GuestName>() else { continue };
        let Some(mark) = read_json::<Mark>(&paths.still_mark(&guest))? else { continue };
        let held = Maker::of(&mark.by).is_some_and(|(_, by)| by.is_alive()) && now_ms() < mark.until_ms;
        match if held { Ok(false) } else { let_go(paths, &guest) } {
            Ok(true) => found.push(guest),
            Ok(false) => {}
            Err(error) => eprintln!("ignoring that guest '{guest}' is held still: {error:#}"),
        }
    }
    Ok(found)
}

/// Has a guest go on, whoever holds it: it is to do something else now. Whether it was held.
pub fn let_go(paths: &Paths, guest: &GuestName) -> Result<bool> {
    let path = paths.still_mark(guest);
    let Some(mark) = read_json::<Mark>(&path)? else { return Ok(false) };
    let record = RunRecord::read(paths, guest)?.filter(RunRecord::is_alive);
    if let (Some(record), Some(spec)) = (record, Spec::read(&Live, paths, guest)?)
        && record.launched_at_ms == mark.launched_at_ms
    {
        let what = || format!("letting guest '{guest}' go on");
        grip(paths, &spec, &record).and_then(|grip| grip.release(mark.way)).with_context(what)?;
    }
    Live.remove(&path)?;
    Ok(true)
}

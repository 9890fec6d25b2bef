//! Starting guests where no service manager does it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use rustix::event::epoll::{self, EventFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::console::protocol::{Answer, Launch};
use crate::console::record::Cause;

use super::again::{Next, Why};
use super::{Holder, Token};

/// A guest that wants to be started again sooner than this after its start waits: it would do so for ever.
const LEAST_UPTIME: Duration = Duration::from_secs(1);

/// A process that the holder started to become a guest, and must wait for.
pub(super) struct Launcher {
    child: Child,
    pidfd: OwnedFd,
    pub(super) number: u16,
    /// The connection that asked for it.
    pub(super) asked_by: Option<u32>,
    pub(super) adopted: bool,
    started: Instant,
}

impl Launcher {
    /// Starts it: a session of its own, nothing to read, and its talk into the guest's log of the launch.
    #[expect(unsafe_code, reason = "a new session can only be made between fork and exec")]
    pub(super) fn start(launch: &Launch, number: u16, asked_by: Option<u32>) -> Result<Self> {
        let (program, args) =
            launch.argv.split_first().context("starting a launcher: no program is named")?;
        let what = || format!("starting '{program}'");
        if let Some(dir) = launch.log.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making directory '{}'", dir.display()))?;
        }
        let mut options = File::options();
        let log = options.write(true).create(true).truncate(true).mode(0o640).open(&launch.log);
        let log = log.with_context(|| format!("opening '{}'", launch.log.display()))?;
        let mut command = Command::new(program);
        command.args(args).envs(&launch.env).stdin(Stdio::null());
        command.stdout(log.try_clone().with_context(what)?).stderr(log);
        // SAFETY: setsid(2) and sigprocmask(2) are async-signal-safe, and nothing is allocated. The holder's own mask
        // (it reads its signals from a descriptor) would make a guest deaf to SIGTERM.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(SigSet::empty().thread_set_mask()?)
            });
        }
        let child = command.spawn().with_context(what)?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(what)?;
        Ok(Self { child, pidfd, number, asked_by, adopted: false, started: Instant::now() })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// How it ended; unknown if it has not.
    pub(super) fn ended(&mut self) -> (Cause, Option<i32>) {
        match self.child.try_wait() {
            Ok(Some(status)) => told(status),
            _ => (Cause::Unknown, None),
        }
    }
}

fn told(status: ExitStatus) -> (Cause, Option<i32>) {
    match status.signal() {
        Some(signal) => (Cause::Signal, Some(signal)),
        None => (Cause::Exit, status.code()),
    }
}

impl Holder {
    /// Starts a guest's launcher; the connection, if any, is answered when it has been adopted or has ended.
    pub(super) fn launch(&mut self, id: u32, asked_by: Option<u32>) -> Result<()> {
        let Some(console) = self.consoles.get_mut(&id) else { return Ok(()) };
        let launch = console.launch.clone().context("starting a guest that nobody described")?;
        console.runs = console.runs.wrapping_add(1);
        let launcher = Launcher::start(&launch, console.runs, asked_by)?;
        let token = Token::Launcher(id, launcher.number).data();
        let watched = epoll::add(&self.epoll, &launcher.pidfd, token, EventFlags::IN);
        console.launcher = Some(launcher);
        watched.context("watching a launcher")
    }

    /// Starts a guest again that asked for it.
    pub(super) fn relaunch(&mut self, id: u32) {
        if let Err(e) = self.launch(id, None) {
            let guest = self.consoles.get(&id).map(|c| c.guest.to_string()).unwrap_or_default();
            eprintln!("guest '{guest}': {e:#}");
            self.failed_start(id, Cause::Unknown, None, vec![format!("{e:#}")]);
        }
    }

    /// Starts a guest again now, or a little later if it has only just been started.
    pub(super) fn relaunch_soon(&mut self, id: u32, after: Option<Instant>) {
        let soon = after.map(|started| started + LEAST_UPTIME).filter(|at| *at > Instant::now());
        match (soon, self.consoles.get_mut(&id)) {
            (Some(at), Some(console)) => console.next = Some(Next { at, why: Why::Reboot }),
            _ => self.relaunch(id),
        }
    }

    pub(super) fn launcher_ended(&mut self, id: u32, number: u16) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let Some(launcher) = console.launcher.as_mut().filter(|l| l.number == number) else { return };
        if console.run.as_ref().is_some_and(|run| run.record.pid == launcher.pid()) {
            let run = console.run.as_ref().map_or(0, |r| r.number);
            return self.process_ended(id, run);
        }
        let (cause, code) = launcher.ended();
        let Some(launcher) = console.launcher.take() else { return };
        if launcher.adopted {
            // Another process runs the guest; this one only had to be waited for.
            return;
        }
        let guest = console.guest.clone();
        let said = console.launch.as_ref().map(|l| tail(&l.log)).unwrap_or_default();
        let how = match (cause, code) {
            (Cause::Signal, Some(signal)) => format!("was ended by signal {signal}"),
            (_, code) => format!("ended with status {}", code.unwrap_or(-1)),
        };
        let lines: Vec<String> = said.split(" | ").map(str::to_owned).collect();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let why = format!("starting guest '{guest}': its launcher {how} before the guest was there{said}");
        eprintln!("{why}");
        match launcher.asked_by.and_then(|asked_by| Some((asked_by, self.conns.get_mut(&asked_by)?))) {
            Some((asked_by, conn)) => {
                conn.answer(&Answer::<()>::Error(why));
                conn.settle(asked_by, &self.epoll, false);
            }
            None => self.failed_start(id, cause, code, lines),
        }
    }

    /// The launcher of a guest whose end has been seen: how it ended, and when it was started.
    pub(super) fn launcher_of(&mut self, id: u32, pid: i32) -> Option<((Cause, Option<i32>), Instant)> {
        let console = self.consoles.get_mut(&id)?;
        let mut launcher = console.launcher.take_if(|l| l.pid() == pid)?;
        Some((launcher.ended(), launcher.started))
    }
}

/// The end of what a launcher said, on one line.
fn tail(path: &Path) -> String {
    const BYTES: u64 = 2048;
    const LINES: usize = 8;
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        let len = file.metadata().map(|m| m.len()).unwrap_or(0);
        text.resize(usize::try_from(len.min(BYTES)).unwrap_or(0), 0);
        if file.read_exact_at(&mut text, len.saturating_sub(BYTES)).is_err() {
            text.clear();
            // Shorter meanwhile: whatever there is.
            let _ = file.take(BYTES).read_to_end(&mut text);
        }
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

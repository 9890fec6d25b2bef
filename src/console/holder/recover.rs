//! Taking consoles up: from launchers, and after an earlier holder's end.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::event::epoll::{self, EventFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::console::access::Access;
use crate::console::inflight::Left;
use crate::console::log::Log;
use crate::console::logread::{self, BootReader, Event};
use crate::console::matches::Matches;
use crate::console::protocol::{Answer, Launch, Settings};
use crate::console::ready::{Place, Watch};
use crate::console::record::{Cause, ReadyRecord, RunRecord, has_ended, read_json, write_exit, write_json};
use crate::console::restart::Restarts;
use crate::console::{exit, now_ms};
use crate::events::{self, What};
use crate::host::files::Files;
use crate::host::programs::Program;
use crate::host::{Live, processes};
use crate::names::GuestName;
use crate::paths::Paths;

use super::again::{Next, Why};
use super::console::Run;
use super::heard::{Ears, Machine, Notify};
use super::{Holder, Token, keep};

/// `console.json`: what the next holder must know of a guest.
#[derive(Debug, Serialize, Deserialize)]
struct ConsoleRecord {
    settings: Settings,
    launch: Option<Launch>,
    stopping: bool,
    /// It died, and waits for its next try.
    #[serde(default)]
    waiting: bool,
}

/// Where a guest's signs of readiness are looked for.
pub(super) fn place(paths: &Paths, guest: &GuestName) -> Place {
    // The program as it is now, not as it was when the holder began.
    let own = std::env::current_exe().unwrap_or_else(|_| "gridgate".into());
    let check = Program::new("exec").arg(own).arg("--quiet").arg("--site").arg(&paths.site);
    let check = check.arg("--state").arg(&paths.state).args(["profile", "check", guest.as_str()]);
    Place { guest: guest.clone(), agent: paths.agent_socket(guest), checks: check.typed() }
}

/// Gives the log what an earlier holder had read and not yet logged.
pub(super) fn finish_log(paths: &Paths, left: &Left) {
    let record = read_json::<ConsoleRecord>(&paths.console_record(&left.guest)).ok().flatten();
    let settings = record.map(|r| r.settings).unwrap_or_default();
    let mut log = Log::open(&paths.console(&left.guest), settings.log_bytes);
    if log.boot() != left.boot {
        return;
    }
    log.skip_to(left.offset);
    let known = usize::try_from(log.end() - left.offset).unwrap_or(usize::MAX);
    log.append(left.bytes.get(known..).unwrap_or_default());
}

impl Holder {
    /// Takes up every guest that lives, and notices the end of those that do not.
    pub(super) fn recover(&mut self) -> Result<()> {
        for name in Live.list(&self.paths.run.join("guests"))? {
            let Ok(guest) = name.parse::<GuestName>() else { continue };
            if let Err(e) = self.recover_guest(&guest) {
                eprintln!("guest '{guest}': ignoring: {e:#}");
            }
        }
        Ok(())
    }

    fn recover_guest(&mut self, guest: &GuestName) -> Result<()> {
        let kept = read_json::<ConsoleRecord>(&self.paths.console_record(guest))?;
        let Some(record) = RunRecord::read(&self.paths, guest)? else {
            return match kept.filter(|kept| kept.waiting) {
                Some(kept) => self.go_on_waiting(guest, kept),
                None => Ok(()),
            };
        };
        if !record.is_alive() {
            return self.ended_unseen(guest, &record, kept);
        }
        let settings = kept.as_ref().map(|k| k.settings.clone());
        let id = self.console_for(guest, &settings.clone().unwrap_or_default());
        let pidfd = open_process(&record)?;
        let master = match self.kept.take(guest, &record) {
            Some(master) => master,
            None => pidfd_getfd(&pidfd, record.console_fd, PidfdGetfdFlags::empty()).with_context(|| {
                format!("taking descriptor {} of process {}", record.console_fd, record.pid)
            })?,
        };
        if let (Some(kept), Some(console)) = (kept, self.consoles.get_mut(&id)) {
            console.launch = kept.launch;
            console.stopping = kept.stopping;
        }
        self.take_up(id, record, settings, master)
    }

    /// A guest that waited for its next try when the last holder ended.
    fn go_on_waiting(&mut self, guest: &GuestName, kept: ConsoleRecord) -> Result<()> {
        let id = self.console_for(guest, &kept.settings);
        let wait = Restarts::read(&self.paths, guest).wait(now_ms());
        if let Some(console) = self.consoles.get_mut(&id) {
            console.launch = kept.launch;
            console.next = Some(Next { at: Instant::now() + wait, why: Why::Death });
        }
        Ok(())
    }

    /// A guest that ended while no holder was there.
    fn ended_unseen(
        &mut self,
        guest: &GuestName,
        run: &RunRecord,
        kept: Option<ConsoleRecord>,
    ) -> Result<()> {
        let said = match run.backend.as_str() {
            "nspawn" => exit::said_by_launcher(&self.paths, guest),
            _ => (Cause::Unknown, None),
        };
        let paths = &self.paths;
        let rebooted = said == (Cause::Exit, Some(super::ending::REBOOT));
        let exit = match rebooted {
            true => None,
            false => Some(write_exit(paths, guest, run.launched_at_ms, said.0, said.1)?),
        };
        for path in [paths.run_record(guest), paths.ready_record(guest), paths.console_record(guest)] {
            Live.remove(&path)?;
        }
        let Some(kept) = kept.filter(|kept| kept.launch.is_some() && !kept.stopping) else { return Ok(()) };
        let id = self.console_for(guest, &kept.settings);
        let Some(console) = self.consoles.get_mut(&id) else { return Ok(()) };
        console.launch = kept.launch;
        match exit {
            None => {
                console.log.mark(Event::Rebooted);
                console.next = Some(Next { at: Instant::now(), why: Why::Reboot });
            }
            Some(exit) => match self.decide(id, &exit) {
                Some(wait) => self.wait_for_next_try(id, &exit, wait),
                None => self.stay_down(id),
            },
        }
        Ok(())
    }

    /// The console of a running process is ours from now on. Twice for the same process changes nothing but the terminal
    /// and, if given, the settings.
    pub(super) fn take_up(
        &mut self,
        id: u32,
        record: RunRecord,
        settings: Option<Settings>,
        master: OwnedFd,
    ) -> Result<()> {
        rustix::pty::ptsname(&master, Vec::new()).context("what came is not the master of a terminal")?;
        rustix::io::ioctl_fionbio(&master, true).context("making its terminal non-blocking")?;
        let pidfd = open_process(&record)?;
        let same = |r: &RunRecord| (r.pid, r.start_ticks) == (record.pid, record.start_ticks);
        let older = self.consoles.get(&id).and_then(|c| c.run.as_ref()).map(|r| (same(&r.record), r.number));
        if let Some((false, number)) = older {
            // Its end may have come but not been noticed yet.
            self.process_ended(id, number);
        }
        let earlier = ReadyRecord::read(&self.paths, &self.guest_of(id)?).unwrap_or_default();
        let Some(console) = self.consoles.get_mut(&id) else { return Ok(()) };
        if let Some(other) = console.run.as_ref().filter(|r| !same(&r.record)) {
            bail!("it is running already, as process {}", other.record.pid);
        }
        console.settings = settings.unwrap_or_else(|| console.settings.clone());
        console.log.set_bound(console.settings.log_bytes);
        console.log.set_access(Access::of(console.settings.group.as_deref()));
        let place = place(&self.paths, &console.guest);
        let mut watch = Watch::new(&place, &record, &console.settings, record.launched(), earlier)?;
        console.matches = match console.settings.console_watch.is_empty() {
            true => None,
            false => Some(Matches::new(&console.settings.console_watch)?),
        };
        let markers = logread::markers(console.log.dir());
        let (pid, start_ticks) = (record.pid, record.start_ticks);
        let this = Event::Started { pid, start_ticks };
        if markers.iter().rfind(|m| matches!(m.event, Event::Started { .. })).is_some_and(|m| m.event == this)
        {
            if console.run.is_none() {
                console.log.mark(Event::Resumed);
            }
            if watch.looks_at_output() {
                look_again(&mut watch, &console.log);
            }
        } else {
            console.log.begin_boot(pid, start_ticks);
            let backend = record.backend.clone();
            events::note(&self.paths, &console.guest, What::Started { pid, backend });
        }
        if let Some(old) = console.run.take() {
            forget_terminal(&self.epoll, &old);
            keep::forget(&console.guest, &old.record);
        }
        keep::keep(&console.guest, &record, master.as_fd());
        console.runs = console.runs.wrapping_add(1);
        let number = console.runs;
        let ears = Ears {
            // A guest that cannot be heard runs all the same.
            notify: Notify::bind(&self.paths.notify_socket(&console.guest))
                .inspect_err(|e| eprintln!("guest '{}': ignoring: {e:#}", console.guest))
                .ok(),
            machine: (record.backend == "qemu").then(|| Machine::new(self.paths.qmp_events(&console.guest))),
        };
        let mut run = Run::new(record, number, master, pidfd, watch, ears);
        if run.record.backend == "nspawn" {
            // None yet, if it is just about to start one; then it says so itself.
            run.leader = processes::children(run.record.pid).pop();
        }
        epoll::add(&self.epoll, &run.master, Token::Master(id, number).data(), EventFlags::IN)
            .context("watching its terminal")?;
        epoll::add(&self.epoll, &run.pidfd, Token::Process(id, number).data(), EventFlags::IN)
            .context("watching its process")?;
        console.next = None;
        console.run = Some(run);
        let asked_by = console.launcher.as_mut().and_then(|launcher| {
            launcher.adopted = true;
            launcher.asked_by.take()
        });
        self.write_console_record(id)?;
        self.listen_to(id);
        self.expect_talk(id);
        self.write_ready(id);
        self.conclude(id);
        if let Some((asked_by, conn)) = asked_by.and_then(|a| Some((a, self.conns.get_mut(&a)?))) {
            conn.answer(&Answer::Ok(()));
            conn.settle(asked_by, &self.epoll, false);
        }
        Ok(())
    }

    fn guest_of(&self, id: u32) -> Result<GuestName> {
        self.consoles.get(&id).map(|c| c.guest.clone()).context("the console is not there any more")
    }

    pub(super) fn write_console_record(&self, id: u32) -> Result<()> {
        let Some(console) = self.consoles.get(&id) else { return Ok(()) };
        let (settings, launch) = (console.settings.clone(), console.launch.clone());
        let (stopping, waiting) = (console.stopping, console.is_waiting());
        let record = ConsoleRecord { settings, launch, stopping, waiting };
        write_json(&self.paths.console_record(&console.guest), &record)
    }
}

/// The terminal is held open elsewhere too, so that closing our descriptor would not take it out of epoll(7).
pub(super) fn forget_terminal(epoll: &OwnedFd, run: &Run) {
    let _ = epoll::delete(epoll, &run.master);
}

/// The process of a record, and no other that has its number by now.
fn open_process(record: &RunRecord) -> Result<OwnedFd> {
    let what = || format!("opening process {}", record.pid);
    let pid = Pid::from_raw(record.pid).context("not a process number").with_context(what)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(what)?;
    if !record.is_alive() || has_ended(&pidfd) {
        bail!("opening process {}: it has ended", record.pid);
    }
    Ok(pidfd)
}

/// Shows a watch what the boot has said so far.
fn look_again(watch: &mut Watch, log: &Log) {
    let mut reader = BootReader::new(log.dir(), log.boot());
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = reader.read(&mut buffer) {
        if n == 0 {
            break;
        }
        watch.output(&buffer[..n]);
    }
}

//! The end of a guest.

use std::time::Instant;

use crate::console::exit;
use crate::console::logread::Event as Mark;
use crate::console::now_ms;
use crate::console::protocol::{Event, For};
use crate::console::record::{Cause, ExitRecord, RunRecord, has_ended, write_exit};
use crate::events::{self, What};
use crate::host::files::Files;
use crate::host::{Live, processes, remains};
use crate::names::GuestName;

use super::recover::forget_terminal;
use super::{Holder, keep};

/// With this status systemd-nspawn asks to be started again: its guest has rebooted (systemd-nspawn(1), exit status).
pub(super) const REBOOT: i32 = 133;
/// Bounds what is read after a guest's end, should a process that it left behind go on writing.
const LAST_READS: usize = 64;

impl Holder {
    pub(super) fn process_ended(&mut self, id: u32, number: u16) {
        let Some(run) = self.consoles.get(&id).and_then(|c| c.run.as_ref()) else { return };
        if run.number != number || !has_ended(&run.pidfd) {
            return;
        }
        let (pid, backend) = (run.record.pid, run.record.backend.clone());
        for _ in 0..LAST_READS {
            if !self.take_output(id) {
                break;
            }
        }
        let Some(console) = self.consoles.get_mut(&id) else { return };
        if console.launch.is_some()
            && let Some(run) = console.run.as_mut()
        {
            // A hypervisor that was killed leaves guest's processes behind, which would be in the way of the next start;
            // under a service manager they are its business.
            let leader: Vec<_> = run.leader.take().into_iter().collect();
            processes::end(pid, &leader);
        }
        // QEMU says why it ends just before it does.
        self.machine_event(id, number, Instant::now());
        let launcher = self.launcher_of(id, pid);
        let Some(console) = self.consoles.get(&id) else { return };
        let Some(run) = console.run.as_ref() else { return };
        let ((cause, code), started) = match launcher {
            Some((how, started)) => (how, Some(started)),
            // Under a service manager somebody else is told.
            None if console.launch.is_none() => ((Cause::Unknown, None), None),
            None => (exit::of_stranger(&self.paths, &console.guest, &backend, &run.pidfd), None),
        };
        let again = (cause, code) == (Cause::Exit, Some(REBOOT))
            && backend == "nspawn"
            && console.launch.is_some()
            && !console.stopping;
        if !again {
            return self.gone(id, cause, code);
        }
        self.clear(id);
        if let Some(console) = self.consoles.get_mut(&id) {
            console.log.mark(Mark::Rebooted);
            let boot = console.log.boot() + 1;
            events::note(&self.paths, &console.guest, What::Rebooted { boot });
        }
        self.tell_readers(id, "guest rebooted");
        self.relaunch_soon(id, started);
    }

    /// The guest is not there any more: writes that down and tells everybody.
    pub(super) fn gone(&mut self, id: u32, cause: Cause, code: Option<i32>) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let (guest, boot) = (console.guest.clone(), console.log.boot());
        let launched_at_ms = match &console.run {
            Some(run) => run.record.launched_at_ms,
            // Between two lives: the one before.
            None => exit::last_launch(&self.paths, &guest),
        };
        console.log.mark(Mark::Ended { cause, code });
        let written = write_exit(&self.paths, &guest, launched_at_ms, cause, code);
        self.over(id, written.unwrap_or_else(|e| unwritten(&guest, cause, code, boot, &e)));
    }

    /// The guest could not be started, and its launcher said this.
    pub(super) fn failed_start(&mut self, id: u32, cause: Cause, code: Option<i32>, said: Vec<String>) {
        let Some(console) = self.consoles.get(&id) else { return };
        let (guest, boot) = (console.guest.clone(), console.log.boot());
        let written = exit::write_failed_start(&self.paths, &guest, cause, code, said);
        self.over(id, written.unwrap_or_else(|e| unwritten(&guest, cause, code, boot, &e)));
    }

    fn over(&mut self, id: u32, exit: ExitRecord) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let (guest, boot) = (console.guest.clone(), console.log.boot());
        console.next = None;
        self.clear(id);
        let (by, how, rung) = (exit.by.name().to_owned(), exit.how(), exit.rung.clone());
        events::note(&self.paths, &guest, What::Stopped { by, how, rung });
        if let Some(wait) = self.decide(id, &exit) {
            return self.wait_for_next_try(id, &exit, wait);
        }
        if let Some(console) = self.consoles.get_mut(&id) {
            console.stopping = false;
            console.launch = None;
        }
        self.dismiss(id, &ExitRecord { boot, ..exit });
    }

    /// Nothing more comes: shows that to everybody.
    pub(super) fn dismiss(&mut self, id: u32, exit: &ExitRecord) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let guest = console.guest.clone();
        let readers = std::mem::take(&mut console.readers);
        console.writer = None;
        for reader in readers {
            self.note_end(reader);
            if let Some(attached) = self.conns.get_mut(&reader).and_then(|c| c.attached()) {
                attached.ends = Some(exit.clone());
            }
            self.pump(reader);
        }
        let event = Event::Stopped(Some(exit.clone()));
        self.happened(&guest, For::Stopped, &event);
        self.happened(&guest, For::Ready, &event);
    }

    /// Removes what is only true of a running guest. A record of a later run is left alone.
    fn clear(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let run = console.run.take();
        if let Some(run) = &run {
            forget_terminal(&self.epoll, run);
            keep::forget(&console.guest, &run.record);
        }
        let paths = &self.paths;
        let mut old = vec![
            paths.ready_record(&console.guest),
            paths.console_record(&console.guest),
            paths.notify_socket(&console.guest),
        ];
        if let (Some(run), Ok(Some(now))) = (run, RunRecord::read(paths, &console.guest))
            && (run.record.pid, run.record.start_ticks) == (now.pid, now.start_ticks)
        {
            old.push(paths.run_record(&console.guest));
            if let Err(e) = remains::take_away(&Live, paths, &console.guest, run.record.netns.as_deref()) {
                eprintln!("guest '{}': ignoring: {e:#}", console.guest);
            }
        }
        for path in old {
            if let Err(e) = Live.remove(&path) {
                eprintln!("guest '{}': ignoring: {e:#}", console.guest);
            }
        }
    }
}

/// What can be told of an end that could not be written down.
fn unwritten(
    guest: &GuestName,
    cause: Cause,
    code: Option<i32>,
    boot: u32,
    error: &anyhow::Error,
) -> ExitRecord {
    eprintln!("guest '{guest}': ignoring: {error:#}");
    ExitRecord::bare(now_ms(), cause, code, boot)
}

//! The end of a guest.

use crate::console::logread::Event as Mark;
use crate::console::now_ms;
use crate::console::protocol::{Event, For};
use crate::console::record::{Cause, EndedBy, ExitRecord, RunRecord, has_ended, write_exit};
use crate::host::files::Files;
use crate::host::{Live, remains};

use super::recover::forget_terminal;
use super::{Holder, keep};

/// With this status systemd-nspawn asks to be started again: its guest has rebooted (systemd-nspawn(1), exit status).
const REBOOT: i32 = 133;
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
        let launcher = self.launcher_of(id, pid);
        let ((cause, code), started) = match launcher {
            Some((how, started)) => (how, Some(started)),
            None => ((Cause::Unknown, None), None),
        };
        let Some(console) = self.consoles.get(&id) else { return };
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
        }
        self.tell_readers(id, "guest rebooted");
        self.relaunch_soon(id, started);
    }

    /// The guest is not there any more and does not come back by itself: writes that down and tells everybody.
    pub(super) fn gone(&mut self, id: u32, cause: Cause, code: Option<i32>) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let launched_at_ms = console.run.as_ref().map_or_else(now_ms, |r| r.record.launched_at_ms);
        console.log.mark(Mark::Ended { cause, code });
        let (guest, boot) = (console.guest.clone(), console.log.boot());
        let readers = std::mem::take(&mut console.readers);
        console.writer = None;
        console.stopping = false;
        console.launch = None;
        console.relaunch_at = None;
        let exit = write_exit(&self.paths, &guest, launched_at_ms, cause, code).unwrap_or_else(|e| {
            eprintln!("guest '{guest}': ignoring: {e:#}");
            ExitRecord {
                at_ms: now_ms(),
                cause,
                code,
                boot,
                last_lines: Vec::new(),
                by: EndedBy::Unknown,
                rung: None,
                stop_took_ms: None,
                launched_at_ms,
                ready_at_ms: None,
            }
        });
        self.clear(id);
        // What stood there before (the cause, if it was known) is told too; the boot is this one.
        let told = ExitRecord { boot, ..exit.clone() };
        for reader in readers {
            self.note_end(reader);
            if let Some(attached) = self.conns.get_mut(&reader).and_then(|c| c.attached()) {
                attached.ends = Some(told.clone());
            }
            self.pump(reader);
        }
        let event = Event::Stopped(Some(exit));
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
        let mut old = vec![paths.ready_record(&console.guest), paths.console_record(&console.guest)];
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

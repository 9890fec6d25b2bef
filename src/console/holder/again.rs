//! Starting a guest again that ended by itself, where no service manager does it.

use std::time::{Duration, Instant};

use crate::console::now_ms;
use crate::console::protocol::{Event, For};
use crate::console::record::ExitRecord;
use crate::console::restart::{Decision, Restarts};
use crate::events::{self, What};
use crate::host::Live;
use crate::host::files::Files;

use super::Holder;

/// When a guest that is not there is started, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) at: Instant,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It rebooted.
    Reboot,
    /// It died.
    Death,
}

impl Holder {
    /// What becomes of a guest that has ended in this way: how long it is to wait, if it is started again.
    pub(super) fn decide(&mut self, id: u32, exit: &ExitRecord) -> Option<Duration> {
        let console = self.consoles.get(&id)?;
        let policy = console.settings.restart.as_ref()?;
        // Under a service manager nobody told how to start it, and it decides by itself.
        console.launch.as_ref()?;
        let guest = &console.guest;
        let mut restarts = Restarts::read(&self.paths, guest);
        let decision = match console.stopping {
            true => Decision::Stay,
            false => restarts.after_end(policy, exit),
        };
        let written = match decision {
            Decision::Stay => Restarts::forget(&self.paths, guest),
            Decision::Again { .. } => restarts.write(&self.paths, guest),
        };
        if let Err(e) = written {
            eprintln!("guest '{guest}': ignoring: {e:#}");
        }
        (decision != Decision::Stay).then(|| restarts.wait(exit.at_ms))
    }

    /// The guest is not there, and is started again after so long.
    pub(super) fn wait_for_next_try(&mut self, id: u32, exit: &ExitRecord, wait: Duration) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        console.next = Some(Next { at: Instant::now() + wait, why: Why::Death });
        let guest = console.guest.clone();
        let next_try_ms = now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        events::note(&self.paths, &guest, What::Waiting { next_try_ms, why: exit.why() });
        if let Err(e) = self.write_console_record(id) {
            eprintln!("guest '{guest}': ignoring: {e:#}");
        }
        let text = format!("guest ended ({}); next try in {:.0} s", exit.how(), wait.as_secs_f64().ceil());
        self.tell_readers(id, &text);
        let event = Event::Stopped(Some(exit.clone()));
        self.happened(&guest, For::Stopped, &event);
        self.happened(&guest, For::Ready, &event);
    }

    /// The try begins.
    pub(super) fn try_again(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let Some(next) = console.next.take() else { return };
        if next.why == Why::Death {
            let guest = &console.guest;
            let mut restarts = Restarts::read(&self.paths, guest);
            restarts.trying();
            if let Err(e) = restarts.write(&self.paths, guest) {
                eprintln!("guest '{guest}': ignoring: {e:#}");
            }
        }
        self.relaunch(id);
    }

    /// The guest that waits to be started again does not any more.
    pub(super) fn stay_down(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        console.next = None;
        console.launch = None;
        console.stopping = false;
        let guest = console.guest.clone();
        for path in [self.paths.console_record(&guest), self.paths.restarts(&guest)] {
            if let Err(e) = Live.remove(&path) {
                eprintln!("guest '{guest}': ignoring: {e:#}");
            }
        }
        if let Some(exit) = ExitRecord::read(&self.paths, &guest).ok().flatten() {
            self.dismiss(id, &exit);
        }
    }

    /// The guest was ready for long enough: what was counted against it is forgotten.
    pub(super) fn settled(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        if let Some(run) = console.run.as_mut() {
            run.settle_at = None;
        }
        if let Err(e) = Restarts::forget(&self.paths, &console.guest) {
            eprintln!("guest '{}': ignoring: {e:#}", console.guest);
        }
    }

    /// When a guest that has just become ready has settled; never, if nothing is counted against it.
    pub(super) fn settles_at(&self, id: u32) -> Option<Instant> {
        let console = self.consoles.get(&id)?;
        let policy = console.settings.restart.as_ref()?;
        let counted = Restarts::read(&self.paths, &console.guest) != Restarts::default();
        counted.then(|| Instant::now() + policy.settle)
    }
}

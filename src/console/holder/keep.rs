//! Terminals kept by the service manager: systemd holds a copy of each master (sd_notify(3), FDSTORE), and hands them to the
//! next holder (sd_listen_fds(3)). Where pidfd_getfd(2) is forbidden, consoles survive the holder's end so.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::Result;

use crate::console::record::RunRecord;
use crate::host::notify;
use crate::names::GuestName;

/// Terminals that were handed down and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<String, OwnedFd>);

/// A run of a guest, as a name that the service manager takes.
fn name(guest: &GuestName, record: &RunRecord) -> String {
    format!("{guest}.{}.{}", record.pid, record.start_ticks)
}

impl Kept {
    /// What the service manager has handed to this process. To be called once, and before anything else opens a descriptor.
    pub(super) fn receive() -> Self {
        Self(notify::received())
    }

    /// The terminal of this run, if it is there.
    pub(super) fn take(&mut self, guest: &GuestName, record: &RunRecord) -> Option<OwnedFd> {
        self.0.remove(&name(guest, record))
    }

    /// Lets go of what nobody has taken: those guests have ended.
    pub(super) fn forget_rest(&mut self) {
        for name in std::mem::take(&mut self.0).into_keys() {
            told(notify::forget(&name));
        }
    }
}

/// Has the service manager keep a copy, if there is one.
pub(super) fn keep(guest: &GuestName, record: &RunRecord, master: BorrowedFd<'_>) {
    told(notify::store(&name(guest, record), master));
}

/// The guest has ended.
pub(super) fn forget(guest: &GuestName, record: &RunRecord) {
    told(notify::forget(&name(guest, record)));
}

/// A manager that does not hear costs no console as long as this process lives.
fn told(result: Result<()>) {
    if let Err(e) = result {
        eprintln!("ignoring: {e:#}");
    }
}

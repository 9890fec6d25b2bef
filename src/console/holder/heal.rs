//! The run directory, emptied under a running holder: what only it knows is put back.
//!
//! Somebody cleans `/run`, and all of a sudden no command finds the guests, which run on. The holder sees that its files
//! go (inotify(7)) and writes them again: socket, lock, and the records of its guests.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::console::inflight::Inflight;
use crate::host::Live;
use crate::host::files::{Files, LockGuard};
use crate::paths::Paths;

use super::{Holder, Token, setup};

/// Whoever removes one file is probably about to remove the next.
const CALM: Duration = Duration::from_millis(100);

/// What is watched.
pub(super) struct Health {
    inotify: OwnedFd,
    due: Option<Instant>,
    /// Device and number of the socket's file.
    socket: Option<(u64, u64)>,
    /// Held as long as this process lives.
    lock: LockGuard,
}

impl Health {
    /// Nothing is watched yet.
    pub(super) fn new(lock: LockGuard) -> Result<Self> {
        let inotify =
            init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("preparing to watch files")?;
        Ok(Self { inotify, due: None, socket: None, lock })
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// From now on, with the socket that has its name now.
    fn watch(&mut self, paths: &Paths) -> Result<()> {
        self.socket = file_of(paths);
        let gone =
            WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let what = || format!("watching '{}'", paths.run.display());
        add_watch(&self.inotify, &paths.run, gone | WatchFlags::ONLYDIR).map(drop).with_context(what)
    }
}

fn file_of(paths: &Paths) -> Option<(u64, u64)> {
    let meta = paths.holder_socket().symlink_metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Holder {
    /// Begins to watch the run directory.
    pub(super) fn watch_health(&mut self) -> Result<()> {
        self.health.watch(&self.paths)?;
        self.watch_fd(self.health.inotify.as_fd(), Token::Health, EventFlags::IN)
    }

    /// Something has gone from the run directory.
    pub(super) fn unwell(&mut self) {
        let mut events = [0; 4096];
        while rustix::io::read(&self.health.inotify, &mut events).is_ok_and(|n| n > 0) {}
        self.health.due = Some(Instant::now() + CALM);
    }

    /// Looks whether anything is missing, when it is time to.
    pub(super) fn heal(&mut self, now: Instant) {
        if self.health.due.is_none_or(|due| due > now) {
            return;
        }
        self.health.due = None;
        let whole = self.health.socket.is_some() && file_of(&self.paths) == self.health.socket;
        let records = self.consoles.values().filter(|c| c.run.is_some());
        let recorded = records.map(|c| self.paths.run_record(&c.guest)).all(|path| path.exists());
        if whole && recorded && self.paths.holder_inflight().exists() {
            return;
        }
        match self.put_back(whole) {
            Ok(()) => eprintln!("'{}' was emptied; what was there is there again", self.paths.run.display()),
            Err(e) => eprintln!("ignoring: putting back '{}': {e:#}", self.paths.run.display()),
        }
        let ids: Vec<u32> = self.consoles.keys().copied().collect();
        for id in ids {
            self.tell_readers(
                id,
                "the run directory was emptied under this guest; it runs on, but may not hear a polite stop",
            );
        }
    }

    fn put_back(&mut self, whole: bool) -> Result<()> {
        let paths = self.paths.clone();
        Live.make_dir(&paths.run, 0o755)?;
        if !whole {
            // The one that was held so far may be on this very file.
            self.health.lock = LockGuard::none();
            self.health.lock =
                Live.lock(&paths.holder_lock(), Duration::ZERO).context("another holder took its place")?;
            let listener = setup::listen_anew(&paths)?;
            self.watch_fd(listener.as_fd(), Token::Listener, EventFlags::IN)?;
            // Closing the old one takes it out of epoll(7).
            self.listener = listener;
        }
        let in_file = paths.holder_inflight();
        if !in_file.exists() {
            let what = || format!("mapping '{}'", in_file.display());
            self.inflight = Inflight::open(&in_file).with_context(what)?.0;
            self.inflight.settle(&in_file).with_context(what)?;
        }
        let running: Vec<u32> =
            self.consoles.iter().filter(|(_, c)| c.run.is_some()).map(|(id, _)| *id).collect();
        for id in running {
            if let Some(console) = self.consoles.get(&id)
                && let Some(run) = &console.run
            {
                run.record.write(&paths, &console.guest)?;
            }
            self.write_console_record(id)?;
            self.write_ready(id);
            self.hear_again(id)?;
        }
        self.health.watch(&paths)
    }
}

//! Work in line for several threads; the line is short, whatever the tree is like.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Longer lines would take memory for nothing: whoever finds the line full does the work at once.
const LONGEST: usize = 2048;

/// What a thread is to do next; paths from the root.
#[derive(Debug)]
pub(super) enum Job {
    /// All that is in a directory.
    Dir(PathBuf),
    /// Some files of a directory.
    Files(PathBuf, Vec<OsString>),
}

/// The line.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// In line or being done.
    open: usize,
    waiting: usize,
    stopped: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts it in line; gives it back if the line is full.
    pub(super) fn put(&self, job: Job) -> Option<Job> {
        let mut state = self.state();
        if state.jobs.len() >= LONGEST {
            return Some(job);
        }
        state.jobs.push_back(job);
        state.open += 1;
        self.changed.notify_one();
        None
    }

    /// Hands it over to a thread that waits for work; gives it back if none does.
    pub(super) fn offer(&self, job: Job) -> Option<Job> {
        let idle = {
            let state = self.state();
            state.waiting > state.jobs.len()
        };
        if idle { self.put(job) } else { Some(job) }
    }

    /// The next one; waits for it. None when all is done, or somebody has stopped it.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.stopped || state.open == 0 {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// One that was taken is done.
    pub(super) fn done(&self) {
        let mut state = self.state();
        state.open -= 1;
        if state.open == 0 {
            self.changed.notify_all();
        }
    }

    /// Nobody is to begin anything more.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }
}

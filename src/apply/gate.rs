//! The site's lock while a plan is walked: held for everything that changes something, and not while all that goes on is
//! waiting for guests to become ready. A slow boot of one guest keeps nobody from stopping another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::host::files::LockGuard;

/// See the module.
pub struct Gate<'a> {
    take: Box<dyn Fn() -> Result<LockGuard> + Sync + 'a>,
    held: Mutex<Held>,
}

struct Held {
    lock: Option<LockGuard>,
    inside: usize,
    /// The lock is still that of whoever made the plan: nobody may change anything between that and the first step.
    planning: bool,
}

/// The lock is held as long as this is there.
pub struct Inside<'g, 'a>(&'g Gate<'a>);

impl<'a> Gate<'a> {
    /// `lock` is what the plan was made under; `take` takes it again later.
    pub fn new(lock: LockGuard, take: impl Fn() -> Result<LockGuard> + Sync + 'a) -> Self {
        let held = Held { lock: Some(lock), inside: 0, planning: true };
        Self { take: Box::new(take), held: Mutex::new(held) }
    }

    /// For a step that changes something; several may be inside at once. Waits for other commands that are at work.
    pub fn enter(&self) -> Result<Inside<'_, 'a>> {
        let mut held = self.held();
        if held.lock.is_none() {
            held.lock = Some((self.take)()?);
        }
        held.inside += 1;
        Ok(Inside(self))
    }

    /// For a step that only waits.
    pub fn begin_to_wait(&self) {
        let mut held = self.held();
        held.planning = false;
        held.settle();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn settle(&mut self) {
        if self.inside == 0 && !self.planning {
            self.lock = None;
        }
    }
}

impl Drop for Inside<'_, '_> {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.inside -= 1;
        held.settle();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::host::Live;
    use crate::host::files::Files;

    fn free(path: &Path) -> bool {
        Live.lock(path, Duration::ZERO).is_ok()
    }

    #[test]
    fn the_lock_is_held_from_the_plan_to_the_first_wait_and_for_each_step_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let take = || Live.lock(&path, Duration::from_secs(5));
        let gate = Gate::new(take().unwrap(), take);
        drop(gate.enter().unwrap());
        assert!(!free(&path), "between two steps, before any wait");
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        gate.begin_to_wait();
        drop(first);
        assert!(!free(&path), "a step goes on beside the wait");
        drop(second);
        assert!(free(&path), "nothing but waiting");
        let again = gate.enter().unwrap();
        assert!(!free(&path));
        drop(again);
        assert!(free(&path));
    }

    #[test]
    fn a_step_waits_for_another_command_that_is_at_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let gate = Gate::new(LockGuard::none(), || Live.lock(&path, Duration::from_secs(5)));
        gate.begin_to_wait();
        let other = Live.lock(&path, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let entering = scope.spawn(|| gate.enter().map(drop));
            assert!(!entering.is_finished());
            drop(other);
            entering.join().unwrap().unwrap();
        });
        let impatient = Gate::new(LockGuard::none(), || Live.lock(&path, Duration::ZERO));
        impatient.begin_to_wait();
        let _other = Live.lock(&path, Duration::ZERO).unwrap();
        assert!(impatient.enter().is_err());
    }
}

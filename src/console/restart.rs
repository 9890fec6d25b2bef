//! Whether and when a guest that ended by itself is started again; pure, and what is remembered of it between two lives.
//!
//! ```text
//!                 early death (fewer than `tries`)
//!                +--------------------------------+      waits: delay, twice that, ... up to max_delay
//!                v                                |
//!            closed ----- early death number `tries` -----> open       waits: max_delay
//!              ^                                            | ^
//!              |                                    one try | | early death
//!              +------ ready for `settle` ------ half-open <+-+
//! ```
//!
//! Times are of the clock on the wall, since they outlive a boot. A clock that jumps makes nobody wait longer than the wait
//! that was decided on, and ends at most one wait too early.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::supervision::{RestartPolicy, RestartWhen};
use crate::console::record::{EndedBy, ExitRecord, read_json, write_json};
use crate::host::Live;
use crate::host::files::Files;
use crate::names::GuestName;
use crate::paths::Paths;

/// A policy that asks for no wait at all would keep a processor busy with a guest that dies at once.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// What is remembered of a guest that died early; `guests/NAME/restarts.json`. None of it if the guest behaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Lives in a row that ended before the guest had settled.
    pub early_deaths: u32,
    /// When the guest is started again, in milliseconds since 1970; none if it is not waiting for that.
    pub next_try_ms: Option<u64>,
    /// The whole of the present wait.
    pub wait_ms: u64,
    /// Whether its tries are rationed.
    pub breaker: Breaker,
    /// How its last life ended, as a person would say it.
    pub why: String,
    /// What its console said last then.
    pub last_lines: Vec<String>,
    /// The launch of the last life that was counted.
    pub counted_launch_ms: u64,
}

/// See the module's picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breaker {
    /// Tries come as the policy's growing waits have it.
    #[default]
    Closed,
    /// It died early too often: it waits for its next single try.
    Open,
    /// That try is going on.
    HalfOpen,
}

/// What follows from a guest's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It stays down.
    Stay,
    /// It is started again at this time, in milliseconds since 1970.
    Again {
        /// See [`Restarts::wait`] for how long that is from now.
        at_ms: u64,
    },
}

impl Restarts {
    /// What is remembered of the guest. A record that cannot be understood counts as none: it must not keep a guest down.
    pub fn read(paths: &Paths, guest: &GuestName) -> Self {
        read_json(&paths.restarts(guest)).ok().flatten().unwrap_or_default()
    }

    /// Remembers it. Nothing is kept for a guest without a past.
    pub fn write(&self, paths: &Paths, guest: &GuestName) -> Result<()> {
        match *self == Self::default() {
            true => Self::forget(paths, guest),
            false => write_json(&paths.restarts(guest), self),
        }
    }

    /// All is forgiven: somebody started or stopped the guest on purpose, or it has settled.
    pub fn forget(paths: &Paths, guest: &GuestName) -> Result<()> {
        Live.remove(&paths.restarts(guest))
    }

    /// Counts a guest's end and decides. A second look at the same end changes nothing.
    pub fn after_end(&mut self, policy: &RestartPolicy, exit: &ExitRecord) -> Decision {
        if exit.launched_at_ms != 0 && exit.launched_at_ms == self.counted_launch_ms {
            return self.next_try_ms.map_or(Decision::Stay, |at_ms| Decision::Again { at_ms });
        }
        let again = match (policy.when, exit.by) {
            // What goes down with the host comes up with it, and the guest is not to blame.
            (_, EndedBy::Host | EndedBy::PowerCut) | (RestartWhen::Never, _) => false,
            (RestartWhen::OnFailure, by) => by != EndedBy::Guest,
            (RestartWhen::Always, _) => true,
        };
        if !again {
            *self = Self::default();
            return Decision::Stay;
        }
        let ready_for = exit.ready_at_ms.filter(|at| *at >= exit.launched_at_ms);
        let ready_for = ready_for.map(|at| Duration::from_millis(exit.at_ms.saturating_sub(at)));
        self.early_deaths = match ready_for.is_some_and(|span| span >= policy.settle) {
            true => 0,
            false => self.early_deaths.saturating_add(1),
        };
        let wait = match self.early_deaths >= policy.tries.max(1) {
            true => {
                self.breaker = Breaker::Open;
                policy.max_delay.max(LEAST_WAIT)
            }
            false => {
                self.breaker = Breaker::Closed;
                wait_after(policy, self.early_deaths)
            }
        };
        self.wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let at_ms = exit.at_ms.saturating_add(self.wait_ms);
        self.next_try_ms = Some(at_ms);
        self.why = exit.why();
        self.last_lines = exit.last_lines.clone();
        self.counted_launch_ms = exit.launched_at_ms;
        Decision::Again { at_ms }
    }

    /// How long the next try is away; zero if none is waited for. Never more than the whole wait, whatever the clock says.
    pub fn wait(&self, now_ms: u64) -> Duration {
        let left = self.next_try_ms.map_or(0, |at| at.saturating_sub(now_ms));
        Duration::from_millis(left.min(self.wait_ms))
    }

    /// The try begins now.
    pub fn trying(&mut self) {
        self.next_try_ms = None;
        if self.breaker == Breaker::Open {
            self.breaker = Breaker::HalfOpen;
        }
    }
}

/// The wait after so many early deaths in a row; after a guest that had settled, the first one.
fn wait_after(policy: &RestartPolicy, early_deaths: u32) -> Duration {
    let doublings = early_deaths.saturating_sub(1).min(31);
    let first = policy.delay.max(LEAST_WAIT);
    first.saturating_mul(1 << doublings).min(policy.max_delay.max(LEAST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::record::Cause;
    use proptest::prelude::*;

    const MINUTE: u64 = 60_000;

    fn policy() -> RestartPolicy {
        RestartPolicy::default()
    }

    /// A life that began at that time, was ready for so long (never, if none), and ended in that way.
    fn life(launched_at_ms: u64, ready_for_ms: Option<u64>, by: EndedBy) -> ExitRecord {
        ExitRecord {
            at_ms: launched_at_ms + 5000 + ready_for_ms.unwrap_or(0),
            cause: Cause::Exit,
            code: Some(134),
            boot: 1,
            last_lines: vec!["Kernel panic - not syncing: no init".to_owned()],
            by,
            rung: None,
            stop_took_ms: None,
            launched_at_ms,
            ready_at_ms: ready_for_ms.map(|_| launched_at_ms + 5000),
            start_failed: false,
        }
    }

    /// The waits, in seconds, of a guest that dies early again and again.
    fn waits(restarts: &mut Restarts, policy: &RestartPolicy, lives: u64) -> Vec<u64> {
        let mut waits = Vec::new();
        for number in 1..=lives {
            let exit = life(number * 10 * MINUTE, None, EndedBy::Panic);
            let Decision::Again { at_ms } = restarts.after_end(policy, &exit) else { panic!("it stays") };
            waits.push((at_ms - exit.at_ms) / 1000);
            restarts.trying();
        }
        waits
    }

    #[test]
    fn waits_grow_until_there_is_one_try_each_longest_wait() {
        let mut restarts = Restarts::default();
        assert_eq!(waits(&mut restarts, &policy(), 7), [1, 2, 4, 8, 600, 600, 600]);
        assert_eq!(restarts.breaker, Breaker::HalfOpen);
        assert_eq!(restarts.why, "panic: no init");
        let settled = life(200 * MINUTE, Some(2 * MINUTE), EndedBy::Panic);
        let Decision::Again { at_ms } = restarts.after_end(&policy(), &settled) else { panic!("it stays") };
        assert_eq!(
            (at_ms - settled.at_ms, restarts.breaker, restarts.early_deaths),
            (1000, Breaker::Closed, 0)
        );
    }

    #[test]
    fn who_ended_a_guest_decides_with_the_policy() {
        let again = |when, by| {
            let policy = RestartPolicy { when, ..policy() };
            Restarts::default().after_end(&policy, &life(MINUTE, None, by)) != Decision::Stay
        };
        for when in [RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always] {
            assert!(!again(when, EndedBy::Host) && !again(when, EndedBy::PowerCut), "{when:?}");
            assert_eq!(again(when, EndedBy::Panic), when != RestartWhen::Never);
            assert_eq!(again(when, EndedBy::Killed), when != RestartWhen::Never);
            assert_eq!(again(when, EndedBy::Guest), when == RestartWhen::Always);
        }
    }

    #[test]
    fn an_end_that_is_told_twice_counts_once() {
        let (mut restarts, exit) = (Restarts::default(), life(MINUTE, None, EndedBy::Killed));
        let first = restarts.after_end(&policy(), &exit);
        assert_eq!(restarts.after_end(&policy(), &ExitRecord { at_ms: exit.at_ms + 3, ..exit }), first);
        assert_eq!(restarts.early_deaths, 1);
    }

    #[test]
    fn what_is_remembered_outlives_the_process_and_is_forgotten_on_purpose() {
        let state = tempfile::tempdir().unwrap();
        let paths = Paths::new(state.path(), state.path());
        let guest: GuestName = "ce".parse().unwrap();
        assert_eq!(Restarts::read(&paths, &guest), Restarts::default());
        let mut restarts = Restarts::default();
        restarts.after_end(&policy(), &life(MINUTE, None, EndedBy::Killed));
        restarts.write(&paths, &guest).unwrap();
        assert_eq!(Restarts::read(&paths, &guest), restarts);
        std::fs::write(paths.restarts(&guest), "{").unwrap();
        assert_eq!(Restarts::read(&paths, &guest), Restarts::default());
        Restarts::forget(&paths, &guest).unwrap();
        Restarts::forget(&paths, &guest).unwrap();
        assert!(!paths.restarts(&guest).exists());
    }

    fn any_policy() -> impl Strategy<Value = RestartPolicy> {
        let span = |least| (least..2_000_000u64).prop_map(Duration::from_millis);
        (span(0), span(100), span(0), 0..20u32).prop_map(|(delay, max_delay, settle, tries)| RestartPolicy {
            when: RestartWhen::OnFailure,
            delay,
            max_delay,
            settle,
            tries,
        })
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_the_one_before_or_longer_than_the_longest(
            policy in any_policy(), lives in 1..60u64, gap_ms in 1..10_000_000u64,
        ) {
            let (mut restarts, mut before) = (Restarts::default(), 0);
            for number in 1..=lives {
                let exit = life(number * gap_ms, None, EndedBy::Panic);
                prop_assert_ne!(restarts.after_end(&policy, &exit), Decision::Stay);
                prop_assert!(restarts.wait_ms >= before && restarts.wait_ms >= 100);
                prop_assert!(u128::from(restarts.wait_ms) <= policy.max_delay.as_millis());
                before = restarts.wait_ms;
                restarts.trying();
            }
        }

        #[test]
        fn a_guest_that_settled_begins_anew(policy in any_policy(), early in 0..40u64, longer_ms in 0..10_000u64) {
            let mut restarts = Restarts::default();
            for number in 1..=early {
                restarts.after_end(&policy, &life(number * MINUTE, None, EndedBy::Killed));
                restarts.trying();
            }
            let settle_ms = policy.settle.as_millis() as u64;
            let settled = life(100 * MINUTE, Some(settle_ms + longer_ms), EndedBy::Killed);
            restarts.after_end(&policy, &settled);
            prop_assert_eq!(restarts.early_deaths, 0);
            prop_assert_eq!(restarts.breaker, Breaker::Closed);
            prop_assert_eq!(restarts.wait_ms, wait_after(&policy, 0).as_millis() as u64);
        }

        /// Whatever the clock says when somebody looks, and whatever it said at launch, end and readiness.
        #[test]
        fn a_clock_that_jumps_makes_nobody_wait_for_ever_or_start_in_a_loop(
            policy in any_policy(), clocks in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<u64>>(), any::<u64>()), 1..30),
        ) {
            let mut restarts = Restarts::default();
            for (launched_at_ms, at_ms, ready_at_ms, now_ms) in clocks {
                let exit = ExitRecord { launched_at_ms, at_ms, ready_at_ms, ..life(1, None, EndedBy::Panic) };
                prop_assert_ne!(restarts.after_end(&policy, &exit), Decision::Stay);
                let least = wait_after(&policy, restarts.early_deaths.min(1)).as_millis() as u64;
                prop_assert!(restarts.wait_ms >= least.min(policy.max_delay.as_millis() as u64));
                prop_assert!(restarts.wait(now_ms) <= policy.max_delay);
                prop_assert!(restarts.wait(at_ms) >= Duration::from_millis(restarts.wait_ms.min(u64::MAX - at_ms)));
                restarts.trying();
                prop_assert_eq!(restarts.wait(now_ms), Duration::ZERO);
            }
        }
    }
}

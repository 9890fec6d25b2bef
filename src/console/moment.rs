//! Points in time, by two clocks: the one on the wall, and the one that nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::console::now_ms;

/// When something was. Spans are counted by the second number, so that a clock that is set changes none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970, as the host's clock said then.
    pub at_ms: u64,
    /// Milliseconds since the host's boot, those that it slept included.
    pub up_ms: u64,
}

impl Moment {
    /// By both clocks.
    pub fn now() -> Self {
        Self { at_ms: now_ms(), up_ms: up_ms() }
    }

    /// A moment of this boot of the host, in clock ticks since that boot, as `/proc` has it.
    pub fn of_ticks(at_ms: u64, ticks: u64) -> Self {
        Self { at_ms, up_ms: ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1) }
    }

    /// How long ago it was; nothing, if it is yet to come.
    pub fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    /// From this moment to a later one of the same boot.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.up_ms.saturating_sub(self.up_ms))
    }
}

fn up_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::record::start_ticks;

    #[test]
    fn the_kernels_ticks_and_its_clock_count_from_the_same_beginning() {
        let before = Moment::now();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let began = Moment::of_ticks(0, start_ticks(child.id().cast_signed()).unwrap());
        child.wait().unwrap();
        // Ticks are cut off, not rounded.
        assert!(began.up_ms + 10 >= before.up_ms, "{began:?} {before:?}");
        assert!(began.up_ms <= Moment::now().up_ms);
    }

    #[test]
    fn a_clock_that_is_set_changes_no_span() {
        let began = Moment { at_ms: 5_000_000, up_ms: 1000 };
        let (back, ahead) = (Moment { at_ms: 0, up_ms: 3000 }, Moment { at_ms: u64::MAX, up_ms: 3000 });
        assert_eq!((began.until(back), began.until(ahead)), (Duration::from_secs(2), Duration::from_secs(2)));
        assert_eq!(back.until(began), Duration::ZERO);
    }
}

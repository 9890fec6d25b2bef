//! Watching a guest until it is ready, and on as far as it was asked to give signs of life. Started and ready are
//! different: a guest that takes too long is degraded, never killed, and may still become ready.
//!
//! ```text
//!   waiting --- all signs seen ---> ready -----------+
//!      |                              ^              | no heartbeat
//!      +--- time over ---> degraded --+ all signs    v
//!                             ^  seen             degraded
//! ```

mod agent;
mod command;
mod port;
mod probe;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regex::bytes::{Regex, RegexBuilder};

use crate::config::site::ReadyCheck;
use crate::console::lines::{Lines, is_login_prompt};
use crate::console::moment::Moment;
use crate::console::now_ms;
use crate::console::protocol::Settings;
use crate::console::record::{CheckRecord, ReadyRecord, ReadyState, RunRecord};
use crate::names::GuestName;

pub use agent::{call as call_agent, shut_down as shut_down_by_agent};
use probe::{Probe, Progress};

/// Bound of a compiled pattern, and of its cache; enough for any line of a console.
const PATTERN_BYTES: usize = 1 << 20;

/// Compiles a console pattern as the watcher will; for checking a site's files too.
pub fn pattern(text: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(text);
    let built = builder.size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    built.with_context(|| format!("understanding the pattern '{text}'"))
}

#[derive(Debug)]
enum Sign {
    Login,
    Line(Regex),
    /// Something is asked again and again.
    Asked(Asked),
    /// The guest says so itself.
    Said,
    /// The guest must say so again within the time.
    Beat {
        every: Duration,
        due: Option<Instant>,
    },
    /// Nothing is done for it any more.
    Done,
}

#[derive(Debug)]
struct Asked {
    probe: Box<dyn Probe>,
    pending: bool,
    /// In a row.
    failures: u32,
    /// When to begin the next attempt or give this one up.
    next: Instant,
}

/// Where a guest's signs are looked for.
#[derive(Debug, Clone)]
pub struct Place {
    /// Whose.
    pub guest: GuestName,
    /// Socket of its guest agent.
    pub agent: PathBuf,
    /// The line for the host's shell that runs the checks of its profile.
    pub checks: String,
}

/// One boot of a guest, watched.
#[derive(Debug)]
pub struct Watch {
    record: ReadyRecord,
    began: Moment,
    signs: Vec<Sign>,
    lines: Lines,
    deadline: Option<Instant>,
    /// How many signs had been seen when that was last asked for.
    known: usize,
}

impl Watch {
    /// Begins to watch a boot that began at the given time; without any sign to wait for, the guest is ready at once. `earlier` is what another holder had seen of the same process.
    pub fn new(
        place: &Place,
        run: &RunRecord,
        settings: &Settings,
        began: Moment,
        earlier: Option<ReadyRecord>,
    ) -> Result<Self> {
        let now = Instant::now();
        let same = |r: &ReadyRecord| {
            let checks = r.checks.iter().map(|c| &c.check);
            r.pid == run.pid && r.start_ticks == run.start_ticks && checks.eq(settings.ready.iter())
        };
        let fresh = || ReadyRecord {
            state: ReadyState::Waiting,
            at_ms: began.at_ms,
            after_ms: 0,
            began_at_ms: began.at_ms,
            began_up_ms: Some(began.up_ms),
            ready_at_ms: None,
            ready_up_ms: None,
            said: None,
            log_trouble: None,
            pid: run.pid,
            start_ticks: run.start_ticks,
            checks: settings.ready.iter().map(|c| CheckRecord { check: c.clone(), at_ms: None }).collect(),
        };
        let mut record = earlier.filter(same).unwrap_or_else(fresh);
        // Another holder's log; this one's is yet to be written.
        record.log_trouble = None;
        let signs = settings.ready.iter().map(|check| sign(place, run, settings, check, now));
        let signs = signs.collect::<Result<Vec<_>>>()?;
        let began = Moment { at_ms: record.began_at_ms, up_ms: record.began_up_ms.unwrap_or(began.up_ms) };
        let limit = Duration::from_millis(settings.ready_timeout_ms);
        let deadline = (!limit.is_zero()).then(|| now + limit.saturating_sub(began.elapsed()));
        let mut watch = Self { record, began, signs, lines: Lines::default(), deadline, known: 0 };
        // One that was ready before has a whole span for its next sign of life.
        watch.expect_beats(now);
        if watch.record.state == ReadyState::Ready {
            watch.let_go();
        }
        Ok(watch)
    }

    /// How far it has come.
    pub fn record(&self) -> &ReadyRecord {
        &self.record
    }

    /// Whether output is still of interest.
    pub fn looks_at_output(&self) -> bool {
        let open = |(sign, check): (&Sign, &CheckRecord)| {
            check.at_ms.is_none() && matches!(sign, Sign::Login | Sign::Line(_))
        };
        self.signs.iter().zip(&self.record.checks).any(open)
    }

    /// The guest said something on its console.
    pub fn output(&mut self, bytes: &[u8]) {
        let Self { lines, signs, record, .. } = self;
        lines.push(bytes, |line| {
            for (sign, check) in signs.iter().zip(&mut record.checks) {
                let seen = check.at_ms.is_none()
                    && match sign {
                        Sign::Login => is_login_prompt(line),
                        Sign::Line(pattern) => pattern.is_match(line),
                        _ => false,
                    };
                if seen {
                    check.at_ms = Some(now_ms());
                }
            }
        });
    }

    /// The guest says that it is ready.
    pub fn told_ready(&mut self) {
        for (sign, check) in self.signs.iter().zip(&mut self.record.checks) {
            if matches!(sign, Sign::Said) && check.at_ms.is_none() {
                check.at_ms = Some(now_ms());
            }
        }
    }

    /// The guest gives a sign of life.
    pub fn beat(&mut self, now: Instant) {
        for (sign, check) in self.signs.iter_mut().zip(&mut self.record.checks) {
            if let Sign::Beat { every, due } = sign {
                *due = Some(now + *every);
                check.at_ms.get_or_insert_with(now_ms);
            }
        }
    }

    /// The guest says how it is. True if it said something else before.
    pub fn told(&mut self, said: String) -> bool {
        let said = Some(said).filter(|said| !said.is_empty());
        let new = said != self.record.said;
        self.record.said = said;
        new
    }

    /// Its console's log cannot be written any more, or can again.
    pub fn log_is_in_trouble(&mut self, why: Option<&str>) {
        self.record.log_trouble = why.map(str::to_owned);
    }

    fn expect_beats(&mut self, now: Instant) {
        for (sign, check) in self.signs.iter_mut().zip(&self.record.checks) {
            if let (Sign::Beat { every, due }, Some(_)) = (sign, check.at_ms) {
                *due = Some(now + *every);
            }
        }
    }

    /// When [`Watch::tick`] wants to be called; never, if there is nothing left to do.
    pub fn timer(&self) -> Option<Instant> {
        let deadline = self.deadline.filter(|_| self.record.state == ReadyState::Waiting);
        let signs = self.signs.iter().zip(&self.record.checks).filter_map(|(sign, check)| match sign {
            Sign::Asked(asked) if check.at_ms.is_none() => Some(asked.next),
            Sign::Beat { due, .. } => *due,
            _ => None,
        });
        signs.chain(deadline).min()
    }

    /// Does what is due. Calls `watch` with every new attempt: its number, and the descriptor that becomes readable or
    /// writable when there is news of it.
    pub fn tick(&mut self, now: Instant, mut watch: impl FnMut(usize, BorrowedFd<'_>)) {
        let degraded = self.record.state == ReadyState::Degraded;
        for (index, (sign, check)) in self.signs.iter_mut().zip(&mut self.record.checks).enumerate() {
            match sign {
                Sign::Asked(asked) if check.at_ms.is_none() && asked.next <= now => {
                    if asked.due(now, degraded) {
                        check.at_ms = Some(now_ms());
                    } else if let Some(fd) = asked.probe.fd().filter(|_| asked.pending) {
                        watch(index, fd);
                    }
                }
                Sign::Beat { due, .. } if due.is_some_and(|due| due <= now) => {
                    *due = None;
                    check.at_ms = None;
                }
                _ => {}
            }
        }
    }

    /// There is news of an attempt.
    pub fn attempted(&mut self, index: usize, now: Instant) {
        let degraded = self.record.state == ReadyState::Degraded;
        let (Some(Sign::Asked(asked)), Some(check)) =
            (self.signs.get_mut(index), self.record.checks.get_mut(index))
        else {
            return;
        };
        if asked.pending {
            let progress = asked.probe.event();
            if asked.concluded(progress, now, degraded) {
                check.at_ms.get_or_insert_with(now_ms);
            }
        }
    }

    /// Draws the conclusion from what was seen; true if the state is another one now.
    pub fn conclude(&mut self, now: Instant) -> bool {
        let all = self.record.checks.iter().all(|c| c.at_ms.is_some());
        let state = match self.record.state {
            _ if all => ReadyState::Ready,
            ReadyState::Ready => ReadyState::Degraded,
            ReadyState::Waiting if self.deadline.is_some_and(|d| d <= now) => ReadyState::Degraded,
            same => same,
        };
        if state == self.record.state {
            return false;
        }
        self.record.state = state;
        let moment = Moment::now();
        self.record.at_ms = moment.at_ms;
        self.record.after_ms = u64::try_from(self.began.until(moment).as_millis()).unwrap_or(u64::MAX);
        if state == ReadyState::Ready {
            self.record.ready_at_ms.get_or_insert(moment.at_ms);
            self.record.ready_up_ms.get_or_insert(moment.up_ms);
            self.let_go();
        }
        true
    }

    /// Whether another number of signs has been seen than at the last call.
    pub fn has_news(&mut self) -> bool {
        let seen = self.record.checks.iter().filter(|check| check.at_ms.is_some()).count();
        std::mem::replace(&mut self.known, seen) != seen
    }

    /// Patterns and their caches are the largest thing that a console has.
    fn let_go(&mut self) {
        for sign in self.signs.iter_mut().filter(|sign| !matches!(sign, Sign::Beat { .. })) {
            *sign = Sign::Done;
        }
        self.lines = Lines::default();
    }
}

impl Asked {
    fn new(probe: impl Probe + 'static, now: Instant) -> Self {
        Self { probe: Box::new(probe), pending: false, failures: 0, next: now }
    }

    /// Its time has come: gives up what is pending, or begins the next attempt. True if that has succeeded at once.
    fn due(&mut self, now: Instant, degraded: bool) -> bool {
        if self.pending {
            self.probe.give_up();
            self.failed(now, degraded);
            return false;
        }
        let progress = self.probe.begin().unwrap_or(Progress::Failed);
        self.concluded(progress, now, degraded)
    }

    fn concluded(&mut self, progress: Progress, now: Instant, degraded: bool) -> bool {
        match progress {
            Progress::Pending if !self.pending => {
                self.pending = true;
                self.next = now + self.probe.pace().patience;
            }
            Progress::Pending => {}
            Progress::Failed => self.failed(now, degraded),
            Progress::Seen => self.pending = false,
        }
        progress == Progress::Seen
    }

    fn failed(&mut self, now: Instant, degraded: bool) {
        let pace = self.probe.pace();
        let growing = pace.retry.saturating_mul(1 << self.failures.min(16)).min(pace.longest);
        self.failures = self.failures.saturating_add(1);
        self.pending = false;
        self.next = now + if degraded { growing.max(pace.degraded) } else { growing };
    }
}

fn sign(
    place: &Place,
    run: &RunRecord,
    settings: &Settings,
    check: &ReadyCheck,
    now: Instant,
) -> Result<Sign> {
    let port = |number: u16, wanted| match settings.address {
        Some(mut to) => {
            to.set_port(number);
            Sign::Asked(Asked::new(port::Port::new(to, run.netns.clone(), wanted), now))
        }
        // Nobody said where: it is never seen.
        None => Sign::Done,
    };
    let command = |line: &str| {
        let ip = settings.address.map(|to| to.ip());
        let script = command::Script::new(line.to_owned(), place.guest.clone(), ip, run.netns.clone());
        Sign::Asked(Asked::new(script, now))
    };
    Ok(match check {
        ReadyCheck::Login => Sign::Login,
        ReadyCheck::Console(text) => Sign::Line(pattern(text)?),
        ReadyCheck::Tcp(number) => port(*number, port::Wanted::Connection),
        ReadyCheck::Ssh(number) => port(*number, port::Wanted::SshBanner),
        ReadyCheck::Notify => Sign::Said,
        ReadyCheck::Agent => Sign::Asked(Asked::new(agent::Agent::new(place.agent.clone()), now)),
        ReadyCheck::Checks => command(&place.checks),
        ReadyCheck::Command(line) => command(line),
        ReadyCheck::Heartbeat(seconds) => {
            Sign::Beat { every: Duration::from_secs(u64::from(*seconds).max(1)), due: None }
        }
    })
}

#[cfg(test)]
mod tests;

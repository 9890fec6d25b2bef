//! What a long step may say while it runs: a line of talk on stderr, never on stdout.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::names::Bytes;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C (and SIGTERM, SIGHUP) asks for an orderly end: long steps look at [`interrupted`], fail, and what
/// they had done is walked back. A second one ends the process at once.
pub fn catch_interrupts() -> std::io::Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // The order matters: the first signal must not yet find the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(())
}

/// Whether the user has asked for an end.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// How much talk the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Talk {
    /// Errors only.
    Quiet,
    /// What is being done.
    Normal,
    /// Each command and each decision.
    Verbose,
}

/// A place to say what is going on. On a terminal the running line is redrawn in place; elsewhere a line is printed
/// every few seconds, so that a log shows that work goes on without filling up.
#[derive(Debug)]
pub struct Progress {
    talk: Talk,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    drawn: bool,
}

const EVERY_ON_TERMINAL: Duration = Duration::from_millis(100);
const EVERY_ELSEWHERE: Duration = Duration::from_secs(5);

impl Progress {
    /// Talk on this process's stderr.
    pub fn new(talk: Talk) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { talk, terminal, state: Mutex::new(State { last: Instant::now(), drawn: false }) }
    }

    /// Says nothing, for tests and for `--quiet`.
    pub fn silent() -> Self {
        Self::new(Talk::Quiet)
    }

    /// Whether details are wanted.
    pub fn verbose(&self) -> bool {
        self.talk == Talk::Verbose
    }

    /// One lasting line.
    pub fn say(&self, line: &str) {
        if self.talk >= Talk::Normal {
            self.print(line, true);
        }
    }

    /// One lasting line, only with `-v`.
    pub fn detail(&self, line: &str) {
        if self.talk == Talk::Verbose {
            self.print(line, true);
        }
    }

    /// How far a running step is; call as often as is convenient, it is shown only now and then.
    pub fn tick(&self, line: &str) {
        self.tick_with(|| line.to_owned());
    }

    /// As [`Progress::tick`], for a line that is made only when it is shown.
    pub fn tick_with(&self, line: impl FnOnce() -> String) {
        if self.talk == Talk::Quiet {
            return;
        }
        let every = if self.terminal { EVERY_ON_TERMINAL } else { EVERY_ELSEWHERE };
        let due = match self.state.lock() {
            Ok(mut state) => {
                let due = state.last.elapsed() >= every;
                if due {
                    state.last = Instant::now();
                }
                due
            }
            Err(_) => false,
        };
        if due {
            self.print(&line(), !self.terminal);
        }
    }

    /// A step that goes on for so many bytes, if that is known.
    pub fn meter(&self, what: impl Into<String>, total: Option<u64>) -> Meter<'_> {
        Meter {
            progress: self,
            what: what.into(),
            total,
            done: AtomicU64::new(0),
            pace: Mutex::new(Pace::default()),
        }
    }

    fn print(&self, line: &str, lasting: bool) {
        let Ok(mut state) = self.state.lock() else { return };
        let mut err = std::io::stderr().lock();
        let clear = if state.drawn { "\r\x1b[K" } else { "" };
        // A closed stderr is no reason to stop the work.
        let _ = if lasting { writeln!(err, "{clear}{line}") } else { write!(err, "{clear}{line}") };
        let _ = err.flush();
        state.drawn = !lasting;
    }
}

/// How far a step is that goes through bytes: a bar, how much, how fast, and how long it will still take. Any number of threads
/// may add to it.
#[derive(Debug)]
pub struct Meter<'p> {
    progress: &'p Progress,
    what: String,
    total: Option<u64>,
    done: AtomicU64,
    pace: Mutex<Pace>,
}

impl Meter<'_> {
    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.show(done);
    }

    /// So many bytes are done altogether, such as when a part of them was there from before.
    pub fn set(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
        self.show(bytes);
    }

    /// How many bytes are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn show(&self, done: u64) {
        self.progress.tick_with(|| {
            let rate = match self.pace.lock() {
                Ok(mut pace) => pace.at(Instant::now(), done),
                Err(_) => None,
            };
            line(&self.what, done, self.total, rate, self.progress.terminal)
        });
    }
}

/// How fast it went in the last while.
#[derive(Debug, Default)]
struct Pace {
    samples: std::collections::VecDeque<(Instant, u64)>,
}

/// What was before says little of what is to come.
const PACE_OVER: Duration = Duration::from_secs(20);

impl Pace {
    /// Bytes a second; `None` until it can be told.
    fn at(&mut self, now: Instant, done: u64) -> Option<f64> {
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(then, _)| now - *then > PACE_OVER)
        {
            self.samples.pop_front();
        }
        let (then, before) = *self.samples.front()?;
        let seconds = (now - then).as_secs_f64();
        let bytes = done.checked_sub(before)?;
        (seconds > 0.0 && bytes > 0).then(|| bytes as f64 / seconds)
    }
}

/// Cells of the bar on a terminal.
const BAR: u64 = 20;

fn line(what: &str, done: u64, total: Option<u64>, rate: Option<f64>, bar: bool) -> String {
    let mut line = format!("{what}: ");
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let part = done.min(total);
            let of = |parts: u64| (u128::from(part) * u128::from(parts) / u128::from(total)) as usize;
            if bar {
                line += &format!("[{:<width$}] ", "#".repeat(of(BAR)), width = BAR as usize);
            }
            line += &format!("{}%, {} of {}", of(100), Bytes(part), Bytes(total));
        }
        None => line += &Bytes(done).to_string(),
    }
    if let Some(rate) = rate {
        line += &format!(", {}/s", Bytes(rate as u64));
        if let Some(left) = total.and_then(|total| total.checked_sub(done)) {
            line += &format!(", {} left", time(left as f64 / rate));
        }
    }
    line
}

fn time(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}min {:02}s", s / 60, s % 60),
        s => format!("{}h {:02}min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_tells_how_much_how_fast_and_how_long() {
        let mib = 1 << 20;
        assert_eq!(line("packing", 0, Some(100 * mib), None, false), "packing: 0%, 0B of 100M");
        let told = line("packing", 25 * mib, Some(100 * mib), Some(mib as f64), true);
        assert_eq!(told, "packing: [#####               ] 25%, 25M of 100M, 1M/s, 1min 15s left");
        assert_eq!(line("fetching", 5 * mib, None, Some(mib as f64), true), "fetching: 5M, 1M/s");
        assert_eq!(line("x", 9, Some(5), Some(1.0), false), "x: 100%, 5B of 5B, 1B/s");
        assert_eq!(time(7322.0), "2h 02min");
    }

    #[test]
    fn the_pace_is_that_of_the_last_while() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.at(start, 0), None);
        assert_eq!(pace.at(start + Duration::from_secs(10), 1000), Some(100.0));
        for second in 11..60 {
            pace.at(start + Duration::from_secs(second), 1000 + (second - 10) * 5);
        }
        assert_eq!(pace.at(start + Duration::from_secs(60), 1250), Some(5.0));
    }
}

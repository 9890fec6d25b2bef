//! What a long step may say while it runs: a line of talk on stderr, never on stdout.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

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
            self.print(line, !self.terminal);
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

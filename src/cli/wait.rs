//! `gridgate wait`: block until a guest is ready or stopped.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Ending, Exit};
use crate::console::client;
use crate::console::protocol::{Event, For};
use crate::console::record::RunRecord;
use crate::names::{GuestName, parse_duration};

/// Wait until a guest is ready or stopped
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    pub guest: GuestName,
    /// What to wait for
    // Named apart from the directory `--state`, which every command has.
    #[arg(id = "for", long = "for", value_name = "STATE", value_enum, default_value = "ready")]
    pub state: State,
    /// How long at most, such as 90s or 5min; for ever if not said
    #[arg(long, value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Long enough for any wait, and short enough for the kernel's clocks.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    /// Every sign of readiness was seen
    Ready,
    /// Its process is gone
    Stopped,
}

/// There is nobody to ask about a site that is down, and nothing to wait on until somebody brings it up.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How late it is noticed that there is no holder to wait for any more.
const SLICE: Duration = Duration::from_millis(500);

/// Exit 0 when it is so, 3 when the time is over, or when a guest ends that was to become ready.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    context.was_here(&args.guest)?;
    let guest = &args.guest;
    let differs = |message: String| Err(Ending::error(Exit::Differs, message));
    let limit = args.timeout.unwrap_or(FOR_EVER);
    let started = Instant::now();
    context.revive_holder()?;
    while !client::holder_runs(&context.paths) {
        let runs = RunRecord::read(&context.paths, guest)?.is_some_and(|run| run.is_alive());
        match args.state {
            State::Stopped if !runs => return Ok(Exit::Done),
            State::Ready if !runs && started.elapsed() >= limit => {
                return differs(format!("guest '{guest}' does not run\nhint: gridgate up {guest}"));
            }
            _ if runs => break,
            _ => std::thread::sleep(ASK_AGAIN.min(limit)),
        }
    }
    let what = match args.state {
        State::Ready => For::Ready,
        State::Stopped => For::Stopped,
    };
    let event = loop {
        let left = limit.saturating_sub(started.elapsed());
        let event = client::wait_event(&context.paths, guest, what, None, left.min(SLICE))?;
        if event.is_some() || left <= SLICE {
            break event;
        }
        // One that was just being killed may still have answered above.
        context.revive_holder()?;
    };
    match (what, event) {
        (For::Ready, Some(Event::Stopped(exit))) => {
            let how = exit.map_or_else(|| "ended".to_owned(), |exit| exit.told());
            let hint = format!("hint: see why with: gridgate console {guest} --log");
            differs(format!("guest '{guest}' ended before it was ready ({how})\n{hint}"))
        }
        (_, Some(_)) => Ok(Exit::Done),
        (For::Ready, None) => differs(format!("guest '{guest}' is not ready yet")),
        (For::Stopped, None) => differs(format!("guest '{guest}' is not stopped yet")),
    }
}

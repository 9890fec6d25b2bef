//! `gridgate wait`: block until a guest is ready or stopped.

use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Ending, Exit};
use crate::console::client;
use crate::console::protocol::For;
use crate::names::{GuestName, parse_duration};

/// Wait until a guest is ready or stopped
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    pub guest: GuestName,
    /// What to wait for
    #[arg(long = "for", value_name = "STATE", value_enum, default_value = "ready")]
    pub awaited: State,
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

/// Exit 0 when it is so, 3 when the time is over.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    context.was_here(&args.guest)?;
    let what = match args.awaited {
        State::Ready => For::Ready,
        State::Stopped => For::Stopped,
    };
    match client::wait_event(&context.paths, &args.guest, what, None, args.timeout.unwrap_or(FOR_EVER))? {
        Some(_) => Ok(Exit::Done),
        None => {
            let state = if what == For::Ready { "ready" } else { "stopped" };
            Err(Ending::error(Exit::Differs, format!("guest '{}' is not {state} yet", args.guest)))
        }
    }
}

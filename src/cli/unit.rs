//! `gridgate unit`: what a guest's units call when the guest is to stop, when it has ended, and to know when it is ready.

use std::time::Duration;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use super::{Context, Ending, Exit};
use crate::backend::spec::Spec;
use crate::console::exit;
use crate::console::record::{Cause, RunRecord};
use crate::host::files::Files;
use crate::host::remains;
use crate::names::GuestName;
use crate::service::ladder::{self, Rung};
use crate::service::{self, Readiness};

/// Stop a guest, or note its end, on behalf of its unit
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What is the matter
    #[arg(value_enum)]
    pub what: What,
    /// The guest
    pub guest: GuestName,
}

/// `ExecStop=` and `ExecStopPost=` of the unit, and `ExecStart=` of the one that others wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// It is to stop
    Stop,
    /// It has ended
    Ended,
    /// It is waited for until it is ready
    Ready,
}

/// See [`What`].
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let (paths, guest) = (&context.paths, &args.guest);
    let record = RunRecord::read(paths, guest)?;
    match args.what {
        What::Stop => {
            let alive = record.filter(RunRecord::is_alive);
            if let (Some(record), Some(spec)) = (alive, Spec::read(&context.host, paths, guest)?) {
                let mut tell = |rung: &str| context.progress.say(&format!("{guest}: stopping: {rung}"));
                let stopped = ladder::stop(paths, &spec, &record, &mut tell)?;
                if stopped.rung != Rung::Already {
                    context.host.write(&paths.last_stop(guest), &serde_json::to_vec(&stopped)?, 0o644)?;
                    context.progress.say(&format!("{guest}: {stopped}"));
                }
            }
        }
        What::Ended => {
            // systemd.exec(5): $EXIT_CODE and $EXIT_STATUS of the main process; a signal is told by name.
            let variable = |name: &str| std::env::var(name).unwrap_or_default();
            let status = variable("EXIT_STATUS");
            let (cause, code) = match variable("EXIT_CODE").as_str() {
                "exited" => (Cause::Exit, status.parse().ok()),
                "killed" | "dumped" => (Cause::Signal, signal_number(&status)),
                _ => (Cause::Unknown, None),
            };
            exit::ended(paths, guest, cause, code)?;
            let netns = record.and_then(|record| record.netns);
            remains::take_away(&context.host, paths, guest, netns.as_deref())?;
        }
        What::Ready => {
            let spec = Spec::read(&context.host, paths, guest)?;
            let limit = spec.map_or(0, |spec| spec.ready_timeout_ms);
            // Under systemd the console holder is a unit, and comes back by itself.
            match service::readiness(paths, guest, Duration::from_millis(limit), || Ok(()))? {
                Readiness::Ready { after } => {
                    context.progress.say(&format!("{guest}: ready after {:.1} s", after.as_secs_f64()));
                }
                Readiness::NotYet => {
                    let message = format!("guest '{guest}' is not ready in its time, and left running");
                    return Err(Ending::error(Exit::Differs, message));
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn signal_number(name: &str) -> Option<i32> {
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

//! `gridgate unit`: what a guest's units call before it starts, when it runs, when it is to stop and when it has ended, and
//! to know when it is ready.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args as ClapArgs, ValueEnum};

use super::{Context, Ending, Exit, prepare};
use crate::backend::spec::Spec;
use crate::console::exit::{self, ExitRecord};
use crate::console::record::{Cause, RunRecord};
use crate::console::restart::{Decision, Restarts};
use crate::events;
use crate::host::files::Files;
use crate::host::{notify, remains};
use crate::identity::personalise;
use crate::names::GuestName;
use crate::service::ladder::{self, Rung};
use crate::service::{self, Readiness, handover, machined, quarters};

/// Do a part of a guest's life on behalf of its units
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What is the matter
    #[arg(value_enum)]
    pub what: What,
    /// The guest
    pub guest: GuestName,
}

/// `ExecStartPre=`, `ExecStartPost=`, `ExecStop=` and `ExecStopPost=` of the unit, and `ExecStart=` of the one that others
/// wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// It is to start
    Prepare,
    /// Its hypervisor runs
    Started,
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
    // The unit's own is for the guest's process.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let record = RunRecord::read(paths, guest)?;
    match args.what {
        What::Prepare => return prepare::run(guest, context),
        What::Started => {
            let pid = std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok());
            let pid = pid.context("there is no process number in $MAINPID")?;
            handover::started(paths, guest, pid)
                .with_context(|| format!("noting the start of guest '{guest}'"))?;
        }
        What::Stop => {
            let alive = record.filter(RunRecord::is_alive);
            if let (Some(record), Some(spec)) = (alive, Spec::read(&context.host, paths, guest)?) {
                let mut tell = |rung: &str| {
                    notify::status(&format!("stopping: {rung}"));
                    context.progress.say(&format!("{guest}: stopping: {rung}"));
                };
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
            // One that was refused has not lived.
            if code != Some(Exit::Config as i32) {
                let exit = exit::ended(paths, guest, cause, code)?;
                note_early_death(context, guest, &exit)?;
            }
            let netns = record.and_then(|record| record.netns);
            remains::take_away(&context.host, paths, guest, netns.as_deref())?;
            // A guest that was never ready has nobody else who brings its new disk to stable storage.
            personalise::settle(&context.host, paths, guest)?;
            quarters::clear(paths, guest)?;
        }
        What::Ready => {
            let spec = Spec::read(&context.host, paths, guest)?;
            if let Some((run, spec)) = record.zip(spec.as_ref()) {
                machined::register(&context.host, spec, run.pid);
            }
            let limit = spec.map_or(0, |spec| spec.ready_timeout_ms);
            // Under systemd the console holder is a unit, and comes back by itself.
            let came = service::readiness(paths, guest, Duration::from_millis(limit), || Ok(()))?;
            personalise::settle(&context.host, paths, guest)?;
            match came {
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

/// Whether it is started again is the unit's `Restart=`; when, is decided here, and waited for by the next preparation.
fn note_early_death(context: &Context, guest: &GuestName, exit: &ExitRecord) -> Result<()> {
    let paths = &context.paths;
    let Some(spec) = Spec::read(&context.host, paths, guest)? else { return Ok(()) };
    let mut restarts = Restarts::read(paths, guest);
    match restarts.after_end(&spec.supervision.restart, exit) {
        Decision::Stay => Restarts::forget(paths, guest),
        Decision::Again { at_ms } => {
            events::note(paths, guest, events::What::Waiting { next_try_ms: at_ms, why: exit.why() });
            restarts.write(paths, guest)
        }
    }
}

fn signal_number(name: &str) -> Option<i32> {
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

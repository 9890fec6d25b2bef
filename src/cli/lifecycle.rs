//! `gridgate start`, `stop`, `restart` and `kill`: named guests, one word each.

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Exit, up};
use crate::config::site::Site;
use crate::facts;
use crate::names::GuestName;
use crate::plan::{Action, Plan, down};
use crate::service::desired::{self, Desired};
use crate::service::{self, Manager};

/// Start guests, and what they need
#[derive(Debug, ClapArgs)]
pub struct StartArgs {
    /// Guests to start
    #[arg(required = true, value_name = "GUEST")]
    pub guests: Vec<GuestName>,
}

/// Stop guests, politely at first
#[derive(Debug, ClapArgs)]
pub struct StopArgs {
    /// Guests to stop
    #[arg(required = true, value_name = "GUEST")]
    pub guests: Vec<GuestName>,
}

/// Stop guests and start them again as the site's files are now
#[derive(Debug, ClapArgs)]
pub struct RestartArgs {
    /// Guests to restart
    #[arg(required = true, value_name = "GUEST")]
    pub guests: Vec<GuestName>,
}

/// Stop guests as a power cut would
#[derive(Debug, ClapArgs)]
pub struct KillArgs {
    /// Guests to kill
    #[arg(required = true, value_name = "GUEST")]
    pub guests: Vec<GuestName>,
}

/// As `up` with names.
pub fn start(args: &StartArgs, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    context.need_root("starting guests")?;
    up::up(context, &site, &args.guests)
}

/// Stops only the guests; networks stay for the others.
pub fn stop(args: &StopArgs, context: &Context) -> Result<Exit> {
    context.need_root("stopping guests")?;
    let site = context.site_to_stop();
    stop_guests(context, &site, &args.guests)
}

/// Stop, then start.
pub fn restart(args: &RestartArgs, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    context.need_root("restarting guests")?;
    match stop_guests(context, &site, &args.guests)? {
        // Who came in between is waited for: guests that were stopped only to be started again must not stay down.
        Exit::Done => up::up_under(context.lock_again()?, context, &site, &args.guests),
        other => Ok(other),
    }
}

/// The hard way, at once and for each.
pub fn kill(args: &KillArgs, context: &Context) -> Result<Exit> {
    context.need_root("killing guests")?;
    let site = context.site_to_stop();
    context.known_or_here(&site, &args.guests)?;
    let _lock = context.lock()?;
    let manager = service::manager(&context.paths)?;
    for guest in &args.guests {
        desired::write(&context.host, &context.paths, guest, Desired::Stopped)?;
        let stopped = manager.kill(guest)?;
        context.progress.say(&format!("{guest}: {stopped}"));
    }
    manager.agree(&context.host)?;
    Ok(Exit::Done)
}

/// For a guest that ended by itself: it is not asked to run any more, and does not come up again at a boot of the host.
pub fn keep_down(context: &Context, manager: &dyn Manager, guest: &GuestName) -> Result<()> {
    desired::write(&context.host, &context.paths, guest, Desired::Stopped)?;
    manager.stop(guest, &mut |_| ())?;
    manager.agree(&context.host)
}

fn stop_guests(context: &Context, site: &Site, guests: &[GuestName]) -> Result<Exit> {
    context.known_or_here(site, guests)?;
    let lock = context.lock()?;
    let facts = facts::gather_to_stop(&context.host, &context.paths, site)?;
    let whole = down::plan(&context.paths, site, &facts, guests, false).map_err(up::refuse)?;
    // The last guest's stop leaves the networks as they are: that is what `down` is for.
    let steps =
        whole.steps.into_iter().take_while(|step| matches!(step.action, Action::Stop { .. })).collect();
    let plan = Plan { steps, ..whole };
    let manager = service::manager(&context.paths)?;
    for guest in guests {
        if facts.guests.get(guest).is_none_or(|found| found.running.is_none()) {
            keep_down(context, manager.as_ref(), guest)?;
            context.progress.say(&format!("{guest}: was not running"));
        }
    }
    let outcome = up::walk(context, site, &plan, lock)?;
    up::conclude(&plan, &outcome)
}

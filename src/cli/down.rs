//! `gridgate down`: guests in reverse order, then what held them together.

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Exit, lifecycle, up};
use crate::facts;
use crate::names::GuestName;
use crate::plan;
use crate::service;
use crate::service::desired::{self, Desired};

/// Take guests down in reverse order, politely at first
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Guests to take down; all, and the site's networks, if none is named
    #[arg(value_name = "GUEST")]
    pub guests: Vec<GuestName>,
    /// Remove their disks, identities and logs as well
    #[arg(long)]
    pub purge: bool,
}

/// Takes guests down and says how each went.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    context.need_root("taking guests down")?;
    let site = context.site_to_stop();
    context.known_or_here(&site, &args.guests)?;
    let lock = context.lock()?;
    let facts = facts::gather_to_stop(&context.host, &context.paths, &site)?;
    let plan =
        plan::down::plan(&context.paths, &site, &facts, &args.guests, args.purge).map_err(up::refuse)?;
    let manager = service::manager(&context.paths)?;
    for (guest, found) in &facts.guests {
        let meant = args.guests.is_empty() || args.guests.contains(guest);
        let asked_to_run = desired::read(&context.host, &context.paths, guest)? == Desired::Running;
        if meant && found.running.is_none() && asked_to_run {
            lifecycle::keep_down(context, manager.as_ref(), guest)?;
        }
    }
    if plan.is_empty() {
        context.progress.say("nothing to do: all is down");
        return Ok(Exit::Done);
    }
    let outcome = up::walk(context, &site, &plan, lock)?;
    up::conclude(&plan, &outcome)
}

//! `gridgate up` and `gridgate plan`: the same plan, walked or printed.

use anyhow::Result;
use clap::Args as ClapArgs;
use serde::Serialize;

use super::{Context, Ending, Exit};
use crate::apply::gate::Gate;
use crate::apply::{self, Machine, Outcome};
use crate::config::site::Site;
use crate::facts;
use crate::host::files::LockGuard;
use crate::names::GuestName;
use crate::plan::{self, Plan, Problem};
use crate::report;
use crate::service::{self, desired};

/// Show what `up` would do
#[derive(Debug, ClapArgs)]
pub struct PlanArgs {
    /// Guests to bring up; those that start with the host if none is named
    #[arg(value_name = "GUEST")]
    pub guests: Vec<GuestName>,
}

/// Bring guests up: networks, disks, identities, and start
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Guests to bring up; those that start with the host if none is named
    #[arg(value_name = "GUEST")]
    pub guests: Vec<GuestName>,
    /// Only guests that were not stopped on purpose, as after a boot of a host without systemd
    #[arg(long, conflicts_with = "guests")]
    pub desired: bool,
}

#[derive(Serialize)]
struct PlanDocument {
    version: u32,
    steps: Vec<StepDocument>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct StepDocument {
    step: usize,
    what: String,
    after: Vec<usize>,
    behind: Vec<usize>,
}

/// Prints the plan; exit 3 if there is something to do.
pub fn plan(args: &PlanArgs, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    context.known(&site, &args.guests)?;
    let facts = facts::gather(&context.host, &context.paths, &site)?;
    let plan = plan::up::plan(&context.paths, &site, &facts, &args.guests).map_err(refuse)?;
    if context.json {
        let step = |(number, step): (usize, &plan::Step)| StepDocument {
            step: number + 1,
            what: step.action.to_string(),
            after: step.after.iter().map(|before| before + 1).collect(),
            behind: step.behind.iter().map(|before| before + 1).collect(),
        };
        let steps = plan.steps.iter().enumerate().map(step).collect();
        super::print_json(&PlanDocument { version: 1, steps, notes: plan.notes.clone() })?;
    } else {
        super::print(&report::text::plan(&plan))?;
        for guest in &plan.degraded {
            context
                .progress
                .say(&format!("{guest} runs but is not ready; look at: gridgate console {guest}"));
        }
        if plan.is_empty() && plan.degraded.is_empty() {
            context.progress.say("nothing to do: everything is as the site wants it");
        }
    }
    Ok(if plan.is_empty() && plan.degraded.is_empty() { Exit::Done } else { Exit::Differs })
}

/// Makes it so, and waits until the guests are ready.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    context.need_root("bringing guests up")?;
    if !args.desired {
        return up(context, &site, &args.guests);
    }
    let wanted = desired::wanted(&context.host, &context.paths, &site)?;
    if wanted.is_empty() {
        context.progress.say("nothing to do: no guest is to run");
        return Ok(Exit::Done);
    }
    up(context, &site, &wanted)
}

/// What `up` and `start` do.
pub fn up(context: &Context, site: &Site, guests: &[GuestName]) -> Result<Exit> {
    context.known(site, guests)?;
    up_under(context.lock()?, context, site, guests)
}

/// As [`up`], under the site's lock.
pub fn up_under(lock: LockGuard, context: &Context, site: &Site, guests: &[GuestName]) -> Result<Exit> {
    let facts = facts::gather(&context.host, &context.paths, site)?;
    let plan = plan::up::plan(&context.paths, site, &facts, guests).map_err(refuse)?;
    for note in &plan.notes {
        context.progress.say(&format!("note: {note}"));
    }
    if plan.is_empty() && plan.degraded.is_empty() {
        context.progress.say("nothing to do: everything is as the site wants it");
        return Ok(Exit::Done);
    }
    let outcome = walk(context, site, &plan, lock)?;
    if !service::manager(&context.paths)?.boots_with_host(&context.host)? {
        context
            .progress
            .say("note: guests come up with the host from now on with: systemctl enable gridgate.target");
    }
    conclude(&plan, &outcome)
}

/// Walks a plan on this machine; `lock` is what it was made under.
pub fn walk(context: &Context, site: &Site, plan: &Plan, lock: LockGuard) -> Result<Outcome> {
    crate::progress::catch_interrupts()?;
    let manager = service::manager(&context.paths)?;
    let machine = Machine {
        host: &context.host,
        manager: manager.as_ref(),
        paths: &context.paths,
        site,
        progress: &context.progress,
        gate: &Gate::new(lock, || context.lock_again()),
        // Guests wait for each other and for their disks far longer than for processors.
        workers: 64,
    };
    let outcome = apply::apply(machine, plan);
    manager.agree(&context.host)?;
    Ok(outcome)
}

/// The exit that an outcome deserves.
pub fn conclude(plan: &Plan, outcome: &Outcome) -> Result<Exit> {
    if !outcome.is_good() {
        let exit = if outcome.all_undone() { Exit::Failed } else { Exit::HalfWay };
        return Err(Ending::error(exit, report::text::failure(plan, outcome)));
    }
    let not_ready: Vec<&GuestName> = plan.degraded.iter().chain(&outcome.not_ready).collect();
    if let Some(first) = not_ready.first() {
        let names: Vec<&str> = not_ready.iter().map(|guest| guest.as_str()).collect();
        let message = format!(
            "not ready in time, and left running: {}\nhint: see why with: gridgate console {first}",
            names.join(", ")
        );
        return Err(Ending::error(Exit::Differs, message));
    }
    Ok(Exit::Done)
}

/// All problems of a plan as one error. Nothing was changed.
pub fn refuse(problems: Vec<Problem>) -> anyhow::Error {
    let mut text = String::new();
    for problem in &problems {
        text.push_str(&format!("{}\n", problem.message));
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
    }
    Ending::error(Exit::Failed, text)
}

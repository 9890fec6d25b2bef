//! `gridgate unit prepare`: all that a guest's unit needs before its process can become the hypervisor, with nobody there.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Context, Exit, up};
use crate::backend::spec::Spec;
use crate::config::lenient;
use crate::config::site::{Guest, Site};
use crate::console::now_ms;
use crate::console::restart::Restarts;
use crate::facts::{self, Facts};
use crate::host::files::Files;
use crate::host::{notify, programs};
use crate::names::GuestName;
use crate::plan::{self, Plan};
use crate::progress;
use crate::service::{self, generate, handover};

/// Succeeds even if the guest cannot be started: then its process is given the reason, and fails with it.
pub fn run(guest: &GuestName, context: &Context) -> Result<Exit> {
    progress::catch_interrupts()?;
    handover::begin()?;
    match prepare(guest, context) {
        Ok(()) => {}
        // Somebody stops the unit while it waits.
        Err(error) if progress::interrupted() => return Err(error),
        Err(error) => handover::refuse(&format!("{error:#}"))?,
    }
    Ok(Exit::Done)
}

fn prepare(guest: &GuestName, context: &Context) -> Result<()> {
    notify::status("looking at the site");
    as_wanted(guest, context)?;
    let Some(spec) = Spec::read(&context.host, &context.paths, guest)? else {
        bail!("guest '{guest}' was not laid out, which is a mistake in gridgate")
    };
    wait_until_tried_again(guest, context)?;
    wait_for_delay(&spec, context)?;
    notify::status("handing over to the guest's user");
    handover::hand_over(&context.paths, &spec)
}

/// Makes disk, identity and spec what the site's files say now. If something else in the site is wrong, a guest that has run
/// here before is started as it was then: what is derived for it may hang on what cannot be read.
fn as_wanted(guest: &GuestName, context: &Context) -> Result<()> {
    let (host, paths) = (&context.host, &context.paths);
    let loaded = lenient::load(&paths.site, &context.load_options());
    if let Some(problems) = loaded.refused(guest) {
        bail!("guest '{guest}' cannot be used:\n{problems}");
    }
    let Some(wanted) = loaded.site.guest(guest) else {
        bail!("the site in '{}' has no guest '{guest}'", paths.site.display())
    };
    let known = host.stat(&paths.spec(guest))?.is_some() && host.stat(&paths.disk(guest))?.is_some();
    if !loaded.bad.is_empty() && known {
        context.progress.say("note: other guests' files are wrong; this one starts as it was last time");
        return Ok(());
    }
    lay_out(&loaded.site, wanted, known, context)
}

/// One at a time, and not while another command changes the site; that one may do what is to be done here, too.
fn lay_out(site: &Site, guest: &Guest, known: bool, context: &Context) -> Result<()> {
    /// Far longer than any command holds the lock.
    const LIMIT: Duration = Duration::from_secs(15 * 60);
    const TURN: Duration = Duration::from_millis(500);
    let (host, paths) = (&context.host, &context.paths);
    let began = Instant::now();
    // Nothing to do needs no lock. Who was never here has something to do, and may be the first to try the backends.
    while !(known && plan_for(site, guest, context)?.1.is_empty()) {
        match host.lock(&paths.lock(), TURN) {
            Ok(lock) => {
                let (_, plan) = plan_for(site, guest, context)?;
                let outcome = up::walk(context, site, &plan, lock)?;
                return up::conclude(&plan, &outcome).map(drop);
            }
            Err(error) if began.elapsed() > LIMIT => return Err(error),
            Err(_) if progress::interrupted() => bail!("interrupted"),
            Err(_) => notify::status("waiting for another gridgate command"),
        }
    }
    Ok(())
}

fn plan_for(site: &Site, guest: &Guest, context: &Context) -> Result<(Facts, Plan)> {
    let facts = facts::gather(&context.host, &context.paths, site)?;
    let plan = plan::up::prepare(&context.paths, site, &facts, guest).map_err(up::refuse)?;
    Ok((facts, plan))
}

/// A guest that systemd starts again after its end waits as its policy has it; one that people start does not.
fn wait_until_tried_again(guest: &GuestName, context: &Context) -> Result<()> {
    let mut restarts = Restarts::read(&context.paths, guest);
    if restarts.next_try_ms.is_none() {
        return Ok(());
    }
    if automatic(guest, context)? {
        let deaths = restarts.early_deaths;
        let why = restarts.why.clone();
        wait(restarts.wait(now_ms()), |left| format!("tried again in {left} ({why}, early death {deaths})"))?;
        restarts.trying();
        restarts.write(&context.paths, guest)
    } else {
        Restarts::forget(&context.paths, guest)
    }
}

/// systemd counts how often it has started a unit by itself since somebody else did.
fn automatic(guest: &GuestName, context: &Context) -> Result<bool> {
    use programs::{Program, Programs};
    let unit = generate::unit(guest);
    let show = Program::new("systemctl").args(["show", "--property=NRestarts", "--value", &unit]);
    Ok(context.host.run(&show)?.text() != "0")
}

/// One that systemd starts again has waited for its delay before.
fn wait_for_delay(spec: &Spec, context: &Context) -> Result<()> {
    let left = service::delay_left(&context.paths, spec)?;
    if left.is_zero() || automatic(&spec.guest, context)? {
        return Ok(());
    }
    wait(left, |left| format!("starts in {left}, as its delay has it"))
}

/// Says how long is left, once a second at first and less often later, so that a long wait costs nothing.
fn wait(span: Duration, told: impl Fn(&str) -> String) -> Result<()> {
    let until = Instant::now() + span;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        notify::status(&told(&format!("{} s", left.as_secs_f64().ceil())));
        let step =
            if left > Duration::from_secs(60) { Duration::from_secs(10) } else { Duration::from_secs(1) };
        // SIGTERM is the unit's stop, and ends the sleep; the standard library's would go on.
        let sleep = left.min(step);
        let spec = rustix::event::Timespec {
            tv_sec: i64::try_from(sleep.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(sleep.subsec_nanos()),
        };
        let _ = rustix::event::poll(&mut [], Some(&spec));
        if progress::interrupted() {
            bail!("stopped while it waited");
        }
    }
}

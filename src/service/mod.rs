//! Who keeps guests up: systemd where it is PID 1, else the console holder itself, behind one trait.
//!
//! Both start the same thing: `gridgate launch GUEST`, which lays out the guest's disk, cable and terminal and then becomes
//! the hypervisor, so that no process of gridgate's stands between a guest and whoever supervises it.

pub mod desired;
pub mod terminal;
pub mod quarters;
pub mod launch;
pub mod handover;
pub mod machined;
pub mod shell;
pub mod still;
pub mod ladder;
pub mod limits;
pub mod direct;
pub mod generate;
pub mod boot;
pub mod systemd;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::backend::spec::Spec;
use crate::config::site::Site;
use crate::console::client;
use crate::console::protocol::{Event, For, Settings};
use crate::console::record::{ReadyRecord, RunRecord};
use crate::events;
use crate::host::files::Files;
use crate::host::{Host, Live};
use crate::names::GuestName;
use crate::network;
use crate::paths::Paths;
use crate::service::ladder::Stopped;

/// Tells those who follow the site's events that somebody asked for something.
fn asked(paths: &Paths, guest: &GuestName, desired: desired::Desired) {
    events::note(paths, guest, events::What::Asked { desired: desired.to_string() });
}

/// What came of waiting for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It is ready.
    Ready {
        /// Counted from its launch.
        after: Duration,
    },
    /// It runs, and its time is over. It is not killed for that, and may still become ready.
    NotYet,
}

/// What a manager of services can do for guests.
pub trait Manager: Send + Sync {
    /// As `status` and `plan` call it.
    fn name(&self) -> &'static str;
    /// Gets ready to start guests: the console holder runs when this returns, and whoever starts guests at boot knows in
    /// which order. Done already is fine.
    fn prepare(&self, host: &dyn Host, site: &Site) -> Result<()>;
    /// Starts the guest; when this returns, its hypervisor runs. An error carries what the launcher said. Running already
    /// is an error.
    fn start(&self, guest: &GuestName) -> Result<()>;
    /// Stops the guest, politely at first; when this returns, its process is gone, and a boot of the host does not bring it
    /// up again. Stopped already is fine.
    /// `progress` is told, where that can be known, how far it has come.
    fn stop(&self, guest: &GuestName, progress: &mut dyn FnMut(&str)) -> Result<Stopped>;
    /// Stops the guest as a power cut would.
    fn kill(&self, guest: &GuestName) -> Result<Stopped>;
    /// Waits until the guest is ready, for at most `limit` from its launch. An error if it ends before that, with what its
    /// console said last.
    fn await_ready(&self, guest: &GuestName, limit: Duration) -> Result<Readiness>;
    /// Whether any guest of this site runs.
    fn any_running(&self) -> bool;
    /// No guest is left: ends what [`Manager::prepare`] started.
    fn retire(&self) -> Result<()>;
    /// What is wanted has changed: whoever starts guests at boot knows it when this returns. Done already is fine.
    fn agree(&self, host: &dyn Host) -> Result<()>;
    /// Whether guests come up with the host.
    fn boots_with_host(&self, host: &dyn Host) -> Result<bool>;
}

/// The manager for this site on this machine.
pub fn manager(paths: &Paths) -> Result<Box<dyn Manager>> {
    match systemd::Systemd::for_site(paths)? {
        Some(systemd) => Ok(Box::new(systemd)),
        None => Ok(Box::new(direct::Direct::new(paths)?)),
    }
}

/// Waits until no guest is on its way up: a command that was killed may have had one started, and a guest that reboots
/// may be between two processes. What runs can be told from what does not when this returns.
///
/// Who holds a guest still and was killed is made up for, too.
pub fn settle(paths: &Paths) -> Result<()> {
    still::recover(paths)?;
    /// A launch takes tens of milliseconds; a machine in trouble takes longer.
    const LIMIT: Duration = Duration::from_secs(30);
    let began = std::time::Instant::now();
    loop {
        let starting = starting(paths)?;
        match starting.first() {
            None => return Ok(()),
            Some(guest) if began.elapsed() > LIMIT => {
                bail!("guest '{guest}' is being started, and that does not come to its end")
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn starting(paths: &Paths) -> Result<Vec<GuestName>> {
    let mut found = client::starting(paths).unwrap_or_default();
    for name in Live.list(&paths.run.join("guests"))? {
        let Ok(guest) = name.parse::<GuestName>() else { continue };
        if launch::is_held(paths, &guest) && !RunRecord::is_running(paths, &guest) {
            found.push(guest);
        }
    }
    Ok(found)
}

/// What the console holder is told of a guest. Its bridge must be there already: the way to the guest may be the bridge
/// itself.
pub fn settings(host: &dyn Host, spec: &Spec) -> Settings {
    // Without a look at the links the guest's own address is the best guess.
    let links = host.links(spec.netns.as_deref()).unwrap_or_default();
    Settings {
        log_bytes: spec.console_log_bytes.0,
        record: spec.console_record,
        group: spec.admin_group.clone(),
        ready: spec.ready.clone(),
        address: Some(network::endpoint(spec.address, spec.mac, &spec.bridge, &links, 0)),
        ready_timeout_ms: spec.ready_timeout_ms,
        restart: Some(spec.supervision.restart.clone()),
        console_watch: spec.console_watch.clone(),
    }
}

/// How much of a guest's delay is left: counted from when the last of those that it waits for was ready, or, if there are
/// none, from when the console holder began to run. A clock that jumps makes nobody wait longer than the whole of it.
pub fn delay_left(paths: &Paths, spec: &Spec) -> Result<Duration> {
    let delay = spec.supervision.delay;
    if delay.is_zero() {
        return Ok(delay);
    }
    let mut over: Option<Duration> = None;
    for other in &spec.waits_for {
        let Some(ready) = ReadyRecord::read(paths, other)?.and_then(|ready| ready.ready()) else { continue };
        over = Some(over.map_or(ready.elapsed(), |over| over.min(ready.elapsed())));
    }
    let since_holder = || {
        let began = std::fs::metadata(paths.holder_socket()).and_then(|meta| meta.modified()).ok();
        began.map_or(Duration::MAX, |at| at.elapsed().unwrap_or_default())
    };
    Ok(delay.saturating_sub(over.unwrap_or_else(since_holder)))
}

/// A Ctrl-C is noticed this late at most.
const SLICE: Duration = Duration::from_millis(500);

/// Waits for a guest that was started just now; `revive` is called when there is no console holder to ask.
pub fn readiness(
    paths: &Paths,
    guest: &GuestName,
    limit: Duration,
    revive: impl Fn() -> Result<()>,
) -> Result<Readiness> {
    let started = std::time::Instant::now();
    // It was there a moment ago: if it is not, any end on record is its end.
    let ended_since = Some(0);
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match client::wait_event(paths, guest, For::Ready, ended_since, left.min(SLICE))? {
            Some(Event::Ready(record)) => {
                return Ok(Readiness::Ready { after: Duration::from_millis(record.after_ms) });
            }
            Some(Event::Stopped(exit)) => {
                let (how, said) = match exit {
                    Some(exit) => (exit.told(), exit.last_lines.join("\n  ")),
                    None => ("ended".to_owned(), String::new()),
                };
                bail!(
                    "guest '{guest}' ended before it was ready ({how}); its console said last:\n  {said}\n\
                     hint: all that it said: gridgate console {guest} --log"
                );
            }
            None if left <= SLICE => return Ok(Readiness::NotYet),
            None if crate::progress::interrupted() => bail!("interrupted while waiting for guest '{guest}'"),
            None if !client::holder_runs(paths) => revive()?,
            None => {}
        }
    }
}

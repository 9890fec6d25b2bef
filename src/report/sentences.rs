//! What there is to say about a guest beside its row in the table: why it is not as it was asked to be, and who ended it.

use crate::console::now_ms;
use crate::console::restart::Breaker;
use crate::profile::compile::tasks::State;
use crate::profile::record::AsOf;
use crate::report::status::{GuestStatus, Observed, Readiness};
use crate::service::desired::Desired;

/// How much of a failed guest's console is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Enough to recognise it.
    Short,
    /// All that was kept.
    Full,
}

const SHORT_LINES: usize = 5;

/// The state in one word, for the table.
pub fn state(guest: &GuestStatus) -> &'static str {
    match (guest.desired, guest.observed, guest.ready) {
        (_, Observed::Running, _) if guest.stopping.is_some() => "stopping",
        (_, _, Readiness::Ready) => "ready",
        (_, _, Readiness::Degraded) => "degraded",
        (_, _, Readiness::Waiting) => "starting",
        (_, Observed::Stopped, _) if is_waiting(guest) => "waiting",
        (Desired::Running, Observed::Stopped, _) => "ended",
        _ => "stopped",
    }
}

fn is_waiting(guest: &GuestStatus) -> bool {
    guest.observed == Observed::Stopped && guest.restarts.as_ref().is_some_and(|r| r.next_try_ms.is_some())
}

/// A line about the guest, and the end of its console if it failed; nothing if there is nothing to say.
pub fn sentence(guest: &GuestStatus, detail: Detail) -> Option<String> {
    let name = &guest.name;
    match guest.observed {
        Observed::Running => {
            let log = guest
                .log_trouble
                .as_ref()
                .map(|why| format!("the log of its console cannot be written: {why}"));
            let told: Vec<String> = [running(guest, detail), log].into_iter().flatten().collect();
            (!told.is_empty()).then(|| format!("{name}: {}\n", told.join("; ")))
        }
        Observed::Stopped => {
            let told = stopped(guest)?;
            let failed = guest.desired == Desired::Running;
            let lines = guest.last_exit.iter().flat_map(|exit| &exit.last_lines).collect::<Vec<_>>();
            if !failed || lines.is_empty() {
                return Some(format!("{name}: {told}\n"));
            }
            let shown = match detail {
                Detail::Short => lines.len().min(SHORT_LINES),
                Detail::Full => lines.len(),
            };
            let mut text = format!("{name}: {told}; its console said last:\n");
            for line in &lines[lines.len() - shown..] {
                text.push_str(&format!("  {line}\n"));
            }
            Some(text)
        }
    }
}

/// What a guest's profile had and has to be done, one line each; nothing if there is nothing.
pub fn profile(guest: &GuestStatus) -> Vec<String> {
    let Some(compiled) = &guest.profile else { return Vec::new() };
    let mut lines: Vec<String> = compiled.notes.iter().map(|note| format!("note: {note}")).collect();
    if !compiled.missing_packages.is_empty() {
        lines.push(format!("packages that are not installed: {}", compiled.missing_packages.join(" ")));
    }
    for task in &compiled.tasks {
        let state = match task.state {
            State::Done => "done".to_owned(),
            State::Failed => match task.exit_status {
                Some(status) => format!("failed with status {status}, and is tried at each boot"),
                None => "failed, and is tried at each boot".to_owned(),
            },
            State::Pending if compiled.tasks_as_of == AsOf::Compile => {
                "runs at the first boot; its disk cannot be looked into".to_owned()
            }
            State::Pending if guest.observed == Observed::Running => "has not run yet".to_owned(),
            State::Pending => "runs at the next boot".to_owned(),
            State::ByHand => "by hand".to_owned(),
        };
        lines.push(format!("task {} ({state}): {}", task.name, task.about));
    }
    lines
}

fn running(guest: &GuestStatus, detail: Detail) -> Option<String> {
    if let Some(stop) = &guest.stopping {
        // Never more than there was, whatever the clock says.
        let whole = stop.until_ms.saturating_sub(stop.began_ms);
        let left = stop.until_ms.saturating_sub(now_ms()).min(whole).div_ceil(1000);
        return Some(match stop.until_ms {
            0 => format!("stopping ({})", stop.rung),
            _ => format!("stopping ({}, {left} s left for it)", stop.rung),
        });
    }
    let says = guest.says.as_ref().map(|said| format!("; it says: {said}")).unwrap_or_default();
    let missing = match guest.missing.as_slice() {
        [] => String::new(),
        missing => format!(" without {}", missing.join(", ")),
    };
    let try_of = match guest.restarts.as_ref().filter(|r| r.early_deaths > 0) {
        Some(r) => format!(", after {} ({})", deaths(r.early_deaths), r.why),
        None => String::new(),
    };
    match guest.ready {
        Readiness::Degraded => Some(format!("degraded,{missing}{says}{try_of}")),
        Readiness::Waiting if !says.is_empty() || !try_of.is_empty() => {
            Some(format!("starting,{missing}{says}{try_of}"))
        }
        Readiness::Ready if detail == Detail::Full && !says.is_empty() => Some(format!("ready{says}")),
        _ => None,
    }
}

fn stopped(guest: &GuestStatus) -> Option<String> {
    let exit = guest.last_exit.as_ref();
    if let Some(restarts) = guest.restarts.as_ref().filter(|r| r.next_try_ms.is_some()) {
        let seconds = restarts.wait(now_ms()).as_millis().div_ceil(1000);
        let slowly = match restarts.breaker {
            Breaker::Closed => "",
            Breaker::Open | Breaker::HalfOpen => ", and one try each time",
        };
        let deaths = match restarts.early_deaths {
            0 => String::new(),
            many => format!(", {}{slowly}", deaths(many)),
        };
        return Some(format!("waiting: next try in {seconds} s ({}){deaths}", restarts.why));
    }
    match (guest.desired, exit) {
        (Desired::Running, Some(exit)) => Some(format!("was to run, but stopped ({})", exit.how())),
        (Desired::Stopped, Some(exit)) => Some(format!("stopped ({})", exit.how())),
        (_, None) => None,
    }
}

fn deaths(many: u32) -> String {
    match many {
        1 => "1 early death".to_owned(),
        many => format!("{many} early deaths in a row"),
    }
}

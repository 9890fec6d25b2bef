//! Up: networks, disks, identities, guests, each as far as it is not there yet.

use std::collections::BTreeMap;

use crate::backend::spec::{Engine, Spec};
use crate::backend::uml;
use crate::config::site::{Guest, Site};
use crate::console::record::ReadyState;
use crate::facts::Facts;
use crate::facts::guests::GuestFacts;
use crate::identity::edits;
use crate::names::{Bytes, GuestName};
use crate::paths::Paths;
use crate::plan::network;
use crate::plan::{Action, Plan, Problem, order, spec};

/// What brings these guests up; all that come up with the host if none is named. All problems at once.
pub fn plan(paths: &Paths, site: &Site, facts: &Facts, names: &[GuestName]) -> Result<Plan, Vec<Problem>> {
    let guests = order::select(site, names)?;
    let mut problems = Vec::new();
    let mut plan = Plan::default();

    let mut ground = Vec::new();
    match network::plan(site, &facts.network, &paths.id()) {
        Ok(steps) => {
            for step in steps {
                let before = ground.last().copied().into_iter().collect();
                ground.push(plan.push(Action::Network(step), before));
            }
        }
        Err(found) => problems.extend(found.into_iter().map(Problem::from)),
    }
    let nothing = GuestFacts::default();
    let found = |guest: &Guest| facts.guests.get(&guest.name).unwrap_or(&nothing);
    let behind = |guest: &Guest| is_behind(site, guest, found(guest));

    let to_start: Vec<&Guest> =
        guests.iter().copied().filter(|guest| found(guest).running.is_none()).collect();
    let some_run = facts.guests.values().any(|guest| guest.running.is_some());
    let mut holder = Vec::new();
    if !to_start.is_empty() || (some_run && !facts.holder) {
        holder.push(plan.push(Action::Prepare, Vec::new()));
        ground.extend(&holder);
    }
    let known_hosts = match !facts.known_hosts || to_start.iter().any(|guest| behind(guest)) {
        true => Some(plan.push(Action::KnownHosts, Vec::new())),
        false => None,
    };

    let mut ready: BTreeMap<&GuestName, usize> = BTreeMap::new();
    let (mut copied, mut memory) = (0, 0);
    let mut starts: Vec<(u32, usize)> = Vec::new();
    for guest in order::sorted(&guests) {
        let now = found(guest);
        let wanted = match spec::spec(paths, site, guest, facts) {
            Ok(wanted) => wanted,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if now.running.is_some() {
            if now.spec.as_ref() != Some(&wanted) || behind(guest) {
                plan.notes.push(format!(
                    "{0} runs with older settings; they change with: gridgate restart {0}",
                    guest.name
                ));
            }
            match now.ready {
                Some(ReadyState::Ready) => {}
                Some(ReadyState::Degraded) => plan.degraded.push(guest.name.clone()),
                Some(ReadyState::Waiting) | None => {
                    ready.insert(
                        &guest.name,
                        plan.push(Action::Ready { guest: guest.name.clone() }, holder.clone()),
                    );
                }
            }
            continue;
        }
        if matches!(wanted.engine, Engine::Uml { .. }) {
            memory += wanted.memory_bytes.0;
        }
        let mut before = ground.clone();
        let mut own: Vec<usize> = known_hosts.into_iter().collect();
        if now.lost {
            plan.notes.push(format!(
                "{}: the host went down before its new disk was on stable storage; the disk is made anew",
                guest.name
            ));
        }
        if now.disk_bytes.is_some_and(|len| len > guest.disk_bytes.0) {
            plan.notes.push(format!("{}: its disk is larger than asked for and stays as it is", guest.name));
        }
        match lay_out(&mut plan, site, guest, facts, wanted, own) {
            Ok((steps, bytes)) => {
                own = steps;
                copied += bytes;
            }
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        }
        before.extend(own);
        before.extend(order::waits_for(guest).filter_map(|name| ready.get(name)));
        let delay = guest.supervision.delay;
        let started = plan.push(Action::Start { guest: guest.name.clone(), delay }, before);
        let priority = guest.supervision.priority;
        let higher = starts.iter().filter(|(other, _)| *other > priority);
        plan.steps[started].behind = higher.map(|(_, step)| *step).collect();
        starts.push((priority, started));
        ready.insert(&guest.name, plan.push(Action::Ready { guest: guest.name.clone() }, vec![started]));
    }
    problems.extend(no_room(paths, facts, memory, copied));
    if problems.is_empty() { Ok(plan) } else { Err(dedup(problems)) }
}

/// What makes one guest's disk, identity and spec what the site wants, without starting it: as far as [`plan`] would.
pub fn prepare(paths: &Paths, site: &Site, facts: &Facts, guest: &Guest) -> Result<Plan, Vec<Problem>> {
    let mut plan = Plan::default();
    let nothing = GuestFacts::default();
    let now = facts.guests.get(&guest.name).unwrap_or(&nothing);
    let wanted = spec::spec(paths, site, guest, facts).map_err(|problem| vec![problem])?;
    let memory = if matches!(wanted.engine, Engine::Uml { .. }) { wanted.memory_bytes.0 } else { 0 };
    let known_hosts = !facts.known_hosts || is_behind(site, guest, now);
    let before = known_hosts.then(|| plan.push(Action::KnownHosts, Vec::new()));
    let laid_out = lay_out(&mut plan, site, guest, facts, wanted, before.into_iter().collect());
    let (_, copied) = laid_out.map_err(|problem| vec![problem])?;
    let problems = no_room(paths, facts, memory, copied);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

/// Whether the guest's disk is missing or not what the site's files say. A profile that cannot be used is no reason to keep a
/// guest down that has a good one.
fn is_behind(site: &Site, guest: &Guest, now: &GuestFacts) -> bool {
    let other_profile =
        matches!(&now.profile, Some(Ok(wanted)) if now.compiled.as_deref() != Some(wanted.as_str()));
    other_profile
        || now.disk_bytes.is_none()
        || now.personalised.as_deref() != Some(edits::digest(site, guest).as_str())
}

/// The steps that lay out a guest that does not run, after those given: the last of them, and the bytes that they take.
fn lay_out(
    plan: &mut Plan,
    site: &Site,
    guest: &Guest,
    facts: &Facts,
    wanted: Spec,
    mut own: Vec<usize>,
) -> Result<(Vec<usize>, u64), Problem> {
    let nothing = GuestFacts::default();
    let now = facts.guests.get(&guest.name).unwrap_or(&nothing);
    let mut copied = 0;
    if now.disk_bytes.is_none() {
        let (action, bytes) = clone(guest, facts)?;
        copied = bytes;
        own.push(plan.push(action, Vec::new()));
    }
    if let (Some(Err(why)), is_behind) = (&now.profile, is_behind(site, guest, now)) {
        let what = format!("guest '{}': its profile '{}' cannot be used:\n{why}", guest.name, guest.profile);
        if is_behind {
            return Err(Problem { message: what, hint: None });
        }
        plan.notes.push(what);
    }
    if is_behind(site, guest, now) {
        own = vec![plan.push(Action::Personalise { guest: guest.name.clone() }, own)];
    }
    if now.spec.as_ref() != Some(&wanted) {
        own.push(plan.push(Action::Spec(Box::new(wanted)), own.clone()));
    }
    Ok((own, copied))
}

fn no_room(paths: &Paths, facts: &Facts, memory: u64, copied: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    // A guest that finds no room there later is killed by the kernel in the middle of its work (SIGBUS).
    if memory > facts.memory_bytes {
        let message = format!(
            "the guests to start have {} of memory in '{}', where {} are free",
            Bytes(memory),
            uml::MEMORY_DIR,
            Bytes(facts.memory_bytes)
        );
        let hint =
            format!("give them less, or: mount -o remount,size={} {}", Bytes(2 * memory), uml::MEMORY_DIR);
        problems.push(Problem::with_hint(message, hint));
    }
    if copied > facts.free_bytes {
        let message = format!(
            "the new disks take up to {} in '{}', where {} are free",
            Bytes(copied),
            paths.state.display(),
            Bytes(facts.free_bytes)
        );
        problems.push(Problem::with_hint(message, "make room, or keep the state elsewhere with --state DIR"));
    }
    problems
}

/// The step and the bytes that it takes.
fn clone(guest: &Guest, facts: &Facts) -> Result<(Action, u64), Problem> {
    let image = spec::image(guest, facts)?;
    if guest.disk_bytes.0 < image.size_bytes {
        let message = format!(
            "guest '{}': its disk of {} is smaller than image '{}' with {}",
            guest.name,
            guest.disk_bytes,
            guest.image,
            Bytes(image.size_bytes)
        );
        return Err(Problem::with_hint(message, "ask for a larger disk in the guest's file"));
    }
    let action = Action::Clone {
        guest: guest.name.clone(),
        image: guest.image.clone(),
        from: image.disk.clone(),
        size: guest.disk_bytes,
    };
    Ok((action, image.allocated_bytes))
}

/// Four guests of one missing image are one problem.
fn dedup(problems: Vec<Problem>) -> Vec<Problem> {
    let mut seen: Vec<Problem> = Vec::new();
    for problem in problems {
        if !seen.contains(&problem) {
            seen.push(problem);
        }
    }
    seen
}

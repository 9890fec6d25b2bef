//! Down: guests in reverse order, then what held them together.

use std::collections::BTreeMap;

use crate::config::site::Site;
use crate::facts::Facts;
use crate::names::GuestName;
use crate::paths::Paths;
use crate::plan::{Action, Plan, Problem, network, order};

/// What takes these guests down; if none is named, all, the networks too, and guests that the site no longer names. With
/// `purge`, all that those guests have here goes as well.
pub fn plan(
    paths: &Paths,
    site: &Site,
    facts: &Facts,
    names: &[GuestName],
    purge: bool,
) -> Result<Plan, Vec<Problem>> {
    for name in names {
        if !facts.guests.contains_key(name) {
            order::select(site, std::slice::from_ref(name))?;
        }
    }
    let meant = |name: &GuestName| names.is_empty() || names.contains(name);
    let mut plan = Plan::default();
    let mut stops: BTreeMap<&GuestName, usize> = BTreeMap::new();
    let known: Vec<_> = site.guests.iter().collect();
    let sorted = order::sorted(&known);
    let strays = facts.guests.keys().filter(|name| site.guest(name).is_none());
    let reverse: Vec<&GuestName> = strays.chain(sorted.iter().rev().map(|guest| &guest.name)).collect();
    for name in &reverse {
        let runs = facts.guests.get(name).is_some_and(|guest| guest.running.is_some());
        if !meant(name) || !runs {
            continue;
        }
        // Whoever waited for this one at the start must be gone before it goes.
        let dependents =
            site.guests.iter().filter(|guest| order::waits_for(guest).any(|other| other == *name));
        let before = dependents.filter_map(|guest| stops.get(&guest.name).copied()).collect();
        stops.insert(name, plan.push(Action::Stop { guest: (*name).clone() }, before));
    }
    let stopped: Vec<usize> = stops.values().copied().collect();
    let all_down =
        facts.guests.iter().all(|(name, guest)| guest.running.is_none() || stops.contains_key(name));
    if all_down {
        let mut last = stopped.clone();
        for step in network::teardown(&facts.network, &paths.id()) {
            last = vec![plan.push(Action::Network(step), last)];
        }
        if facts.holder || facts.run_dir {
            plan.push(Action::Retire, last);
        }
    }
    if purge {
        for name in &reverse {
            let has_something = facts.guests.get(name).is_some_and(|guest| guest.kept);
            if meant(name) && has_something {
                let before = stops.get(name).copied().into_iter().collect();
                plan.push(Action::Purge { guest: (*name).clone() }, before);
            }
        }
    }
    Ok(plan)
}

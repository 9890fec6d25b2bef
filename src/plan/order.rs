//! Which guests are meant, and which of them wait for which.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::site::{Guest, Site};
use crate::names::GuestName;
use crate::plan::Problem;

/// The guests of these names and all that they need, in the site's order; without names, those that come up with the
/// host and all that they need. An unknown name is a problem.
pub fn select<'a>(site: &'a Site, names: &[GuestName]) -> Result<Vec<&'a Guest>, Vec<Problem>> {
    let unknown: Vec<Problem> =
        names.iter().filter(|name| site.guest(name).is_none()).map(|n| no_guest(site, n)).collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut wanted: Vec<&GuestName> = match names.is_empty() {
        true => site.guests.iter().filter(|guest| guest.autostart).map(|guest| &guest.name).collect(),
        false => names.iter().collect(),
    };
    let mut at = 0;
    while let Some(name) = wanted.get(at) {
        for needed in site.guest(name).into_iter().flat_map(|guest| &guest.needs) {
            if !wanted.contains(&needed) {
                wanted.push(needed);
            }
        }
        at += 1;
    }
    Ok(site.guests.iter().filter(|guest| wanted.contains(&&guest.name)).collect())
}

/// The same guests, each after those that it waits for, and as far as that allows in the order of their priorities.
/// Checking the site has made sure that there is no circle.
pub fn sorted<'a>(guests: &[&'a Guest]) -> Vec<&'a Guest> {
    let among: BTreeSet<&GuestName> = guests.iter().map(|guest| &guest.name).collect();
    let mut placed: BTreeSet<&GuestName> = BTreeSet::new();
    let mut left: Vec<&Guest> = guests.to_vec();
    // Stable: equals stay in the site's order.
    left.sort_by_key(|guest| Reverse(guest.supervision.priority));
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let free =
            |guest: &&Guest| waits_for(guest).all(|name| placed.contains(name) || !among.contains(name));
        // A circle can only come from a site that was not checked; any order is as good as another then.
        let next = left.remove(left.iter().position(free).unwrap_or(0));
        placed.insert(&next.name);
        sorted.push(next);
    }
    sorted
}

/// Guests that must be ready before this one starts, if they are started at all.
pub fn waits_for(guest: &Guest) -> impl Iterator<Item = &GuestName> {
    guest.after.iter().chain(&guest.needs)
}

/// For each guest those that are to be started before it, although it does not wait for them to be ready: guests of higher
/// priority. A guest that others wait for has at least their priority, or waiting and priority could go round in a circle.
pub fn started_before<'a>(guests: &[&'a Guest]) -> BTreeMap<&'a GuestName, Vec<&'a GuestName>> {
    let mut priority: BTreeMap<&GuestName, u32> =
        guests.iter().map(|guest| (&guest.name, guest.supervision.priority)).collect();
    for guest in sorted(guests).iter().rev() {
        let own = priority.get(&guest.name).copied().unwrap_or_default();
        for other in waits_for(guest) {
            priority.entry(other).and_modify(|theirs| *theirs = own.max(*theirs));
        }
    }
    let of = |name: &GuestName| priority.get(name).copied().unwrap_or_default();
    let higher = |guest: &&'a Guest| {
        let own = of(&guest.name);
        (&guest.name, guests.iter().map(|other| &other.name).filter(|name| of(name) > own).collect())
    };
    guests.iter().map(higher).collect()
}

fn no_guest(site: &Site, name: &GuestName) -> Problem {
    let known: Vec<&str> = site.guests.iter().map(|guest| guest.name.as_str()).collect();
    Problem::with_hint(
        format!("site '{}' has no guest '{name}'", site.name),
        format!("its guests are: {}", known.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::edits::tests::site as example;
    use proptest::prelude::*;

    fn guests(priorities: &[u32]) -> Vec<Guest> {
        static ONE: std::sync::LazyLock<Guest> = std::sync::LazyLock::new(|| example().guests.remove(0));
        let named = |(at, priority): (usize, &u32)| {
            let mut guest = ONE.clone();
            guest.name = format!("g{at}").parse().unwrap();
            (guest.after, guest.needs) = (Vec::new(), Vec::new());
            guest.supervision.priority = *priority;
            guest
        };
        priorities.iter().enumerate().map(named).collect()
    }

    #[test]
    fn whom_others_wait_for_is_not_put_behind_them() {
        let mut guests = guests(&[90, 50, 10]);
        guests[0].after = vec![guests[2].name.clone()];
        let all: Vec<&Guest> = guests.iter().collect();
        let before = started_before(&all);
        let names = |at: usize| before[&guests[at].name].iter().map(|name| name.as_str()).collect::<Vec<_>>();
        assert_eq!((names(0), names(1), names(2)), (vec![], vec!["g0", "g2"], vec![]));
    }

    #[test]
    fn guests_of_higher_priority_come_first_unless_they_wait_for_others() {
        let mut site = example();
        let mut third = site.guests[0].clone();
        third.name = "third".parse().unwrap();
        site.guests.push(third);
        let names: Vec<GuestName> = site.guests.iter().map(|guest| guest.name.clone()).collect();
        let order = |site: &Site| -> Vec<usize> {
            let all: Vec<&Guest> = site.guests.iter().collect();
            let place = |guest: &&Guest| names.iter().position(|name| *name == guest.name).unwrap();
            sorted(&all).iter().map(place).collect()
        };
        for guest in &mut site.guests {
            (guest.after, guest.needs) = (Vec::new(), Vec::new());
        }
        assert_eq!(order(&site), [0, 1, 2]);
        site.guests[2].supervision.priority = 90;
        assert_eq!(order(&site), [2, 0, 1]);
        site.guests[2].after = vec![names[1].clone()];
        assert_eq!(order(&site), [0, 1, 2]);
        site.guests[1].supervision.priority = 60;
        assert_eq!(order(&site), [1, 2, 0]);
    }

    proptest! {
        /// Guests wait only for guests before them, so that nothing else can make a circle.
        #[test]
        fn waiting_and_priority_never_go_round(
            priorities in proptest::collection::vec(0u32..4, 1..8),
            waits in proptest::collection::vec((0usize..8, 0usize..8), 0..12),
        ) {
            let mut guests = guests(&priorities);
            for (from, to) in waits {
                if to < from && from < guests.len() {
                    let name = guests[to].name.clone();
                    guests[from].after.push(name);
                }
            }
            let all: Vec<&Guest> = guests.iter().collect();
            let before = started_before(&all);
            let mut placed: Vec<&GuestName> = Vec::new();
            while placed.len() < all.len() {
                let free = all.iter().find(|guest| {
                    let mut all_before = waits_for(guest).chain(before[&guest.name].iter().copied());
                    !placed.contains(&&guest.name) && all_before.all(|name| placed.contains(&name))
                });
                prop_assert!(free.is_some(), "{before:?}");
                placed.extend(free.map(|guest| &guest.name));
            }
        }
    }
}

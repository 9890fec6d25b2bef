//! Which guests are meant, and which of them wait for which.

use std::cmp::Reverse;
use std::collections::BTreeSet;

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
}

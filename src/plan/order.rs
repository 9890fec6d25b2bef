//! Which guests are meant, and which of them wait for which.

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

/// The same guests, each after those that it waits for. Checking the site has made sure that there is no circle.
pub fn sorted<'a>(guests: &[&'a Guest]) -> Vec<&'a Guest> {
    let mut sorted: Vec<&Guest> = Vec::new();
    while sorted.len() < guests.len() {
        let before = sorted.len();
        for guest in guests {
            let placed = |name: &GuestName| sorted.iter().any(|other| other.name == *name);
            let among = |name: &GuestName| guests.iter().any(|other| other.name == *name);
            let free = waits_for(guest).all(|name| placed(name) || !among(name));
            if free && !placed(&guest.name) {
                sorted.push(guest);
            }
        }
        if sorted.len() == before {
            // A circle can only come from a site that was not checked; any order is as good as another then.
            return guests.to_vec();
        }
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

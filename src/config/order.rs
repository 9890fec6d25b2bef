//! Who waits for whom: references become guests, and circles are found.

use std::collections::{BTreeMap, BTreeSet};

use super::checks;
use super::guest::Draft;
use super::origin::Origin;
use super::problem::Problems;
use super::suggest;
use crate::names::GuestName;

/// Turns `after` and `needs` into guests: a name is a guest or all guests of a counted group, `role:NAME` all guests of
/// that role. `stems` are the names of all guests' files, also of those that cannot be read.
pub fn resolve(drafts: &mut [Draft<'_>], stems: &[String], problems: &mut Problems) {
    let mut edges: Edges = BTreeMap::new();
    for at in 0..drafts.len() {
        for key in ["after", "needs"] {
            let mut names = Vec::new();
            let texts = drafts[at].layers.pick(key).map(|e| e.value.texts()).unwrap_or_default();
            for (text, origin) in texts {
                if checks::dependency(text).is_err() {
                    continue;
                }
                let found = referred(drafts, &drafts[at], text);
                if found.is_empty() && origin.is_sites_own() {
                    unknown(drafts, &drafts[at], stems, text, origin, problems);
                }
                let from = drafts[at].name.clone();
                for name in &found {
                    edges.entry(from.clone()).or_default().entry(name.clone()).or_insert_with(|| {
                        if origin.in_file() { origin.clone() } else { drafts[at].start().clone() }
                    });
                }
                names.extend(found);
            }
            let mut seen = BTreeSet::new();
            names.retain(|name| seen.insert(name.clone()));
            if key == "after" {
                drafts[at].after = names;
            } else {
                drafts[at].needs = names;
            }
        }
    }
    circles(edges, problems);
}

type Edges = BTreeMap<GuestName, BTreeMap<GuestName, Origin>>;

fn referred(drafts: &[Draft<'_>], from: &Draft<'_>, text: &str) -> Vec<GuestName> {
    let others = || drafts.iter().filter(|d| d.name != from.name);
    if let Some(role) = text.strip_prefix("role:") {
        return others().filter(|d| d.role == role).map(|d| d.name.clone()).collect();
    }
    let exact: Vec<GuestName> =
        drafts.iter().filter(|d| d.name.as_str() == text).map(|d| d.name.clone()).collect();
    if !exact.is_empty() {
        return exact;
    }
    others().filter(|d| d.stem == text).map(|d| d.name.clone()).collect()
}

fn unknown(
    drafts: &[Draft<'_>],
    from: &Draft<'_>,
    stems: &[String],
    text: &str,
    origin: &Origin,
    problems: &mut Problems,
) {
    if let Some(role) = text.strip_prefix("role:") {
        let roles: BTreeSet<&str> = drafts.iter().map(|d| d.role.as_str()).collect();
        let hint = suggest::hint(role, roles, "roles of the site's guests");
        problems.add(origin, format!("no other guest has the role '{role}'"), hint);
    } else if !stems.iter().any(|stem| stem == text) || from.stem == text {
        let names: Vec<&str> =
            drafts.iter().filter(|d| d.name != from.name).map(|d| d.name.as_str()).collect();
        let hint = suggest::hint(text, names, "guests of the site");
        problems.add(origin, format!("unknown guest '{text}'"), hint);
    }
}

/// Takes away all guests that wait for nobody, again and again; whoever is left is in a circle or waits for one.
fn circles(mut edges: Edges, problems: &mut Problems) {
    loop {
        let waiting: BTreeSet<GuestName> = edges.keys().cloned().collect();
        let before: usize = edges.values().map(BTreeMap::len).sum();
        for targets in edges.values_mut() {
            targets.retain(|target, _| waiting.contains(target));
        }
        edges.retain(|_, targets| !targets.is_empty());
        if edges.values().map(BTreeMap::len).sum::<usize>() == before {
            break;
        }
    }
    let mut visited: BTreeSet<GuestName> = BTreeSet::new();
    for start in edges.keys() {
        let mut path: Vec<&GuestName> = Vec::new();
        let mut at = start;
        while visited.insert(at.clone()) {
            path.push(at);
            match edges.get(at).and_then(|targets| targets.keys().next()) {
                Some(next) => at = next,
                None => break,
            }
        }
        let Some(entry) = path.iter().position(|name| *name == at) else { continue };
        let circle = &path[entry..];
        let names: Vec<&str> = circle.iter().map(|n| n.as_str()).chain([at.as_str()]).collect();
        let Some(origin) = circle.last().and_then(|last| edges.get(*last)?.get(at)) else { continue };
        let message = format!("guests wait for each other in a circle: {}", names.join(" -> "));
        let hint =
            "take one of these out of 'after' or 'needs'; after = [] also turns off what the role says";
        problems.add(origin, message, hint);
    }
}

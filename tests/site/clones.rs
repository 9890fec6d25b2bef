//! Guests that are made of guests.

use std::fs;

use crate::support::{TestSite, name};

#[test]
fn a_clone_of_a_used_guest_starts_as_a_machine_of_its_own() {
    let Some(site) = TestSite::quick(&["ui"], "") else { return };
    site.run(&["up"]).exits(0);
    let refused =
        site.run(&["clone", "ui", "wn2"]).exits(4).says("guest 'ui' runs, and its disk would change");
    assert!(!site.paths.guest(&name("wn2")).exists(), "{refused:?}");
    site.run(&["stop", "ui"]).exits(0);
    site.run(&["clone", "ui", "wn2", "--role", "wn"]).exits(0).says("wn2: has a copy of the disk of ui");
    let plan = site.run(&["plan", "wn2"]).exits(3).out;
    assert!(plan.contains("wn2: personalise its disk") && !plan.contains("clone a disk"), "{plan}");
    site.run(&["up", "wn2"]).exits(0).says("wn2: ready after ");
    let identity = |guest: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(site.paths.identity(&name(guest))).unwrap()).unwrap()
    };
    let (ui, wn2) = (identity("ui"), identity("wn2"));
    assert!(ui["machine_id"].is_string() && ui["machine_id"] != wn2["machine_id"], "{ui}");
    assert_eq!(site.status("wn2")["role"], "wn");
}

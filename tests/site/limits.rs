//! What guests may use of the host, changed while they run.

use gridgate::host::Live;
use gridgate::host::net::{Link, LinkKind, Net};

use rustix::process::Signal;

use crate::support::{TestSite, eventually, kill};

/// Where a guest's packets wait.
pub fn shapers(site: &TestSite) -> Vec<String> {
    let is = |link: &Link| link.kind == LinkKind::Other("ifb".to_owned());
    let links = Live.links(Some(&site.paths.netns())).unwrap();
    let mut names: Vec<String> = links.into_iter().filter(is).map(|link| link.name).collect();
    names.sort();
    names
}

#[test]
fn a_limit_holds_at_once_is_kept_over_restarts_and_leaves_nothing_behind() {
    let Some(site) = TestSite::quick(&["ce"], "[limits]\nnet_out = \"2M\"") else { return };
    site.run(&["limit", "ce", "net_in=3M"]).exits(0).says("ce: net_in=3M net_out=2M (when it runs)");
    site.run(&["up"]).exits(0);
    assert_eq!(shapers(&site), ["go-ce"]);
    let status = site.status("ce");
    assert_eq!(
        (&status["limits"]["net_in_bytes"], &status["limits"]["net_out_bytes"]),
        (&(3 << 20).into(), &(2 << 20).into())
    );

    site.run(&["limit", "ce", "net_out=none"]).exits(0).says("ce: net_in=3M\n");
    assert_eq!(shapers(&site), [""; 0]);
    site.run(&["restart", "ce"]).exits(0);
    assert_eq!(shapers(&site), [""; 0]);
    let shown = site.run(&["--json", "limit", "ce"]).exits(0).json();
    let row = |name: &str| {
        shown["limits"].as_array().unwrap().iter().find(|row| row["limit"] == name).unwrap().clone()
    };
    assert_eq!(
        (&row("net_out")["origin"], &row("net_out")["value"]),
        (&"kept".into(), &serde_json::Value::Null)
    );
    assert_eq!((&row("net_in")["origin"], &row("net_in")["value"]), (&"kept".into(), &"3M".into()));

    site.run(&["limit", "ce", "net_out=", "net_in=site"]).exits(0).says("ce: net_out=2M");
    assert_eq!(shapers(&site), ["go-ce"]);
    let shown = site.run(&["limit", "ce"]).exits(0);
    let line = shown.out.lines().find(|line| line.starts_with("net_out ")).unwrap();
    assert!(line.ends_with("/guests/ce.toml:3:11"), "{line}");

    kill(site.pid("ce"), Signal::KILL);
    eventually("its shaper is gone, too", || shapers(&site).is_empty().then_some(()));
    let events = site.run(&["events", "--json"]).exits(0).out;
    assert_eq!(events.matches("limit-changed").count(), 3, "{events}");
}

#[test]
fn a_limit_that_would_kill_the_guest_or_is_none_is_refused_and_changes_nothing() {
    let Some(site) = TestSite::quick(&["ce"], "memory = \"64M\"") else { return };
    site.run(&["up"]).exits(0);
    let refused =
        "a limit of 90M is too little for guest 'ce', which has 64M of memory and a hypervisor besides";
    site.run(&["limit", "ce", "memory=90M", "cpu=5%"]).exits(4).says(refused);
    site.run(&["limit", "ce", "cups=5%"]).exits(2).says("there is no limit 'cups'");
    site.run(&["limit", "ec", "cpu=5%"]).exits(2).says("has no guest 'ec'");
    assert!(!site.paths.limits(&"ce".parse().unwrap()).exists());
    site.run(&["limit", "ce"]).exits(0);
}

//! The life of a site whose guests behave.

use rustix::process::Signal;

use crate::support::{TestSite, kill};

/// What `status --json` promises of every guest.
const FIELDS: [&str; 17] = [
    "name",
    "role",
    "desired",
    "observed",
    "ready",
    "backend",
    "address",
    "pid",
    "uptime_ms",
    "ready_after_ms",
    "memory_bytes",
    "cpu_ms",
    "last_exit",
    "stopping",
    "missing",
    "says",
    "restarts",
];

/// The whole story in one test, since four guests take ten seconds to boot.
#[test]
fn four_guests_come_up_know_each_other_and_go_without_a_trace() {
    let Some(site) = TestSite::example() else { return };
    assert_eq!(site.left(), [""; 0]);
    site.run(&["up"]).exits(0);
    site.run(&["up"]).exits(0).says("nothing to do: everything is as the site wants it");
    site.run(&["plan"]).exits(0);

    let document = site.run(&["status", "--json"]).exits(0).json();
    assert_eq!(document["version"], 1);
    let guests = document["guests"].as_array().unwrap();
    let column = |field: &str| guests.iter().map(|g| g[field].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(column("name"), ["ce", "se", "ui", "wn"]);
    assert_eq!(column("ready"), ["ready"; 4]);
    assert_eq!(column("desired"), ["running"; 4]);
    assert_eq!(column("backend"), ["uml"; 4]);
    for field in FIELDS {
        assert!(guests.iter().all(|guest| guest.get(field).is_some()), "'{field}' in {document}");
    }

    // The key was written down before the guest's first boot, and ssh asks nothing.
    let ssh =
        |guest: &str, command: &str| site.run(&["ssh", guest, command]).exits(0).out.trim_end().to_owned();
    assert_eq!(ssh("ce", "hostname -f"), "ce.my-site.internal");
    assert_eq!(
        ssh(
            "ce",
            "until ping -q -c 1 -W 5 wn >/dev/null; do sleep 1; done; getent hosts se.my-site.internal | cut -d' ' -f1"
        ),
        "10.77.0.11"
    );
    let identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/*/address && findmnt -no UUID /";
    let identities: Vec<String> = ["ce", "se", "ui", "wn"].map(|guest| ssh(guest, identity)).to_vec();
    let lines: Vec<&str> = identities.iter().flat_map(|text| text.lines()).collect();
    assert!(lines.len() >= 4 * 4, "{lines:?}");
    for line in lines.iter().filter(|line| **line != "00:00:00:00:00:00") {
        assert_eq!(lines.iter().filter(|other| *other == line).count(), 1, "{line}");
    }
    let known = std::fs::read_to_string(site.paths.known_hosts()).unwrap();
    let key = identities[0].lines().nth(1).unwrap().split(' ').nth(1).unwrap();
    assert!(
        known
            .lines()
            .any(|line| line.starts_with("ce,ce.my-site.internal,10.77.0.10 ") && line.contains(key))
    );
    let console = site.console("wn");
    assert!(console.lines().any(|line| line.contains("Linux version")), "{console}");

    // The worker node waits for the computing element at the start, so that it goes before it.
    let down = site.run(&["down"]).exits(0);
    let stopped = |guest: &str| {
        down.err.find(&format!("{guest}: shut itself down in ")).unwrap_or_else(|| panic!("{down:#?}"))
    };
    assert!(stopped("wn") < stopped("ce"));
    assert_eq!(site.left(), [""; 0]);
    let document = site.run(&["status", "--json"]).exits(0).json();
    assert!(document["guests"].as_array().unwrap().iter().all(|guest| guest["observed"] == "stopped"));
    site.run(&["down"]).exits(0).says("nothing to do: all is down");
}

#[test]
fn a_guest_is_restarted_stopped_started_and_killed_and_waited_for() {
    let Some(site) = TestSite::one("ce", "") else { return };
    site.run(&["up"]).exits(0);
    let first = site.pid("ce");
    site.run(&["restart", "ce"]).exits(0).says("ce: shut itself down in ");
    assert_ne!(site.pid("ce"), first);
    site.run(&["wait", "ce", "--for", "ready", "--timeout", "120s"]).exits(0);
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "200ms"])
        .exits(3)
        .says("guest 'ce' is not stopped yet");

    let waiting = site.start(&["wait", "ce", "--for", "stopped"]);
    site.run(&["kill", "ce"]).exits(0).says("ce: was killed after ");
    waiting.end().exits(0);
    assert_eq!(site.status("ce")["desired"], "stopped");
    site.run(&["stop", "ce"]).exits(0).says("ce: was not running");
    site.run(&["start", "ce"]).exits(0).says("ce: ready after ");
    site.run(&["stop", "ce"]).exits(0).says("ce: shut itself down in ");
}

#[test]
fn a_guest_that_powers_itself_off_has_ended_although_it_was_to_run() {
    let Some(site) = TestSite::one("ce", "") else { return };
    site.run(&["up"]).exits(0);
    // The connection ends with the guest, so that ssh's own status is either.
    site.run(&["ssh", "ce", "systemctl poweroff"]);
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "60s"]).exits(0);
    let status = site.status("ce");
    assert_eq!((&status["desired"], &status["observed"]), (&"running".into(), &"stopped".into()), "{status}");
    assert_eq!(
        (&status["last_exit"]["cause"], &status["last_exit"]["code"]),
        (&"exit".into(), &0.into()),
        "{status}"
    );
    let shown = site.run(&["status"]).exits(3);
    assert!(
        shown.out.contains(" ended ")
            && shown.out.contains("ce: was to run, but stopped (it shut itself down)"),
        "{shown:#?}"
    );
    site.run(&["up"]).exits(0).says("ce: ready after ");
}

#[test]
fn a_guest_that_hangs_is_killed_when_its_time_is_over() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    site.run(&["up"]).exits(0);
    kill(site.pid("ce"), Signal::STOP);
    site.run(&["down"]).exits(0).says("ce: was killed after ");
}

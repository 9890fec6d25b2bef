//! `kill -9`, at any time.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{TestSite, eventually, kill, name, take_over};

fn site() -> Option<TestSite> {
    TestSite::quick(&["ce"], "")
}

type Look = Box<dyn FnMut() -> Option<()>>;

/// What a killed `up` left is freed, the same command goes on, and `down` leaves nothing.
fn all_is_well_after(site: &TestSite, when: &str) {
    site.run(&["gc"]).exits(0);
    assert!(!site.traces().iter().any(|trace| trace.starts_with("half made")), "{when}: {:?}", site.traces());
    let up = site.run(&["up"]);
    assert!(up.status.success(), "{when}: {up:#?}");
    assert_eq!(site.status("ce")["ready"], "ready", "{when}");
    // A power cut, so that a round takes no longer than it must.
    site.run(&["kill", "ce"]).exits(0);
    site.run(&["down", "--purge"]).exits(0);
    assert_eq!(site.left(), [""; 0], "{when}");
}

#[test]
fn up_killed_at_any_step_is_cleaned_up_and_goes_on() {
    let Some(site) = site() else { return };
    let (ce, paths) = (name("ce"), site.paths.clone());
    let begun = |dir: PathBuf, what: &'static str| {
        move || {
            let names =
                fs::read_dir(&dir).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            names.into_iter().find(|name| name.starts_with(what)).map(|_| ())
        }
    };
    let is = |path: PathBuf| move || path.exists().then_some(());
    let points: Vec<(&str, Look)> = vec![
        ("run directory", Box::new(is(paths.run.clone()))),
        ("namespace", Box::new(is(paths.netns()))),
        ("holder", Box::new(is(paths.holder_socket()))),
        ("half a clone", Box::new(begun(paths.guest(&ce), ".disk.making-"))),
        ("clone", Box::new(is(paths.disk(&ce)))),
        ("identity", Box::new(is(paths.identity(&ce)))),
        ("known hosts", Box::new(is(paths.known_hosts()))),
        ("personalised", Box::new(is(paths.guest(&ce).join("personalised.json")))),
        ("spec", Box::new(is(paths.spec(&ce)))),
        ("asked to run", Box::new(is(paths.desired(&ce)))),
        ("launched", Box::new(is(paths.run_record(&ce)))),
        ("watched", Box::new(is(paths.ready_record(&ce)))),
    ];
    for (point, mut reached) in points {
        // Half a clone is there for a moment only: who looks too late tries again.
        eventually(point, || {
            let up = site.start(&["up"]);
            let seen =
                eventually(point, || reached().map(|()| true).or_else(|| up.is_over().then_some(false)));
            up.signal(Signal::KILL);
            up.end();
            all_is_well_after(&site, point);
            fs::remove_file(paths.known_hosts()).unwrap();
            seen.then_some(())
        });
    }
}

#[test]
fn up_killed_at_odd_moments_is_cleaned_up_and_goes_on() {
    let Some(site) = site() else { return };
    for moment in [7, 41, 97, 163, 251, 389] {
        let up = site.start(&["up"]);
        std::thread::sleep(Duration::from_millis(moment));
        up.signal(Signal::KILL);
        up.end();
        all_is_well_after(&site, &format!("after {moment} ms"));
    }
}

#[test]
fn a_killed_console_holder_comes_back_and_the_console_has_no_gap() {
    if !take_over::is_possible() {
        return;
    }
    const LINES: usize = 300;
    let Some(site) = TestSite::one("ce", "") else { return };
    site.run(&["up"]).exits(0);
    let pid = site.pid("ce");
    let script =
        format!("for i in $(seq {LINES}); do echo \"line $i of it\" >/dev/console; sleep 0.003; done");
    let talk = site.start(&["ssh", "ce", &script]);
    eventually("the guest talks", || site.console("ce").contains("line 20 of it").then_some(()));
    let holder = site.holder().unwrap();
    kill(holder, Signal::KILL);
    eventually("the holder is gone", || (site.holder() != Some(holder)).then_some(()));
    let status = site.status("ce");
    assert_eq!((&status["ready"], &status["pid"]), (&"ready".into(), &pid.into()), "{status}");

    site.run(&["up"]).exits(0);
    assert_ne!(site.holder().unwrap(), holder);
    talk.end().exits(0);
    let last = format!("line {LINES} of it");
    eventually("the last line", || site.console("ce").contains(&last).then_some(()));
    let console = site.console("ce");
    // The first one follows the login prompt on its line.
    let said = console.split("line ").filter_map(|rest| rest.split_once(" of it")?.0.parse().ok());
    assert_eq!(said.collect::<Vec<usize>>(), (1..=LINES).collect::<Vec<_>>());
    assert_eq!(site.pid("ce"), pid);
}

#[test]
fn without_a_holder_a_wait_brings_it_back_and_guests_can_be_stopped() {
    if !take_over::is_possible() {
        return;
    }
    let Some(site) = site() else { return };
    site.run(&["up"]).exits(0);
    let lose = || {
        let holder = site.holder().unwrap();
        kill(holder, Signal::KILL);
        eventually("the holder is gone", || (site.holder() != Some(holder)).then_some(()));
    };
    lose();
    site.run(&["wait", "ce", "--for", "ready", "--timeout", "120s"]).exits(0);
    lose();
    site.run(&["kill", "ce"]).exits(0);
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "120s"]).exits(0);
    site.run(&["start", "ce"]).exits(0);
    lose();
    site.run(&["down"]).exits(0);
    assert_eq!(site.left(), [""; 0]);
}

//! Guests that do not do as they should, and commands that meet each other.

use rustix::process::Signal;

use gridgate::host::Live;
use gridgate::host::files::Files;

use crate::support::{LIMIT, TestSite, eventually, kill};

#[test]
fn a_guest_that_never_becomes_ready_is_degraded_and_left_running() {
    let Some(site) = TestSite::quick(&["ce"], "ready = [\"console:never\"]\nready_timeout = \"2s\"") else {
        return;
    };
    let ran = site.run(&["up"]).exits(3).says("not ready in time, and left running: ce");
    ran.says("hint: see why with: gridgate console ce");
    // The holder counts for itself, and writes its verdict down a moment later on a busy machine.
    eventually("it is degraded", || (site.status("ce")["ready"] == "degraded").then_some(()));
    assert_eq!(site.status("ce")["observed"], "running");
    site.run(&["status"]).exits(3);
    // Nothing can be done from here, which is not the same as all being well.
    site.run(&["up"]).exits(3).says("not ready in time, and left running: ce");
    site.run(&["wait", "ce", "--timeout", "200ms"]).exits(3).says("guest 'ce' is not ready yet");
}

#[test]
fn a_guest_that_dies_during_its_boot_is_told_with_its_last_words() {
    let extra = "kernel_args = \"root=/dev/nothing\"\nready = [\"login\"]";
    let Some(site) = TestSite::quick(&["ce"], extra) else { return };
    let ran = site.run(&["up"]).exits(5).says("guest 'ce' ended before it was ready (");
    let ran = ran
        .says("Kernel panic - not syncing: VFS: Unable to mount root fs")
        .says("hint: all that it said: gridgate console ce --log");
    ran.says("done and kept:\n");
    let status = site.status("ce");
    assert_eq!((&status["desired"], &status["observed"]), (&"running".into(), &"stopped".into()), "{status}");
    assert!(site.console("ce").contains("Kernel panic"));
    // Mended, the same command goes on from there.
    site.write("guests/ce.toml", "address = \"10.77.0.10\"\n");
    site.run(&["up"]).exits(0).says("ce: ready after ");
}

#[test]
fn a_guest_whose_process_is_killed_by_somebody_else_can_be_brought_up_again() {
    let Some(site) = TestSite::one("ce", "") else { return };
    site.run(&["up"]).exits(0);
    kill(site.pid("ce"), Signal::KILL);
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "120s"]).exits(0);
    let status = site.status("ce");
    assert_eq!((&status["desired"], &status["observed"]), (&"running".into(), &"stopped".into()), "{status}");
    assert_eq!((&status["last_exit"]["cause"], &status["last_exit"]["code"]), (&"signal".into(), &9.into()));
    site.run(&["up"]).exits(0).says("ce: ready after ");
}

#[test]
fn two_commands_at_once_take_turns_and_start_one_guest() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    let both = [site.start(&["up"]), site.start(&["up"])].map(|running| running.end());
    for ran in &both {
        let refused =
            ran.status.code() == Some(1) && ran.err.contains("another gridgate command is at work here");
        assert!(ran.status.success() || refused, "{both:#?}");
    }
    assert!(both.iter().any(|ran| ran.status.success()), "{both:#?}");
    let starts: usize = both.iter().map(|ran| ran.err.matches("ce: started").count()).sum();
    assert_eq!(starts, 1, "{both:#?}");
}

#[test]
fn a_command_that_meets_a_longer_one_gives_up_and_says_why() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    let work = Live.lock(&site.paths.lock(), LIMIT).unwrap();
    for verb in ["up", "down"] {
        let refused = "another gridgate command is at work here; hint: try again when it has ended";
        site.run(&[verb]).exits(1).says(refused);
    }
    site.run(&["status"]).exits(0);
    drop(work);
    site.run(&["up"]).exits(0);
}

#[test]
fn a_site_whose_files_are_broken_can_still_be_looked_at_and_taken_down() {
    let Some(site) = TestSite::quick(&["ce", "se"], "") else { return };
    site.run(&["up"]).exits(0);
    site.write("site.toml", "name = \"quick\n");
    let status = site.run(&["status"]).exits(2).says("site.toml:1");
    assert_eq!(status.out.matches(" ready ").count(), 2, "{status:#?}");
    site.run(&["up"]).exits(2).says("site.toml:1");
    site.run(&["console", "ce", "--log"]).exits(0);
    let login = eventually("one can log in", || {
        let ran = site.run(&["ssh", "se", "hostname"]);
        ran.status.success().then_some(ran)
    });
    assert_eq!(login.says("note: going on with what the state directory knows").out, "se\n");
    site.run(&["ssh", "sea", "hostname"]).exits(2).says("site.toml:1");
    site.run(&["stop", "ce", "sea"]).exits(2);
    site.run(&["stop", "ce"]).exits(0).says("note: going on with what the state directory knows");
    let status = site.run(&["status", "--json"]).exits(2);
    assert!(
        status.json()["guests"][0]["observed"] == "stopped" && status.json()["guests"][1]["ready"] == "ready"
    );
    site.run(&["down"]).exits(0).says("se: ");
    assert_eq!(site.left(), [""; 0]);
}

#[test]
fn a_guest_that_the_site_no_longer_names_is_shown_and_goes_down_with_the_others() {
    let Some(site) = TestSite::quick(&["ce", "se"], "") else { return };
    site.run(&["up"]).exits(0);
    std::fs::remove_file(site.paths.site.join("guests/se.toml")).unwrap();
    assert_eq!(site.status("se")["ready"], "ready");
    site.run(&["down"]).exits(0).says("se: ");
    assert_eq!(site.left(), [""; 0]);
}

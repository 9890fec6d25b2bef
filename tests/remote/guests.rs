//! Guests of another box.

use crate::lab::private;
use crate::site::TestSite;

/// What the whole of it is for: one command, from far away.
#[test]
fn the_user_interface_of_another_box_becomes_a_worker_node() {
    private(|lab| {
        let Some(site) = TestSite::quick(&["ui", "wn"], "") else { return };
        let (files, state) = (site.paths.site.to_str().unwrap(), site.paths.state.to_str().unwrap());
        let run = |words: &[&str], code: i32| {
            let all: Vec<&str> = ["--site", files, "--state", state].iter().chain(words).copied().collect();
            lab.run(&all, b"").exits(code)
        };
        // Nothing is there but sshd, and the box's own kernel and images.
        run(&["--copy-binary", "up", "ui"], 0).says("copied gridgate to 'gw'");
        run(&["stop", "ui"], 0);
        run(&["personalise", "ui", "--as", "wn"], 0).says("ui: its disk is now that of wn");
        assert!(!site.paths.disk(&crate::site::name("ui")).exists());
        run(&["up", "wn"], 0).says("wn: ready after ");
        run(&["down", "--purge"], 0);
        lab.is_quiet();
    });
}

#[test]
fn guests_over_there_come_up_are_looked_at_and_go_down() {
    private(|lab| {
        lab.install();
        let Some(site) = TestSite::quick(&["ui"], "") else { return };
        let (files, state) = (site.paths.site.to_str().unwrap(), site.paths.state.to_str().unwrap());
        let run = |words: &[&str], code: i32| {
            let all: Vec<&str> = ["--site", files, "--state", state].iter().chain(words).copied().collect();
            lab.run(&all, b"").exits(code)
        };
        run(&["plan"], 3).out();
        run(&["up"], 0).says("ui: ready after ");
        let status: serde_json::Value = serde_json::from_str(&run(&["--json", "status"], 0).out()).unwrap();
        assert_eq!(status["guests"][0]["observed"], "running", "{status}");
        run(&["console", "ui", "--log", "--grep", "Linux version"], 0);
        run(&["down", "--purge"], 0);
        run(&["status"], 0);
        lab.is_quiet();
    });
}

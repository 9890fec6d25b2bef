//! Commands that have a terminal: ours, at the other end.

use std::process::Stdio;

use gridgate::console::protocol::Settings;
use rustix::process::Signal;

use crate::lab::{User, private};
use crate::support::{Site, eventually, kill};

#[test]
fn a_console_over_there_is_as_one_here() {
    private(|lab| {
        lab.install();
        let Some(mut site) = Site::new() else { return };
        let script = "echo booted; while read line; do echo \"got $line\"; stty size; done";
        let _ce = site.guest("ce", script, Settings::default());
        let (files, state) = (site.paths.site.to_str().unwrap(), site.paths.state.to_str().unwrap());
        let console = ["--site", files, "--state", state, "console", "ce"];
        let mut command = lab.gridgate(&console);
        command.env("GRIDGATE_ESCAPE", "^a");
        let mut user = User::new(command);
        user.sees("[gridgate: connected to ce (running, ready), Ctrl-A detaches, Ctrl-A ? helps]\r\n");
        user.sees("booted\n");
        assert!(user.is_raw());
        user.types(b"hello\n");
        user.sees("got hello\n40 100\n");
        user.resizes(77, 11);
        // The new size comes on its own way.
        eventually("the guest has the new size", || {
            user.looks_away();
            user.types(b"again\n");
            (user.sees_one_of(&["got again\n40 100\n", "got again\n11 77\n"]) == 1).then_some(())
        });
        // Ctrl-C is the guest's.
        user.looks_away();
        user.types(b"\x03\n");
        user.sees("got \x03\n11 77\n");
        user.types(b"\x01.");
        user.sees("[gridgate: detached from ce]\r\n");
        assert_eq!(user.ends(), Some(0));
        assert!(!user.is_raw());
        lab.is_quiet();
    });
}

#[test]
fn a_script_talks_with_a_console_over_there_through_pipes() {
    private(|lab| {
        lab.install();
        let Some(site) = Site::new() else { return };
        let ce = crate::support::guest("ce");
        let script = "printf 'booted\\n'; read a; read b; echo \"$a and $b\"; exit 0";
        site.spawn(&ce, script, "uml", Settings::default()).unwrap();
        let (files, state) = (site.paths.site.to_str().unwrap(), site.paths.state.to_str().unwrap());
        let ran = lab.run(&["--site", files, "--state", state, "console", "ce"], b"one\ntwo\n").exits(0);
        assert_eq!(ran.out(), "booted\none and two\n");
    });
}

#[test]
fn there_is_a_terminal_if_ours_is_one_and_the_command_wants_it() {
    private(|lab| {
        lab.install();
        let line = lab.enter(&["sh", "-c", "tty; exit 5"]);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut user = User::new(lab.gridgate(&words));
        user.sees("/dev/pts/");
        assert_eq!(user.ends(), Some(5));
        assert_eq!(lab.run(&words, b"").exits(5).out(), "not a tty\n");
        // A terminal here, and a command that only prints.
        let site = lab.site();
        let mut user = User::new(lab.gridgate(&["--site", &site, "check"]));
        user.sees("site 'far' is good: 0 guests, 1 network");
        assert_eq!(user.ends(), Some(0));
        assert!(!user.is_raw());
    });
}

#[test]
fn ctrl_c_at_a_terminal_ends_what_runs_there_and_its_exit_code_comes_back() {
    private(|lab| {
        lab.install();
        let site = lab.site();
        // Data, which gets no terminal there although there is one here.
        let mut user = User::new(lab.gridgate(&["--site", &site, "--json", "status", "--watch"]));
        user.sees("\"version\": 1");
        assert!(!user.is_raw());
        user.types(b"\x03");
        assert_eq!(user.ends(), Some(0));
        lab.is_quiet();
    });
}

#[test]
fn a_near_end_that_is_killed_hangs_up_and_leaves_nothing_there() {
    private(|lab| {
        lab.install();
        for signal in [Signal::TERM, Signal::KILL] {
            let line = lab.enter(&["sh", "-c", "echo running; exec sleep 1000"]);
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let mut user = User::new(lab.gridgate(&words));
            user.sees("running\r\n");
            kill(user.child.id().cast_signed(), signal);
            user.ends();
            lab.is_quiet();
        }
        // What the killed one left goes with the next command.
        let mut command = lab.gridgate(&["names"]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    });
}

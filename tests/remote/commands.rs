//! Commands without a terminal: their streams, exit codes, arguments, signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Lab, private};
use crate::support::{eventually, exe, kill};

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn data_comes_out_as_it_is_and_one_login_is_enough() {
    private(|lab| {
        lab.install();
        let site = lab.site();
        let far = lab.run(&["--site", &site, "--json", "check"], b"").exits(0);
        let near =
            std::process::Command::new(exe()).args(["--site", &site, "--json", "check"]).output().unwrap();
        assert!(near.status.success());
        assert_eq!(far.out(), String::from_utf8(near.stdout).unwrap());
        assert_eq!(far.err(), "");
        assert_eq!(lab.logins(), 1);
        lab.is_quiet();
    });
}

#[test]
fn the_exit_code_is_that_of_the_command_even_the_one_that_ssh_uses_for_itself() {
    private(|lab| {
        lab.install();
        for code in [0, 7, 255] {
            let line = lab.enter(&["sh", "-c", &format!("exit {code}")]);
            lab.run(&words(&line), b"").exits(code);
        }
        lab.run(&["--site", "/nowhere", "check"], b"").exits(2).says("/nowhere");
        // What is wrong with the line itself is said here, without a connection.
        let logins = lab.logins();
        lab.run(&["check", "--no-such"], b"").exits(2).says("--no-such");
        assert_eq!(lab.logins(), logins);
    });
}

#[test]
fn any_arguments_and_any_input_arrive_unchanged() {
    private(|lab| {
        lab.install();
        let hard = ["", "a b", "it's", "$HOME `id` \\", "line\nbreak", "~", "*", "é\u{1}", "--host", "+41"];
        let mut line = lab.enter(&["printf", "%s|"]);
        line.extend(hard.iter().map(|word| (*word).to_owned()));
        let out = lab.run(&words(&line), b"").exits(0).out();
        assert_eq!(out, hard.join("|") + "|");
        // More than fits on the way at once, and bytes of every kind.
        let input: Vec<u8> =
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let line = lab.enter(&["cat"]);
        let ran = lab.run(&words(&line), &input).exits(0);
        assert!(ran.0.stdout == input, "{} bytes came back of {}", ran.0.stdout.len(), input.len());
    });
}

#[test]
fn input_is_left_alone_by_a_command_that_does_not_read_it() {
    private(|lab| {
        lab.install();
        let site = lab.site();
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"for the next one").unwrap();
        drop(writer);
        let mut command = lab.gridgate(&["--site", &site, "check"]);
        let status = command.stdin(reader.try_clone().unwrap()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
        let mut left = String::new();
        std::io::BufReader::new(reader).read_to_string(&mut left).unwrap();
        assert_eq!(left, "for the next one");
    });
}

/// A script that runs there.
struct Script {
    child: Child,
    err: BufReader<ChildStderr>,
}

impl Script {
    /// Starts it and waits until it has said that it runs.
    fn start(lab: &Lab, script: &str) -> Self {
        let line = lab.enter(&["sh", "-c", script]);
        let mut command = lab.gridgate(&words(&line));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        let mut script = Self { child, err };
        let mut said = String::new();
        while !said.ends_with("running\n") {
            assert_ne!(script.err.read_line(&mut said).unwrap(), 0, "{said}");
        }
        script
    }

    fn is_sent(&self, signal: Signal) {
        kill(self.child.id().cast_signed(), signal);
    }

    fn ends(&mut self) -> Option<i32> {
        eventually("it ends", || self.child.try_wait().unwrap()).code()
    }

    /// What else it has said.
    fn said(&mut self) -> String {
        let mut text = String::new();
        self.err.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn talk_comes_while_the_command_runs_and_ctrl_c_reaches_it() {
    private(|lab| {
        lab.install();
        let script = "trap 'echo tidying >&2; exit 9' INT; echo running >&2; while :; do sleep 0.05; done";
        let mut script = Script::start(lab, script);
        script.is_sent(Signal::INT);
        assert_eq!(script.ends(), Some(9));
        assert_eq!(script.said(), "tidying\n");
        lab.is_quiet();
    });
}

#[test]
fn who_asks_twice_is_not_kept_waiting_and_nothing_goes_on_there() {
    private(|lab| {
        lab.install();
        let script = "trap '' INT; echo running >&2; while :; do sleep 0.05; done";
        let mut script = Script::start(lab, script);
        // Two that come before it looks are one.
        let ended = eventually("it gives up", || {
            script.is_sent(Signal::INT);
            std::thread::sleep(Duration::from_millis(100));
            script.child.try_wait().unwrap()
        });
        assert_eq!(ended.code(), Some(1));
        assert!(script.said().contains("interrupted, and nothing came back; it is told to end there"));
        lab.is_quiet();
    });
}

#[test]
fn a_near_end_that_is_killed_leaves_nothing_there() {
    private(|lab| {
        lab.install();
        let script = "sleep 1000 & echo running >&2; wait";
        let mut script = Script::start(lab, script);
        eventually("both run", || {
            lab.runs_there().iter().any(|line| line.starts_with("sleep 1000")).then_some(())
        });
        script.is_sent(Signal::KILL);
        assert_eq!(script.ends(), None);
        lab.is_quiet();
        // Its directory goes with the next command.
        assert_eq!(lab.kept_here().len(), 1);
        let line = lab.enter(&["true"]);
        lab.run(&words(&line), b"").exits(0);
        assert_eq!(lab.kept_here().len(), 0);
    });
}

#[test]
fn a_reader_that_goes_away_is_the_end_of_it() {
    private(|lab| {
        lab.install();
        let line = lab.enter(&["sh", "-c", "while echo more; do :; done"]);
        let mut command = lab.gridgate(&words(&line));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "more\n");
        eventually("it ends", || child.try_wait().unwrap());
        lab.is_quiet();
    });
}

#[test]
fn a_cable_that_is_pulled_ends_the_command_with_a_clear_error_in_bounded_time() {
    private(|lab| {
        lab.install();
        // The user's own figures, which ours must not replace.
        lab.configure(" ServerAliveInterval 5\n ServerAliveCountMax 2\n");
        let mut script = Script::start(lab, "echo running >&2; sleep 1000");
        lab.cut();
        // Within the limit of every wait here.
        assert_eq!(script.ends(), Some(1));
        let said = script.said();
        assert!(said.contains("gridgate: running 'enter' on 'gw': the connection was lost"), "{said}");
    });
}

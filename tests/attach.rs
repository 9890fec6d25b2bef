//! `gridgate console` on a terminal and on pipes.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};

use gridgate::console::client;
use gridgate::console::protocol::Settings;
use gridgate::names::GuestName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{LIMIT, Site, eventually, guest, kill};

/// Not a test: a process that [`Site::launch`] starts becomes a guest here.
#[test]
fn launcher() {
    support::launcher();
}

/// `gridgate console` on a terminal of 100 columns and 40 rows.
struct User {
    screen: File,
    terminal: OwnedFd,
    client: Child,
    seen: Vec<u8>,
}

fn console(site: &Site, name: &GuestName, args: &[&str]) -> Command {
    let mut command = Command::new(support::exe());
    command.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state);
    command.arg("console").arg(name.as_str()).args(args);
    command
}

impl User {
    fn new(site: &Site, name: &GuestName, args: &[&str]) -> Self {
        let (master, slave) = support::terminal(OpenptFlags::CLOEXEC);
        tcsetwinsize(&master, Winsize { ws_col: 100, ws_row: 40, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let client = console(site, name, args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut user = Self { screen: master.into(), terminal: slave, client, seen: Vec::new() };
        if !args.contains(&"--log") {
            user.sees(&format!("[gridgate: connected to {name} (running, "));
        }
        user
    }

    fn types(&mut self, bytes: &[u8]) {
        self.screen.write_all(bytes).unwrap();
    }

    fn sees(&mut self, text: &str) {
        let limit = Timespec { tv_sec: i64::try_from(LIMIT.as_secs()).unwrap(), tv_nsec: 0 };
        while !self.seen.windows(text.len()).any(|w| w == text.as_bytes()) {
            let ready = poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "never saw {text:?} but {}", self.seen.escape_ascii());
            let mut buffer = [0; 4096];
            let n = self.screen.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..n]);
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn ends(&mut self) -> Option<i32> {
        self.client.wait().unwrap().code()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn a_user_types_reads_and_detaches() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest(
        "ce",
        "echo booted; while read line; do echo \"got $line\"; stty size; done",
        Settings::default(),
    );
    let mut user = User::new(&site, &ce.name, &[]);
    user.sees("ready), Ctrl-] detaches]\r\nbooted\n");
    assert!(user.is_raw());
    user.types(b"hello\n");
    user.sees("got hello\n40 100\n");
    user.types(b"\x1d");
    user.sees("[gridgate: detached from ce]\r\n");
    assert_eq!(user.ends(), Some(0));
    assert!(!user.is_raw());
}

#[test]
fn the_escape_key_twice_is_for_the_guest() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec od -An -tx1 -v -w1", Settings::default());
    let mut user = User::new(&site, &ce.name, &["--escape", "^a"]);
    user.types(b"\x01\x01\x1d!");
    user.sees(" 01\n 1d\n 21\n");
    user.types(b"\x01x");
    assert_eq!(user.ends(), Some(0));
}

#[test]
fn a_terminal_is_put_back_when_the_client_is_told_to_end() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings::default());
    let mut user = User::new(&site, &ce.name, &["--escape", "none"]);
    eventually("the terminal is raw", || user.is_raw().then_some(()));
    kill(user.client.id().cast_signed(), Signal::TERM);
    assert_eq!(user.ends(), Some(0));
    assert!(!user.is_raw());
}

#[test]
fn a_new_window_size_reaches_the_guest() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "while read line; do stty size; done", Settings::default());
    let mut user = User::new(&site, &ce.name, &[]);
    tcsetwinsize(&user.terminal, Winsize { ws_col: 77, ws_row: 11, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    // The terminal is not the client's controlling one here, so that nobody else tells it.
    kill(user.client.id().cast_signed(), Signal::WINCH);
    eventually("the guest has the new size", || {
        user.types(b"\n");
        user.sees("\n");
        user.seen.windows(5).any(|w| w == b"11 77").then_some(()).or_else(|| {
            user.seen.clear();
            None
        })
    });
}

#[test]
fn a_user_outlives_the_holder() {
    if !support::take_over::is_possible() {
        return;
    }
    let Some(mut site) = Site::new() else { return };
    let ce =
        site.guest("ce", "echo booted; while read line; do echo \"got $line\"; done", Settings::default());
    let mut user = User::new(&site, &ce.name, &[]);
    user.sees("booted\n");
    site.kill_holder();
    user.sees("reconnecting]\r\n");
    // The client itself has brought a new one.
    user.sees("[gridgate: connected again]\r\n");
    user.types(b"hello\n");
    user.sees("got hello\n");
    let text = String::from_utf8(user.seen.clone()).unwrap();
    assert_eq!((text.matches("booted").count(), text.matches("got hello").count()), (1, 1), "{text}");
    kill(ce.pid, Signal::KILL);
    site.reap(&ce);
    eventually("the new holder goes without a guest", || client::quit(&site.paths).ok());
}

#[test]
fn the_guests_end_ends_the_client() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "read line; exit 4", "uml", Settings::default()).unwrap();
    let mut user = User::new(&site, &ce, &[]);
    user.types(b"\n");
    user.sees("[gridgate: ce is not running any more (exit 4)]\r\n");
    assert_eq!(user.ends(), Some(0));
}

#[test]
fn replay_is_harmless_and_live_output_is_the_writers_own() {
    let Some(mut site) = Site::new() else { return };
    let script =
        "printf '\\033]52;c;eA==\\007old\\033[6n\\n'; while read line; do printf '\\033[?1049hnew\\n'; done";
    let ce = site.guest("ce", script, Settings::default());
    eventually("it has spoken", || site.state(&ce.name).filter(|s| s.output_bytes > 10));
    let mut reader = User::new(&site, &ce.name, &["--read-only"]);
    reader.sees("]\r\nold\n");
    let mut user = User::new(&site, &ce.name, &[]);
    user.sees("]\r\nold\n");
    user.types(b"\n");
    user.sees("\x1b[?1049hnew\n");
    reader.sees("]\r\nold\nnew\n");
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_script_talks_through_pipes() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(
        &ce,
        "printf 'booted\\n'; read a; read b; echo \"$a and $b\"; exit 0",
        "uml",
        Settings::default(),
    )
    .unwrap();
    let out = run(&mut console(&site, &ce, &[]), "one\ntwo\n");
    assert_eq!(out.stdout, b"booted\none and two\n");
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        said,
        "[gridgate: connected to ce (running, ready)]\n[gridgate: ce is not running any more (exit 0)]\n"
    );
}

#[test]
fn a_log_is_printed_filtered_or_raw_and_by_boot() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    for word in ["one", "two"] {
        let script = format!("printf '\\033]0;{word}\\007{word}\\n'");
        site.spawn(&ce, &script, "uml", Settings::default()).unwrap();
        eventually("it has ended", || site.state(&ce).is_none().then_some(()));
    }
    let print = |args: &[&str]| run(&mut console(&site, &ce, args), "");
    assert_eq!(print(&["--log"]).stdout, b"two\n");
    assert_eq!(print(&["--log", "--boot", "-1"]).stdout, b"one\n");
    assert_eq!(print(&["--log", "--boot", "1", "--raw"]).stdout, b"\x1b]0;one\x07one\n");
    let none = print(&["--log", "--boot", "7"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().contains("there are 1 to 2"));
    let gone = print(&[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8(gone.stderr).unwrap().contains("gridgate console ce --log shows"));
}

#[test]
fn a_log_is_followed_to_the_guests_end() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "echo one; read go; echo two", "uml", Settings::default()).unwrap();
    let mut follower = User::new(&site, &ce, &["--log", "--follow"]);
    follower.sees("one\r\n");
    let out = run(&mut console(&site, &ce, &[]), "\n");
    assert_eq!(out.stdout, b"one\ntwo\n");
    follower.sees("one\r\ntwo\r\n");
    assert_eq!(follower.ends(), Some(0));
}

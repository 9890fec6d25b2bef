//! `gridgate console` on a terminal and on pipes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use gridgate::console::client;
use gridgate::console::protocol::Settings;
use gridgate::names::GuestName;
use rustix::process::Signal;
use rustix::termios::LocalModes;

use crate::log::contains;
use crate::support::{self, LIMIT, Site, eventually, guest, kill};
use crate::terminal::{Terminal, gridgate};

/// `gridgate console` on a terminal of 100 columns and 40 rows.
struct User {
    terminal: Terminal,
    seen: Vec<u8>,
}

fn console(site: &Site, name: &GuestName, args: &[&str]) -> Command {
    gridgate(site, &[&["console", name.as_str()], args].concat())
}

impl User {
    fn new(site: &Site, name: &GuestName, args: &[&str]) -> Self {
        let mut user = Self::waits(site, name, args);
        if !args.contains(&"--log") {
            user.sees(&format!("[gridgate: connected to {name} (running, "));
        }
        user
    }

    /// Of a guest that need not be there.
    fn waits(site: &Site, name: &GuestName, args: &[&str]) -> Self {
        Self { terminal: Terminal::new(&mut console(site, name, args), 100, 40), seen: Vec::new() }
    }

    fn types(&mut self, bytes: &[u8]) {
        self.terminal.types(bytes);
    }

    fn sees(&mut self, text: &str) {
        while !contains(&self.seen, text) {
            let read = self.terminal.read(LIMIT);
            assert!(!read.is_empty(), "never saw {text:?} but {}", self.seen.escape_ascii());
            self.seen.extend(read);
        }
    }

    fn is_raw(&self) -> bool {
        !self.terminal.modes().contains(LocalModes::ICANON)
    }

    fn ends(&mut self) -> Option<i32> {
        self.terminal.client.wait().unwrap().code()
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
    eventually("it has spoken", || site.state(&ce.name).filter(|s| s.output_bytes == 7));
    let mut user = User::new(&site, &ce.name, &[]);
    user.sees("ready), Ctrl-] detaches, Ctrl-] ? helps]\r\n[gridgate: last output ");
    user.sees(" ago; nobody else is attached]\r\nbooted\n");
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
    kill(user.terminal.client.id().cast_signed(), Signal::TERM);
    assert_eq!(user.ends(), Some(0));
    assert!(!user.is_raw());
}

#[test]
fn a_new_window_size_reaches_the_guest() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "while read line; do stty size; done", Settings::default());
    let mut user = User::new(&site, &ce.name, &[]);
    user.terminal.resize(77, 11);
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
    reader.sees("attached]\r\nold\n");
    let mut user = User::new(&site, &ce.name, &[]);
    user.sees("reads]\r\nold\n");
    user.types(b"\n");
    user.sees("\x1b[?1049hnew\n");
    reader.sees("attached]\r\nold\nnew\n");
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
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "[gridgate: connected to ce (running, ready)]");
    assert!(lines[1].ends_with("; nobody else is attached]"), "{said}");
    assert_eq!(lines[2], "[gridgate: ce is not running any more (exit 0)]");
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

#[test]
fn the_keys_after_the_escape_key_help_break_and_leave() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings::default());
    let mut user = User::new(&site, &ce.name, &[]);
    user.types(b"\x1d?");
    user.sees("[gridgate: Ctrl-] detaches; then . detaches at once, b sends a break");
    user.types(b"\x1db");
    user.sees("[gridgate: no break was sent: what the guest was started with is not known any more]\r\n");
    user.types(b"\x1d.");
    user.sees("[gridgate: detached from ce]\r\n");
    assert_eq!(user.ends(), Some(0));
}

#[test]
fn the_escape_key_comes_from_the_environment_too() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings::default());
    let out = console(&site, &ce.name, &[]).env("GRIDGATE_ESCAPE", "F1").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8(out.stderr).unwrap().contains("must be '^' and a letter"));
}

#[test]
fn everybody_is_told_who_else_is_there_and_what_is_broadcast() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo booted; exec cat", Settings::default());
    let mut first = User::new(&site, &ce.name, &[]);
    first.sees("booted\n");
    let mut second = User::new(&site, &ce.name, &["--read-only"]);
    second.sees(" writes]\r\n");
    let mut third = User::new(&site, &ce.name, &[]);
    third.sees("is writing; you are reading (--take to write)]\r\n");
    let mut tell = Command::new(support::exe());
    tell.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state);
    tell.args(["--json", "console", "ce", "--broadcast", "back at\x1b]52;c;eA==\x07 ten"])
        .env("SUDO_USER", "ann");
    let out = tell.stdin(Stdio::null()).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told, serde_json::json!({"version": 1, "told": [{"guest": "ce", "clients": 3}]}));
    for user in [&mut first, &mut second, &mut third] {
        user.sees("[gridgate: ann: back at ten]\r\n");
    }
    first.types(b"\x1d.");
    third.sees(" has left; you are writing now]\r\n");
    third.types(b"mine now");
    second.sees("mine now");
}

#[test]
fn only_the_end_of_a_boot_is_shown_if_that_is_asked_for() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo first; echo second; exec cat", Settings::default());
    eventually("it has spoken", || site.state(&ce.name).filter(|s| s.output_bytes == 13));
    let mut user = User::new(&site, &ce.name, &["--tail", "7"]);
    user.sees("]\r\nsecond\n");
}

#[test]
fn a_guest_that_panicked_shows_its_panic_and_the_next_boot_can_be_awaited() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let never = run(&mut console(&site, &ce, &[]), "");
    assert_eq!(never.status.code(), Some(2), "no site names it and nothing is left of it");
    let panic = "echo booting; echo 'Kernel panic - not syncing: no init'; echo stack; exit 134";
    site.spawn(&ce, panic, "uml", Settings::default()).unwrap();
    eventually("it has ended", || site.state(&ce).is_none().then_some(()));
    let out = run(&mut console(&site, &ce, &[]), "");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(out.stdout, b"booting\nKernel panic - not syncing: no init\n");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("[gridgate: ce is not running: its kernel panicked "), "{said}");
    assert!(said.contains("(exit 134); its last words:]\n"), "{said}");
    assert!(said.contains("--wait waits for its next start"), "{said}");
    let mut waiting = User::waits(&site, &ce, &["--wait"]);
    waiting.sees("waiting for the next start of ce");
    site.spawn(&ce, "echo again; read line; exit 0", "uml", Settings::default()).unwrap();
    waiting.sees("[gridgate: connected to ce (running, ");
    waiting.sees("again\n");
    waiting.types(b"\n");
    waiting.seen.clear();
    waiting.sees("ce is not running any more (exit 0)]\r\n");
    waiting.sees("[gridgate: waiting for the next start of ce");
}

#[test]
fn a_running_guest_whose_kernel_panicked_is_called_so() {
    let Some(mut site) = Site::new() else { return };
    let script = "echo 'Kernel panic - not syncing: Fatal exception'; exec sleep 1000";
    let ce = site.guest("ce", script, Settings::default());
    eventually("it has spoken", || site.state(&ce.name).filter(|s| s.output_bytes > 40));
    User::new(&site, &ce.name, &[]).sees("connected to ce (running, its kernel has panicked)");
}

#[test]
fn a_log_is_read_by_time_and_by_what_it_says() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    for word in ["one", "two"] {
        let script = format!("printf '%s\\r\\n' 'it is {word}' 'Kernel panic {word}'");
        site.spawn(&ce, &script, "uml", Settings::default()).unwrap();
        eventually("it has ended", || site.state(&ce).is_none().then_some(()));
    }
    let print = |args: &[&str]| run(&mut console(&site, &ce, &[&["--log"], args].concat()), "");
    let text = |args: &[&str]| String::from_utf8(print(args).stdout).unwrap();
    assert_eq!(text(&["--grep", "(?i)PANIC"]), "Kernel panic two\r\n");
    assert_eq!(
        text(&["--boot", "all", "--grep", "panic", "--raw"]),
        "Kernel panic one\r\nKernel panic two\r\n"
    );
    let both = text(&["--since", "-5min", "--grep", "is"]);
    let lines: Vec<&str> = both.lines().collect();
    assert_eq!((lines.len(), lines[1], lines[3]), (4, "it is one", "it is two"), "{both}");
    assert!(lines[0].starts_with("-- boot 1: ") && lines[2].starts_with("-- boot 2: "), "{both}");
    let none = print(&["--since", "-5min", "--grep", "oops"]);
    assert_eq!((none.status.code(), none.stdout), (Some(3), Vec::new()));
    assert_eq!(none.stderr, b"[gridgate: ce said nothing at that time that matches]\n");
    assert_eq!(print(&["--since", "soon"]).status.code(), Some(2));
    assert_eq!(print(&["--since", "-1min", "--until", "-2min"]).status.code(), Some(2));
    assert_eq!(print(&["--grep", "("]).status.code(), Some(2));
}

#[test]
fn a_log_is_followed_for_lines_that_match() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "echo one; echo not; read go; echo two; echo once", "uml", Settings::default()).unwrap();
    let mut follower = User::new(&site, &ce, &["--log", "--follow", "--grep", "o[nw]|^t"]);
    follower.sees("one\r\n");
    run(&mut console(&site, &ce, &[]), "\n");
    follower.sees("one\r\ntwo\r\nonce\r\n");
    assert_eq!(follower.ends(), Some(0));
}

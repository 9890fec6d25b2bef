//! `gridgate console --all` on a terminal, with a real holder and programs that stand for guests.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::console::client;
use gridgate::console::protocol::{Mode, Settings};
use rustix::process::Signal;
use rustix::termios::LocalModes;

use crate::support::{self, LIMIT, Site, eventually, guest, kill};
use crate::terminal::{Terminal, gridgate};

/// `gridgate console --all` on a terminal of 100 columns and 31 rows, and what that shows.
struct User {
    terminal: Terminal,
    bytes: Vec<u8>,
    shown: vt100::Parser,
}

fn panes(site: &Site, args: &[&str]) -> Command {
    let mut command = gridgate(site, &[&["console", "--all"], args].concat());
    command.env("LC_ALL", "C.UTF-8");
    command
}

impl User {
    /// Of a site with one guest, `ce`.
    fn new(site: &Site, args: &[&str]) -> Self {
        Self::of(site, &["ce"], args)
    }

    fn of(site: &Site, guests: &[&str], args: &[&str]) -> Self {
        write_site(site, guests);
        let terminal = Terminal::new(&mut panes(site, args), 100, 31);
        let shown = vt100::Parser::new(31.try_into().unwrap(), 100.try_into().unwrap(), 0);
        Self { terminal, bytes: Vec::new(), shown }
    }

    fn types(&mut self, bytes: &[u8]) {
        self.terminal.types(bytes);
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.shown.set_size(rows.try_into().unwrap(), columns.try_into().unwrap());
        self.terminal.resize(columns, rows);
    }

    /// Waits until the screen is as wanted.
    fn sees(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !wanted(&self.shown.screen().contents()) {
            assert!(Instant::now() < deadline, "never saw {what} but\n{}", self.shown.screen().contents());
            self.read();
        }
    }

    fn sees_text(&mut self, text: &str) {
        self.sees(text, |shown| shown.contains(text));
    }

    fn read(&mut self) {
        let read = self.terminal.read(Duration::from_millis(200));
        self.shown.process(&read);
        self.bytes.extend(read);
    }

    /// The exit code; the terminal must be as it was.
    fn ends(&mut self) -> Option<i32> {
        let status = eventually("it ends", || {
            self.read();
            self.terminal.client.try_wait().unwrap()
        });
        self.read();
        assert!(self.terminal.modes().contains(LocalModes::ICANON | LocalModes::ECHO));
        let screen = self.shown.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        status.code()
    }
}

const ECHO: &str = "echo booted; while read line; do echo \"got $line\"; stty size; done";

/// The site's files, which name these guests.
fn write_site(site: &Site, names: &[&str]) {
    let network = "mode = \"rehearsal\"\nsubnet = \"10.77.0.0/24\"\ngateway = \"10.77.0.1\"\n";
    let text = format!(
        "name = \"panes\"\n[defaults]\nimage = \"debian-12\"\nbackend = \"uml\"\n[networks.lan]\n{network}"
    );
    std::fs::write(site.paths.site.join("site.toml"), text).unwrap();
    std::fs::create_dir_all(site.paths.site.join("guests")).unwrap();
    for (number, name) in names.iter().enumerate() {
        let path = site.paths.site.join(format!("guests/{name}.toml"));
        std::fs::write(path, format!("address = \"10.77.0.{}\"\n", 10 + number)).unwrap();
    }
}

#[test]
fn all_guests_are_shown_and_one_is_typed_in() {
    let Some(mut site) = Site::new() else { return };
    let (ce, se) = (
        site.guest("ce", ECHO, Settings::default()),
        site.guest("se", "echo other; exec cat", Settings::default()),
    );
    let mut user = User::of(&site, &["ce", "se", "ui"], &[]);
    user.sees_text(" 1 ce  ready");
    user.sees_text(" 2 se  ready");
    user.sees_text(" 3 ui  stopped");
    user.sees("both", |shown| shown.contains("booted") && shown.contains("other"));
    user.types(b"i");
    user.sees_text("you type in ce; Ctrl-] leaves");
    eventually("it writes", || site.state(&ce.name).filter(|console| console.writer.is_some()));
    user.types(b"hello\n");
    user.sees_text("got hello");
    user.types(b"\x1db");
    user.sees_text("no break was sent: what the guest was started with is not known any more");
    user.types(b"\x1d");
    user.sees_text("q leaves");
    eventually("nobody writes", || site.state(&ce.name).filter(|console| console.writer.is_none()));
    // Now the same key is a command.
    user.types(b"q");
    assert_eq!(user.ends(), Some(0));
    assert_eq!(site.state(&se.name).unwrap().attached, 0);
}

#[test]
fn one_alone_follows_the_terminals_size_and_tells_the_guest() {
    let Some(mut site) = Site::new() else { return };
    site.guest("ce", ECHO, Settings::default());
    let mut user = User::new(&site, &[]);
    user.sees_text("booted");
    user.types(b"\ri\n");
    user.sees_text("29 100");
    user.resize(77, 20);
    user.types(b"\n");
    user.sees_text("18 77");
    user.resize(20, 3);
    user.sees_text("too small: 20x3");
    user.resize(90, 25);
    user.sees_text("you type in ce");
}

#[test]
fn where_somebody_writes_it_is_said_and_taken_only_on_demand() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", ECHO, Settings::default());
    let mut other = site.attach(&ce.name, Mode::Write, false, None);
    let mut user = User::new(&site, &[]);
    user.sees_text("Write writes");
    user.types(b"i");
    user.sees_text("Write is writing on ce; t takes it");
    user.types(b"t");
    user.sees_text("you type in ce");
    other.read_until(|seen| seen.modes == [Mode::Read]);
    let _back = site.attach(&ce.name, Mode::Write, true, None);
    user.sees_text("Write is writing on ce now; Ctrl-] t takes it back");
    user.types(b"quit\n\x1dt");
    user.sees_text("you type in ce");
    user.types(b"mine\n");
    user.sees_text("got mine");
    assert!(!user.shown.screen().contents().contains("got quit"));
}

#[test]
fn a_guests_end_is_shown_and_its_next_start_too() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(
        &ce,
        "echo first; read line; echo 'Kernel panic - not syncing'; exit 4",
        "uml",
        Settings::default(),
    )
    .unwrap();
    let mut user = User::new(&site, &[]);
    user.sees_text("first");
    user.types(b"i");
    user.sees_text("you type in ce");
    user.types(b"\n");
    user.sees_text("[gridgate: ce is not running any more (its kernel panicked)]");
    user.sees_text("(panic)");
    site.spawn(&ce, "echo second; read line; echo \"got $line\"; exec cat", "uml", Settings::default())
        .unwrap();
    user.sees_text("[gridgate: boot 2]\nsecond");
    // Who was typing still is.
    eventually("it writes again", || site.state(&ce).filter(|console| console.writer.is_some()));
    user.types(b"again\n");
    user.sees_text("got again");
}

#[test]
fn a_guest_that_is_down_shows_how_its_last_boot_ended() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "echo last words; exit 3", "uml", Settings::default()).unwrap();
    eventually("it has ended", || site.state(&ce).is_none().then_some(()));
    let mut user = User::new(&site, &[]);
    user.sees_text("last words\n[gridgate: ce is not running any more (");
}

#[test]
fn the_panes_outlive_the_holder() {
    if !support::take_over::is_possible() {
        return;
    }
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", ECHO, Settings::default());
    let mut user = User::new(&site, &[]);
    user.sees_text("booted");
    user.types(b"i");
    user.sees_text("you type in ce");
    site.kill_holder();
    // The client itself brings a new one, and is the writer there.
    eventually("a new holder has the console", || {
        client::list(&site.paths).ok()?.into_iter().find(|c| c.writer.is_some())
    });
    user.types(b"hello\n");
    user.sees_text("got hello");
    assert_eq!(user.shown.screen().contents().matches("booted").count(), 1);
    kill(ce.pid, Signal::KILL);
    site.reap(&ce);
    eventually("the new holder goes without a guest", || client::quit(&site.paths).ok());
}

#[test]
fn a_terminal_is_put_back_when_the_panes_are_told_to_end() {
    let Some(mut site) = Site::new() else { return };
    site.guest("ce", ECHO, Settings::default());
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut user = User::new(&site, &[]);
        user.sees_text("booted");
        kill(user.terminal.client.id().cast_signed(), signal);
        assert_eq!(user.ends(), Some(0), "{signal:?}");
    }
}

#[test]
fn what_a_hostile_guest_says_never_reaches_the_terminal() {
    let Some(mut site) = Site::new() else { return };
    let script = "printf '\\033]52;c;eA==\\007\\033]0;owned\\007\\033[6n\\033[?1003h\\033[5n\\033]8;;http://x\\007\\033[21t\\005done\\n'; exec cat";
    site.guest("ce", script, Settings::default());
    let mut user = User::new(&site, &[]);
    user.sees_text("done");
    user.types(b"zi");
    user.sees_text("you type in ce");
    user.types(b"\x1d");
    user.sees_text("q leaves");
    user.types(b"q");
    user.ends();
    let sequences = user.bytes.split(|byte| *byte == 0x1b).skip(1);
    for sequence in sequences {
        let end = sequence.iter().position(|b| (0x40..0x7f).contains(b) && *b != b'[').unwrap();
        assert!(
            sequence[0] == b'[' && matches!(sequence[end], b'H' | b'm' | b'J' | b'h' | b'l'),
            "{}",
            sequence.escape_ascii()
        );
    }
    assert!(!user.bytes.windows(5).any(|w| w == b"owned" || w == b"1003h"));
    assert!(!user.bytes.iter().any(|byte| matches!(byte, 0x05 | 0x07)));
}

#[test]
fn without_a_terminal_it_says_so() {
    let Some(mut site) = Site::new() else { return };
    site.guest("ce", ECHO, Settings::default());
    write_site(&site, &["ce"]);
    let out = panes(&site, &[]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        said,
        "gridgate: --all needs a terminal, and stdin is none\nhint: gridgate console GUEST --log --follow works without one\n"
    );
}

#[test]
fn a_guest_that_floods_its_console_keeps_nobody_waiting() {
    let Some(mut site) = Site::new() else { return };
    // Seven bytes that make five hundred characters, without end, and plain text in the other.
    site.guest("ce", "exec yes \"$(printf 'A\\033[500b')\"", Settings::default());
    site.guest("se", "while read line; do echo \"got $line\"; done", Settings::default());
    let mut user = User::of(&site, &["ce", "se"], &[]);
    user.sees_text("AAAA");
    user.types(b"2i");
    user.sees_text("you type in se");
    user.types(b"hello\n");
    user.sees_text("got hello");
    user.types(b"\x1dq");
    assert_eq!(user.ends(), Some(0));
}

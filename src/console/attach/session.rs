//! One attachment, from the first line to the last.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::console::client::{connect, ensure_holder};
use crate::console::protocol::{Greeting, Kind, Mode, Position, frame};
use crate::console::record::{ExitRecord, RunRecord};
use crate::console::sanitise::Filter;
use crate::console::select::Picker;
use crate::names::GuestName;
use crate::paths::Paths;

use super::keys::{Act, Keys, help};
use super::link::{Link, REVIVAL, Wish};
use super::terminal::{Raw, window};
use super::{Break, Ended, Line, Options, greeting};

/// As Linux waits for the key after a break (drivers/tty/serial/serial_core.c, SYSRQ_TIMEOUT).
const REQUEST_KEY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);
/// Typed bytes that wait for the holder; then stdin has to.
const INPUT_BYTES: usize = 64 << 10;
/// A pipe that can be written to takes this much without waiting (pipe(7), PIPE_BUF).
const PRINTED_AT_ONCE: usize = 4096;

/// Shows a guest's console until the user, the guest or a signal ends it. `line` is asked for what a terminal cannot carry.
pub fn attach(paths: &Paths, guest: &GuestName, options: &Options, line: &dyn Line) -> Result<Ended> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGWINCH] {
        mask.add(signal);
    }
    let wish = Wish { mode: options.mode, take: options.take, from: options.from, tail: options.tail };
    let (link, greeting) = Link::open_surely(paths, guest, options, &wish)?;
    mask.thread_block().context("blocking signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).context("listening for signals")?;
    let raw = if options.input { Raw::enter()? } else { None };
    let session = Session {
        paths,
        guest,
        options,
        line,
        link: Some(link),
        lost_at: None,
        mode: greeting.mode,
        at: None,
        picker: Picker::new(options.pattern.clone(), options.raw),
        printing: VecDeque::new(),
        typing: Vec::new(),
        reading: options.input,
        keys: Keys::new(options.escape.0.filter(|_| raw.is_some())),
        request_until: None,
        ended: None,
        signals,
        raw,
    };
    let result = session.run(&greeting);
    // Signals that came meanwhile did their work; later ones are the caller's.
    let _ = mask.thread_unblock();
    result
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Stdout,
    Stderr,
}

struct Session<'a> {
    paths: &'a Paths,
    guest: &'a GuestName,
    options: &'a Options,
    line: &'a dyn Line,
    link: Option<Link>,
    lost_at: Option<Instant>,
    mode: Mode,
    at: Option<Position>,
    picker: Picker,
    printing: VecDeque<(To, Vec<u8>)>,
    typing: Vec<u8>,
    reading: bool,
    keys: Keys,
    /// The next key is for [`Line::request`], if it comes before this.
    request_until: Option<Instant>,
    /// What will be returned when everything is printed.
    ended: Option<Ended>,
    signals: SignalFd,
    raw: Option<Raw>,
}

impl Session<'_> {
    fn run(mut self, greeting: &Greeting) -> Result<Ended> {
        if self.options.input {
            let escape = self.options.escape;
            let leave = match (&self.raw, escape.0) {
                (Some(_), Some(_)) => format!(", {escape} detaches, {escape} ? helps"),
                _ => String::new(),
            };
            self.say(&greeting::state(self.paths, greeting, &leave));
            self.say(&greeting::company(&greeting.console));
        }
        self.tell_window();
        loop {
            if self.printing.is_empty()
                && let Some(ended) = self.ended.take()
            {
                return Ok(self.finish(ended));
            }
            if self.wait()? {
                return Ok(self.finish(Ended::Detached));
            }
        }
    }

    fn finish(mut self, ended: Ended) -> Ended {
        let mut shown = Vec::new();
        self.picker.finish(&mut shown);
        if !shown.is_empty() {
            self.printing.push_back((To::Stdout, shown));
        }
        if self.options.input {
            let text = match &ended {
                Ended::Detached => format!("detached from {}", self.guest),
                Ended::Guest(exit) => {
                    let how = exit.as_ref().map_or_else(|| "ended".to_owned(), ExitRecord::told);
                    format!("{} is not running any more ({how})", self.guest)
                }
            };
            self.say(&text);
        }
        // What cannot be printed at once now is not worth waiting for.
        while let Ok(Some(n)) = self.print_some() {
            if n == 0 {
                break;
            }
        }
        ended
    }

    /// Waits for something to do and does it; true if the user is done.
    fn wait(&mut self) -> Result<bool> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let none = PollFlags::empty();
        let mut wanted = [none; 4];
        wanted[0] = PollFlags::IN;
        let printing = self.printing.front().map(|(to, _)| *to);
        if self.reading && self.typing.len() < INPUT_BYTES {
            wanted[1] = PollFlags::IN;
        }
        wanted[2] = if printing.is_some() { PollFlags::OUT } else { none };
        if self.link.is_some() && self.ended.is_none() {
            wanted[3].set(PollFlags::IN, printing.is_none());
            wanted[3].set(PollFlags::OUT, !self.typing.is_empty());
        }
        let got = {
            let screen = if printing == Some(To::Stderr) { stderr.as_fd() } else { stdout.as_fd() };
            let link = self.link.as_ref().map(|l| l.socket.as_fd());
            let all = [Some(self.signals.as_fd()), Some(stdin.as_fd()), Some(screen), link];
            let asked: Vec<usize> = (0..4).filter(|i| !wanted[*i].is_empty()).collect();
            let mut fds = Vec::new();
            for index in &asked {
                if let Some(fd) = all[*index] {
                    fds.push(PollFd::from_borrowed_fd(fd, wanted[*index]));
                }
            }
            match poll(&mut fds, self.timeout().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("waiting for the console"),
            }
            let mut got = [none; 4];
            for (index, fd) in asked.iter().zip(&fds) {
                got[*index] = fd.revents();
            }
            got
        };
        if !got[0].is_empty() && self.signalled() {
            return Ok(true);
        }
        if !got[1].is_empty() && self.type_in()? {
            return Ok(true);
        }
        if self.keys.is_alone(Instant::now()) {
            return Ok(true);
        }
        if !got[2].is_empty() && self.print_some()?.is_none() {
            return Ok(true);
        }
        if !got[3].is_empty() {
            self.exchange(got[3])?;
        }
        if self.link.is_none() && self.ended.is_none() {
            self.reconnect()?;
        }
        Ok(false)
    }

    fn timeout(&self) -> Option<Timespec> {
        let escape = self.keys.wait(Instant::now());
        let lost = (self.link.is_none() && self.ended.is_none()).then_some(RETRY);
        let first = escape.into_iter().chain(lost).min()?.max(Duration::from_millis(1));
        Some(Timespec { tv_sec: first.as_secs().cast_signed(), tv_nsec: i64::from(first.subsec_nanos()) })
    }

    /// True if the signal means to end.
    fn signalled(&mut self) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGWINCH as u32 {
                self.tell_window();
            } else {
                return true;
            }
        }
        false
    }

    fn tell_window(&mut self) {
        if self.mode == Mode::Write
            && self.raw.is_some()
            && let Some((columns, rows)) = window()
        {
            let [c1, c0] = columns.to_be_bytes();
            let [r1, r0] = rows.to_be_bytes();
            self.typing.extend_from_slice(&frame(Kind::Resize, &[c1, c0, r1, r0]));
        }
    }

    /// Takes what was typed; true if it was the escape key and something else.
    fn type_in(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let n = match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(n) => n,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            // The terminal is gone.
            Err(Errno::IO) => return Ok(true),
            Err(e) => return Err(e).context("reading what was typed"),
        };
        if n == 0 {
            // Of a pipe: nothing more to say, but there may be much to read.
            self.reading = false;
            return Ok(self.raw.is_some());
        }
        for act in self.keys.push(&buffer[..n], Instant::now()) {
            match act {
                Act::Type(typed) => self.typed(&typed),
                Act::Break => self.send_break(),
                Act::Help => self.say(&help(self.options.escape)),
                Act::Detach => return Ok(true),
            }
        }
        Ok(false)
    }

    fn typed(&mut self, mut typed: &[u8]) {
        if self.mode != Mode::Write {
            return;
        }
        if let (Some(until), [key, rest @ ..]) = (self.request_until.take(), typed)
            && Instant::now() < until
        {
            typed = rest;
            match self.line.request(char::from(*key)) {
                Ok(()) => self.say(&format!("system request '{}' given", key.escape_ascii())),
                Err(e) => self.say(&format!("{e:#}")),
            }
        }
        if !typed.is_empty() {
            self.typing.extend_from_slice(&frame(Kind::Input, typed));
        }
    }

    fn send_break(&mut self) {
        if self.mode != Mode::Write {
            return self.say("only who writes can send a break");
        }
        match self.line.send_break() {
            Ok(Break::Sent) => self.say("break sent; the next key is the system request, h lists them"),
            Ok(Break::NextKey) => {
                self.request_until = Some(Instant::now() + REQUEST_KEY);
                self.say("the next key is the system request, h lists them");
            }
            Err(e) => self.say(&format!("no break was sent: {e:#}")),
        }
    }

    /// Talks with the holder as far as it goes.
    fn exchange(&mut self, flags: PollFlags) -> Result<()> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let mut alive = true;
        if flags.contains(PollFlags::OUT) {
            match link.socket.write(&self.typing) {
                Ok(n) => drop(self.typing.drain(..n)),
                Err(e) => alive = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && self.printing.is_empty() {
            let mut buffer = [0; 16 << 10];
            match link.socket.read(&mut buffer) {
                Ok(0) => alive = false,
                Ok(n) => link
                    .frames
                    .push(&buffer[..n], |kind, payload| self.frame(kind, payload))
                    .context("reading the console")?,
                Err(e) => alive &= matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        if alive {
            self.link = Some(link);
        } else if self.ended.is_none() {
            self.lost_at = Some(Instant::now());
            // Half a frame may have gone; what was typed is not said twice.
            self.typing.clear();
            self.say("the console holder has ended; the guest lives on, reconnecting");
        }
        Ok(())
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::Replay | Kind::Live => {
                if let Some(at) = &mut self.at {
                    at.offset += payload.len() as u64;
                }
                let mut shown = Vec::with_capacity(payload.len());
                if kind == Kind::Live && self.mode == Mode::Write {
                    // A terminal of the writer's own: what the guest says to it now is for it.
                    self.picker.finish(&mut shown);
                    shown.extend_from_slice(payload);
                } else {
                    self.picker.push(payload, &mut shown);
                }
                if !shown.is_empty() {
                    self.printing.push_back((To::Stdout, shown));
                }
            }
            Kind::Position => self.at = serde_json::from_slice(payload).ok().or(self.at),
            Kind::Mode => {
                self.mode = serde_json::from_slice(payload).unwrap_or(Mode::Read);
                self.tell_window();
            }
            Kind::Notice => self.say(&String::from_utf8_lossy(payload)),
            Kind::Exit => self.ended = Some(Ended::Guest(serde_json::from_slice(payload).ok())),
            Kind::Input | Kind::Resize | Kind::Detach => {}
        }
    }

    fn say(&mut self, text: &str) {
        let mut harmless = Vec::new();
        Filter::plain().push(text.as_bytes(), &mut harmless);
        let end = if self.raw.is_some() { "\r\n" } else { "\n" };
        let line = format!("[gridgate: {}]{end}", String::from_utf8_lossy(&harmless));
        self.printing.push_back((To::Stderr, line.into_bytes()));
    }

    /// Prints a piece of what waits; `None` if nobody reads it any more.
    fn print_some(&mut self) -> Result<Option<usize>> {
        let Some((to, bytes)) = self.printing.front_mut() else { return Ok(Some(0)) };
        let piece = &bytes[..bytes.len().min(PRINTED_AT_ONCE)];
        let printed = match to {
            To::Stdout => rustix::io::write(io::stdout(), piece),
            To::Stderr => rustix::io::write(io::stderr(), piece),
        };
        let n = match printed {
            Ok(n) => n,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Some(0)),
            // Talk that nobody hears is no loss.
            Err(_) if *to == To::Stderr => bytes.len(),
            Err(Errno::PIPE | Errno::IO) => return Ok(None),
            Err(e) => return Err(e).context("printing the console"),
        };
        bytes.drain(..n);
        if bytes.is_empty() {
            self.printing.pop_front();
        }
        Ok(Some(n))
    }

    fn reconnect(&mut self) -> Result<()> {
        if self.lost_at.is_some_and(|at| at.elapsed() > REVIVAL) {
            bail!(
                "reading the console of guest '{}': the console holder has ended and does not come back",
                self.guest
            );
        }
        if let Some(exe) = &self.options.revive {
            ensure_holder(self.paths, exe)?;
        }
        if connect(self.paths).is_err() {
            return Ok(());
        }
        // Who was writing comes first.
        let waits = self.mode == Mode::Read && self.options.mode == Mode::Write;
        if waits && self.lost_at.is_some_and(|at| at.elapsed() < 5 * RETRY) {
            return Ok(());
        }
        let wish = Wish { mode: self.options.mode, take: false, from: self.at, tail: None };
        match Link::open(self.paths, self.guest, self.options, &wish) {
            Ok((link, greeting)) => {
                self.link = Some(link);
                self.lost_at = None;
                self.mode = greeting.mode;
                self.say("connected again");
                self.tell_window();
            }
            Err(_) if !RunRecord::read(self.paths, self.guest)?.is_some_and(|r| r.is_alive()) => {
                self.ended = Some(Ended::Guest(ExitRecord::read(self.paths, self.guest)?));
            }
            Err(_) => {}
        }
        Ok(())
    }
}

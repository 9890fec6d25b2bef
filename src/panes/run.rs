//! The panes on a real terminal: waits for keys, guests, signals and time, all in one place.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::Terminal;
use ratatui::layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::backend::line::SerialLine;
use crate::backend::spec::Spec;
use crate::console::attach::terminal::{Raw, window};
use crate::console::attach::{Line, Who};
use crate::console::client::ensure_holder;
use crate::console::exit::ExitRecord;
use crate::console::logread::{self, At, BootReader};
use crate::console::protocol::{Answer, ConsoleState, Greeting, Position, Request};
use crate::host::Live;
use crate::paths::Paths;
use crate::report::status::{GuestStatus, Status};

use super::app::{App, Options, TAIL_BYTES, Wish};
use super::draw::draw;
use super::layout::Size;
use super::link::{Link, Said};
use super::paint::{Charset, Paint};

/// States are looked at so often; output comes by itself.
const LOOK_MS: u64 = 1000;
/// The same while the holder is gone.
const RETRY_MS: u64 = 200;
/// A wish to look at once is granted after this, so that no guest can make it a loop.
const SOON_MS: u64 = 50;
/// A holder that says nothing for so long does not answer.
const ANSWER_MS: u64 = 5000;
/// The eye sees no more frames than this.
const FRAME_MS: u64 = 33;
/// A terminal that can be written to takes this much without waiting.
const PRINTED_AT_ONCE: usize = 4096;

/// How the panes are shown.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// To their user.
    pub options: Options,
    /// Who is shown to others.
    pub who: Who,
    /// The program to start a holder with, if it ends and no service manager brings it back.
    pub revive: Option<PathBuf>,
}

/// Shows the guests that `look` finds, again and again, until the user or a signal ends it. stdin and stdout must be a terminal; it
/// is as it was when this returns, or panics.
pub fn run(paths: &Paths, wanted: Wanted, look: &mut dyn FnMut() -> Result<Status>) -> Result<()> {
    let guests = look()?.guests;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGWINCH, Signal::SIGCONT] {
        mask.add(signal);
    }
    mask.thread_block().context("blocking signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&mask, flags).context("listening for signals")?;
    let size = terminal_size();
    let paint = Paint::new(layout::Size::new(size.width, size.height), Charset::of_environment());
    let Ok(terminal) = Terminal::new(paint);
    let raw = Raw::full_screen()?.context("stdin is not a terminal")?;
    let session = Session {
        paths,
        app: App::new(wanted.options.clone(), size),
        wanted,
        guests,
        began: Instant::now(),
        terminal,
        out: Vec::new(),
        changed: true,
        drawn_at: None,
        links: Vec::new(),
        query: None,
        look_at: 0,
        reviving: None,
        signals,
        raw,
    };
    let result = session.run(look);
    // Signals that came meanwhile did their work; later ones are the caller's.
    let _ = mask.thread_unblock();
    result
}

fn terminal_size() -> Size {
    let (width, height) = window().unwrap_or((80, 24));
    Size { width, height }
}

struct Session<'a> {
    paths: &'a Paths,
    wanted: Wanted,
    app: App,
    guests: Vec<GuestStatus>,
    began: Instant,
    terminal: Terminal<Paint>,
    /// For the terminal.
    out: Vec<u8>,
    changed: bool,
    drawn_at: Option<u64>,
    /// One a pane.
    links: Vec<Option<Link>>,
    /// For the list of consoles, and since when.
    query: Option<(Link, u64)>,
    look_at: u64,
    reviving: Option<JoinHandle<Result<()>>>,
    signals: SignalFd,
    raw: Raw,
}

/// What a descriptor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Keys,
    Screen,
    Query,
    Pane(usize),
}

impl Session<'_> {
    fn run(mut self, look: &mut dyn FnMut() -> Result<Status>) -> Result<()> {
        while !self.app.done {
            let now = self.now();
            if now >= self.look_at {
                // A site that cannot be read for a moment is as it was.
                if let Ok(status) = look() {
                    self.guests = status.guests;
                }
                self.look_at = now + if self.app.holder_gone { RETRY_MS } else { LOOK_MS };
                self.ask();
            }
            if self.query.as_ref().is_some_and(|(_, since)| now >= since + ANSWER_MS) {
                self.query = None;
                self.listed(None);
            }
            self.app.tick(now);
            self.grant();
            self.draw();
            self.wait()?;
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn draw(&mut self) {
        let now = self.now();
        let due = self.drawn_at.is_none_or(|at| now >= at + FRAME_MS);
        if self.changed && due && self.out.is_empty() {
            let app = &mut self.app;
            let Ok(_) = self.terminal.draw(|frame| draw(app, frame));
            self.out = self.terminal.backend_mut().take();
            self.changed = false;
            self.drawn_at = Some(now);
        }
    }

    fn timeout(&self) -> Timespec {
        let frame = self.drawn_at.filter(|_| self.changed && self.out.is_empty()).map(|at| at + FRAME_MS);
        let answer = self.query.as_ref().map(|(_, since)| since + ANSWER_MS);
        let first = [Some(self.look_at), self.app.deadline(), frame, answer].into_iter().flatten().min();
        let ms = first.unwrap_or(0).saturating_sub(self.now());
        Timespec { tv_sec: (ms / 1000).cast_signed(), tv_nsec: (ms % 1000 * 1_000_000).cast_signed() }
    }

    fn wait(&mut self) -> Result<()> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut sources = vec![Source::Signals, Source::Keys];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        if !self.out.is_empty() {
            sources.push(Source::Screen);
            fds.push(PollFd::new(&stdout, PollFlags::OUT));
        }
        if let Some((query, _)) = &self.query {
            sources.push(Source::Query);
            fds.push(PollFd::from_borrowed_fd(query.as_fd(), query.interest()));
        }
        for (pane, link) in self.links.iter().enumerate() {
            if let Some(link) = link {
                sources.push(Source::Pane(pane));
                fds.push(PollFd::from_borrowed_fd(link.as_fd(), link.interest()));
            }
        }
        match poll(&mut fds, Some(&self.timeout())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).context("waiting for the consoles"),
        }
        let ready: Vec<(Source, PollFlags)> = sources
            .into_iter()
            .zip(fds.iter().map(PollFd::revents))
            .filter(|(_, ready)| !ready.is_empty())
            .collect();
        drop(fds);
        for (source, ready) in ready {
            match source {
                Source::Signals => self.signalled()?,
                Source::Keys => self.type_in()?,
                Source::Screen => self.print()?,
                Source::Query => self.hear_list(ready),
                Source::Pane(pane) => self.hear_pane(pane, ready),
            }
        }
        Ok(())
    }

    fn signalled(&mut self) -> Result<()> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGWINCH) => self.resize(),
                Some(Signal::SIGCONT) => {
                    self.raw.renew()?;
                    self.redraw();
                    self.resize();
                }
                _ => self.app.done = true,
            }
        }
        Ok(())
    }

    fn resize(&mut self) {
        let size = terminal_size();
        self.terminal.backend_mut().resize(layout::Size::new(size.width, size.height));
        self.app.resized(size);
        self.changed = true;
    }

    fn redraw(&mut self) {
        // What was drawn for another screen is of no use.
        self.out.clear();
        let Ok(()) = self.terminal.clear();
        self.changed = true;
    }

    fn type_in(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        match rustix::io::read(io::stdin(), &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The terminal is gone.
            Ok(0) | Err(Errno::IO) => self.app.done = true,
            Ok(n) => {
                let now = self.now();
                self.app.typed(&buffer[..n], now);
                self.changed = true;
            }
            Err(e) => return Err(e).context("reading what was typed"),
        }
        Ok(())
    }

    fn print(&mut self) -> Result<()> {
        let piece = &self.out[..self.out.len().min(PRINTED_AT_ONCE)];
        match rustix::io::write(io::stdout(), piece) {
            Ok(n) => drop(self.out.drain(..n)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::IO | Errno::PIPE) => self.app.done = true,
            Err(e) => return Err(e).context("drawing on the terminal"),
        }
        Ok(())
    }

    /// Asks the holder for all consoles, if it is not being asked already.
    fn ask(&mut self) {
        if self.query.is_some() {
            return;
        }
        match Link::open(self.paths, &Request::List) {
            Ok(link) => self.query = Some((link, self.now())),
            Err(_) => self.listed(None),
        }
    }

    fn hear_list(&mut self, ready: PollFlags) {
        let Some((mut link, since)) = self.query.take() else { return };
        let mut listed = None;
        let alive = link.exchange(ready, |said| {
            if let Said::Answer(line) = said {
                listed = match serde_json::from_slice::<Answer<Vec<ConsoleState>>>(line) {
                    Ok(Answer::Ok(consoles)) => Some(consoles),
                    _ => None,
                };
            }
        });
        match (listed, alive) {
            (Some(consoles), _) => self.listed(Some(consoles)),
            (None, true) => self.query = Some((link, since)),
            (None, false) => self.listed(None),
        }
    }

    fn listed(&mut self, consoles: Option<Vec<ConsoleState>>) {
        self.app.looked(&self.guests, consoles);
        self.changed = true;
        if self.app.holder_gone {
            self.revive();
        }
    }

    /// Starts a holder beside the work here, which goes on meanwhile.
    fn revive(&mut self) {
        if let Some(done) = self.reviving.take_if(|thread| thread.is_finished()) {
            if let Ok(Err(error)) = done.join() {
                let now = self.now();
                self.app.say(format!("{error:#}"), now);
            }
            return;
        }
        if let (None, Some(exe)) = (&self.reviving, &self.wanted.revive) {
            let (paths, exe) = (self.paths.clone(), exe.clone());
            self.reviving = Some(std::thread::spawn(move || ensure_holder(&paths, &exe)));
        }
    }

    fn hear_pane(&mut self, pane: usize, ready: PollFlags) {
        let now = self.now();
        let Some(mut link) = self.links.get_mut(pane).and_then(Option::take) else { return };
        let app = &mut self.app;
        let mut refused = false;
        let alive = link.exchange(ready, |said| match said {
            Said::Answer(line) => match serde_json::from_slice::<Answer<Greeting>>(line) {
                Ok(Answer::Ok(greeting)) => app.greeted(pane, &greeting, now),
                // The guest may just have ended; the next look tells.
                _ => refused = true,
            },
            Said::Frame(kind, payload) => app.frame(pane, kind, payload, now),
        });
        if alive && !refused {
            self.links[pane] = Some(link);
        } else {
            self.app.lost(pane);
            self.look_at = self.look_at.min(now + SOON_MS);
        }
        self.changed = true;
    }

    fn grant(&mut self) {
        for wish in self.app.take_wishes() {
            match wish {
                Wish::Open { pane, mode, take, from } => {
                    let Some(guest) = self.app.panes.get(pane).map(|pane| pane.name.clone()) else {
                        continue;
                    };
                    let Who { name: who, origin } = self.wanted.who.clone();
                    let (from, tail) = (Some(from), None);
                    let request = Request::Attach { guest, mode, take, who, origin, from, tail };
                    let link = Link::open(self.paths, &request).ok();
                    if link.is_none() {
                        self.app.lost(pane);
                    }
                    while self.links.len() <= pane {
                        self.links.push(None);
                    }
                    self.links[pane] = link;
                }
                Wish::Send { pane, kind, payload } => {
                    if let Some(Some(link)) = self.links.get_mut(pane) {
                        link.send(kind, &payload);
                    }
                }
                Wish::Break { pane } => {
                    let sent = self.line(pane).map(|line| line.send_break().map_err(|e| format!("{e:#}")));
                    let now = self.now();
                    self.app.broke(sent.unwrap_or_else(|| Err("the guest is gone".to_owned())), now);
                }
                Wish::Request { pane, key } => {
                    let text = match self.line(pane).map(|line| line.request(key)) {
                        Some(Err(error)) => format!("{error:#}"),
                        _ => format!("system request '{}' given", key.escape_default()),
                    };
                    let now = self.now();
                    self.app.say(text, now);
                }
                Wish::ReadLog { pane, from } => self.read_log(pane, from),
                Wish::Look => self.look_at = self.look_at.min(self.now() + SOON_MS),
                Wish::Redraw => self.redraw(),
            }
            self.changed = true;
        }
    }

    fn line(&self, pane: usize) -> Option<SerialLine> {
        let guest = &self.app.panes.get(pane)?.name;
        // One that cannot be read is one that is not known.
        let spec = Spec::read(&Live, self.paths, guest).ok().flatten();
        Some(SerialLine { spec, run_dir: self.paths.run_guest(guest) })
    }

    fn read_log(&mut self, pane: usize, from: Option<Position>) {
        let Some(guest) = self.app.panes.get(pane).map(|pane| pane.name.clone()) else { return };
        let read = end_of_log(&self.paths.console(&guest), from);
        let exit = ExitRecord::latest(self.paths, &guest).ok().flatten();
        let read = read.as_ref().map(|(from, bytes)| (*from, bytes.as_slice()));
        self.app.logged(pane, read, exit.as_ref());
    }
}

/// What the log has of its newest boot from there on, or if that is of another one or too far back, the end of it.
fn end_of_log(dir: &std::path::Path, from: Option<Position>) -> Option<(Position, Vec<u8>)> {
    let boot = logread::resolve(dir, 0)?;
    let segments = logread::segments(dir);
    let end =
        segments.iter().filter(|segment| segment.boot == boot).map(logread::Segment::end).max().unwrap_or(0);
    let recent = end.saturating_sub(TAIL_BYTES);
    let mut offset = from.filter(|from| from.boot == boot).map_or(recent, |from| from.offset.max(recent));
    // Rotated away, perhaps.
    if let At::Skip(to) = logread::read_at(dir, &segments, boot, offset, &mut [0]) {
        offset = to;
    }
    let mut bytes = Vec::new();
    let mut rest = BootReader::tail(dir, boot, end.saturating_sub(offset)).take(2 * TAIL_BYTES);
    // What cannot be read is not shown; the log says why when it is asked for.
    let _ = rest.read_to_end(&mut bytes);
    Some((Position { boot, offset }, bytes))
}

//! A guest's console: what it says, what it is told, how far it has come.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::console::log::Log;
use crate::console::matches::Matches;
use crate::console::now_ms;
use crate::console::protocol::{
    ClientState, ConsoleState, Event, For, Kind, Launch, Mode, Position, Settings,
};
use crate::console::ready::Watch;
use crate::console::record::{ReadyState, RunRecord, write_json};
use crate::events::{self, What};
use crate::names::GuestName;

use super::again::{Next, Why};
use super::conn::{Conn, Phase};
use super::heard::Ears;
use super::launch::Launcher;
use super::{Holder, Token};

/// Typed bytes that wait for a guest to read them.
const INPUT_BYTES: usize = 64 << 10;
/// A guest that has read nothing for so long is not going to.
const INPUT_PATIENCE: Duration = Duration::from_secs(10);

/// A guest that is or was there; kept for the logs' readers.
pub(super) struct Console {
    pub(super) guest: GuestName,
    pub(super) log: Log,
    pub(super) settings: Settings,
    pub(super) launch: Option<Launch>,
    pub(super) launcher: Option<Launcher>,
    /// When a guest that is not there is started.
    pub(super) next: Option<Next>,
    /// Lines that the site wants to hear of.
    pub(super) matches: Option<Matches>,
    pub(super) stopping: bool,
    pub(super) run: Option<Run>,
    pub(super) runs: u16,
    pub(super) readers: Vec<u32>,
    pub(super) writer: Option<u32>,
}

/// A guest that is there.
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) number: u16,
    pub(super) master: OwnedFd,
    pub(super) pidfd: OwnedFd,
    pub(super) watch: Watch,
    pub(super) last_output_ms: Option<u64>,
    pub(super) ears: Ears,
    /// The first process of a container, which outlives systemd-nspawn.
    pub(super) leader: Option<OwnedFd>,
    /// When what was counted against the guest is forgotten.
    pub(super) settle_at: Option<Instant>,
    input: Vec<u8>,
    input_deadline: Option<Instant>,
    interest: EventFlags,
}

impl Run {
    pub(super) fn new(
        record: RunRecord,
        number: u16,
        master: OwnedFd,
        pidfd: OwnedFd,
        watch: Watch,
        ears: Ears,
    ) -> Self {
        Self {
            record,
            number,
            master,
            pidfd,
            watch,
            last_output_ms: None,
            ears,
            leader: None,
            settle_at: None,
            input: Vec::new(),
            input_deadline: None,
            interest: EventFlags::IN,
        }
    }

    /// Gives the guest what it was told, as far as it takes it.
    fn feed(&mut self) {
        let mut fed = 0;
        while fed < self.input.len() {
            match rustix::io::write(&self.master, &self.input[fed..]) {
                Ok(n) if n > 0 => fed += n,
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        self.input.drain(..fed);
        if self.input.is_empty() {
            self.input = Vec::new();
            self.input_deadline = None;
        } else if fed > 0 || self.input_deadline.is_none() {
            self.input_deadline = Some(Instant::now() + INPUT_PATIENCE);
        }
    }
}

impl Console {
    pub(super) fn new(guest: GuestName, log: Log, settings: Settings) -> Self {
        Self {
            guest,
            log,
            settings,
            launch: None,
            launcher: None,
            next: None,
            matches: None,
            stopping: false,
            run: None,
            runs: 0,
            readers: Vec::new(),
            writer: None,
        }
    }

    /// Whether it is running, being started, or waiting for that.
    pub(super) fn is_live(&self) -> bool {
        self.run.is_some() || self.launcher.is_some() || self.next.is_some()
    }

    /// Whether it died and waits for its next try.
    pub(super) fn is_waiting(&self) -> bool {
        self.run.is_none() && self.launcher.is_none() && self.next.is_some_and(|next| next.why == Why::Death)
    }

    /// Whether its process is just coming.
    pub(super) fn is_starting(&self) -> bool {
        self.is_live() && self.run.is_none() && !self.is_waiting()
    }

    pub(super) fn timer(&self) -> Option<Instant> {
        let run = self.run.as_ref();
        let of_run = run
            .into_iter()
            .flat_map(|run| [run.watch.timer(), run.input_deadline, run.ears.timer(), run.settle_at]);
        of_run.chain([self.next.map(|next| next.at)]).flatten().min()
    }

    pub(super) fn end(&self) -> Position {
        Position { boot: self.log.boot(), offset: self.log.end() }
    }

    /// `None` if it is not running. The clients are its readers.
    pub(super) fn state(&self, clients: Vec<ClientState>) -> Option<ConsoleState> {
        let run = self.run.as_ref()?;
        Some(ConsoleState {
            guest: self.guest.clone(),
            pid: run.record.pid,
            backend: run.record.backend.clone(),
            launched_at_ms: run.record.launched_at_ms,
            boot: self.log.boot(),
            ready: run.watch.record().clone(),
            writer: clients.iter().find(|c| c.mode == Mode::Write).map(ToString::to_string),
            attached: self.readers.len(),
            clients,
            last_output_ms: run.last_output_ms,
            output_bytes: self.log.end(),
            log_bytes: self.log.kept(),
            lost_bytes: self.log.lost(),
            log_trouble: self.log.trouble().map(str::to_owned),
        })
    }
}

impl Holder {
    pub(super) fn master_event(&mut self, id: u32, number: u16, flags: EventFlags) {
        if self.consoles.get(&id).and_then(|c| c.run.as_ref()).is_none_or(|r| r.number != number) {
            return;
        }
        let hung_up = flags.contains(EventFlags::HUP);
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.take_output(id);
        }
        if flags.contains(EventFlags::OUT) {
            self.feed(id);
        }
        self.settle_master(id, hung_up);
    }

    /// Reads what the guest said, logs it, shows it. True if it said something.
    pub(super) fn take_output(&mut self, id: u32) -> bool {
        self.read_output(id);
        self.keep_output(id)
    }

    /// As [`Holder::take_output`], but only up to a line that begins in this way; gives back the rest.
    pub(super) fn take_output_until(&mut self, id: u32, begins: &[u8]) -> Vec<u8> {
        self.read_output(id);
        let data = self.inflight.data();
        let starts_line = |at: &usize| *at == 0 || data[*at - 1] == b'\n';
        let found = (0..data.len()).filter(starts_line).find(|at| data[*at..].starts_with(begins));
        let rest = found.map(|at| data[at..].to_vec()).unwrap_or_default();
        self.inflight.cut(rest.len());
        self.keep_output(id);
        rest
    }

    /// Logs and shows what was read before.
    pub(super) fn give_output(&mut self, id: u32, bytes: &[u8]) {
        let Some(console) = self.consoles.get(&id) else { return };
        self.inflight.begin(&console.guest, console.log.boot(), console.log.end());
        let room = self.inflight.room();
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.inflight.filled(len);
        self.keep_output(id);
    }

    fn read_output(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let Some(run) = console.run.as_mut() else { return };
        let (boot, offset) = (console.log.boot(), console.log.end());
        self.inflight.begin(&console.guest, boot, offset);
        loop {
            let room = self.inflight.room();
            if room.is_empty() {
                break;
            }
            match rustix::io::read(&run.master, room) {
                Ok(n) if n > 0 => self.inflight.filled(n),
                Err(Errno::INTR) => {}
                // Nothing more now (AGAIN), or nobody has the slave open (IO).
                _ => break,
            }
        }
    }

    fn keep_output(&mut self, id: u32) -> bool {
        let Some(console) = self.consoles.get_mut(&id) else { return false };
        let Some(run) = console.run.as_mut() else { return false };
        let (boot, offset) = (console.log.boot(), console.log.end());
        let bytes = self.inflight.data();
        if bytes.is_empty() {
            return false;
        }
        let was_kept = console.log.trouble().is_none();
        console.log.append(bytes);
        run.last_output_ms = Some(now_ms());
        let looks = run.watch.looks_at_output();
        if looks {
            run.watch.output(bytes);
        }
        if let Some(matches) = &mut console.matches {
            for found in matches.output(bytes, Instant::now()) {
                let what = What::ConsoleMatch { pattern: found.pattern, line: found.line };
                events::note(&self.paths, &console.guest, what);
            }
        }
        for reader in &console.readers {
            if let Some(conn) = self.conns.get_mut(reader) {
                conn.live(Position { boot, offset }, bytes);
                let behind =
                    conn.attached().is_some_and(|a| a.at < Position { boot, offset: console.log.end() });
                conn.settle(*reader, &self.epoll, behind);
            }
        }
        self.inflight.commit();
        self.tell_of_log(id, was_kept);
        if looks {
            self.conclude(id);
        }
        true
    }

    /// Those who watch are told when the log stops and when it goes on.
    fn tell_of_log(&mut self, id: u32, was_kept: bool) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let (why, lost) = (console.log.trouble().map(str::to_owned), console.log.lost());
        let text = match (was_kept, &why) {
            (true, Some(why)) => format!("the log cannot be written any more: {why}; the console goes on"),
            (false, None) => format!("the log is written again; {lost} bytes are missing in it"),
            _ => return,
        };
        if let Some(run) = &mut console.run {
            run.watch.log_is_in_trouble(why.as_deref());
        }
        let guest = console.guest.clone();
        self.write_ready(id);
        let why = why.map(|why| format!("its log cannot be written: {why}")).unwrap_or_default();
        events::note(&self.paths, &guest, What::ConsoleTrouble { why });
        self.tell_readers(id, &text);
    }

    fn feed(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let Some(run) = console.run.as_mut() else { return };
        run.feed();
        let waiting = !run.input.is_empty();
        if let Some((writer, conn)) = console.writer.and_then(|w| Some((w, self.conns.get_mut(&w)?))) {
            conn.paused = waiting;
            conn.flush();
            let behind = conn.attached().is_some_and(|a| a.at < console.end());
            conn.settle(writer, &self.epoll, behind);
        }
    }

    /// A terminal that nobody has open reports that for ever; then only a change is of interest.
    fn settle_master(&mut self, id: u32, hung_up: bool) {
        let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
        let mut interest = EventFlags::IN;
        interest.set(EventFlags::OUT, !run.input.is_empty());
        interest.set(EventFlags::ET, hung_up);
        let token = Token::Master(id, run.number);
        if interest != run.interest && epoll::modify(&self.epoll, &run.master, token.data(), interest).is_ok()
        {
            run.interest = interest;
        }
    }

    /// A frame from an attached client.
    pub(super) fn frame(&mut self, conn_id: u32, kind: Kind, payload: &[u8]) {
        let Some(attached) = self.conns.get_mut(&conn_id).and_then(Conn::attached) else { return };
        let (id, mode) = (attached.console, attached.client.mode);
        if kind == Kind::Detach {
            return self.close(conn_id);
        }
        let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) else { return };
        match (kind, mode, payload) {
            (Kind::Input, Mode::Write, bytes) => {
                let room = INPUT_BYTES.saturating_sub(run.input.len());
                run.input.extend_from_slice(&bytes[..bytes.len().min(room)]);
                self.note_typed(conn_id, bytes);
                self.feed(id);
                self.settle_master(id, false);
                if bytes.len() > room {
                    self.refused(conn_id, bytes.len() - room);
                }
            }
            (Kind::Resize, Mode::Write, &[c1, c0, r1, r0]) => {
                let (ws_col, ws_row) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([r1, r0]));
                let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
                // A guest without a window size is no worse off.
                let _ = rustix::termios::tcsetwinsize(&run.master, size);
            }
            _ => {}
        }
    }

    fn refused(&mut self, conn_id: u32, bytes: usize) {
        if let Some(conn) = self.conns.get_mut(&conn_id) {
            let text = format!("the guest does not read its console: {bytes} bytes of input dropped");
            conn.notify(Kind::Notice, text.as_bytes());
        }
    }

    pub(super) fn console_tick(&mut self, id: u32, now: Instant) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        if console.next.is_some_and(|next| next.at <= now) {
            return self.try_again(id);
        }
        let Some(run) = console.run.as_mut() else { return };
        let epoll = &self.epoll;
        run.watch.tick(now, |index, socket| {
            let token = Token::Attempt(id, u16::try_from(index).unwrap_or(u16::MAX));
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            // Unwatched, it is given up after its time.
            let _ = epoll::add(epoll, socket, token.data(), flags);
        });
        if run.input_deadline.is_some_and(|at| at <= now) {
            let dropped = std::mem::take(&mut run.input).len();
            run.input_deadline = None;
            let writer = console.writer;
            self.settle_master(id, false);
            self.feed(id);
            if let Some(writer) = writer {
                self.refused(writer, dropped);
            }
        }
        if self.consoles.get(&id).and_then(|c| c.run.as_ref()?.settle_at).is_some_and(|at| at <= now) {
            self.settled(id);
        }
        self.ears_tick(id, now);
        self.conclude(id);
    }

    /// Writes down how far the guest has come, if that has changed, and tells those who wait for it.
    pub(super) fn conclude(&mut self, id: u32) {
        let Some(console) = self.consoles.get_mut(&id) else { return };
        let Some(run) = console.run.as_mut() else { return };
        let (concluded, news) = (run.watch.conclude(Instant::now()), run.watch.has_news());
        if !concluded {
            // Who asks what is still missing is told as it is.
            return if news {
                self.write_ready(id)
            };
        }
        run.settle_at = None;
        let (guest, record) = (console.guest.clone(), run.watch.record().clone());
        self.write_ready(id);
        match record.state {
            ReadyState::Ready => {
                let settle_at = self.settles_at(id);
                if let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) {
                    run.settle_at = settle_at;
                }
                events::note(&self.paths, &guest, What::Ready { after_ms: record.after_ms });
                self.happened(&guest, For::Ready, &Event::Ready(record));
            }
            ReadyState::Degraded => {
                let missing = record.checks.iter().filter(|c| c.at_ms.is_none());
                let missing = missing.map(|c| c.check.to_string()).collect();
                events::note(&self.paths, &guest, What::Degraded { missing });
            }
            ReadyState::Waiting => {}
        }
    }

    pub(super) fn write_ready(&self, id: u32) {
        let Some(console) = self.consoles.get(&id) else { return };
        let Some(run) = console.run.as_ref() else { return };
        if let Err(e) = write_json(&self.paths.ready_record(&console.guest), run.watch.record()) {
            eprintln!("guest '{}': ignoring: {e:#}", console.guest);
        }
    }

    /// Answers those who wait for it.
    pub(super) fn happened(&mut self, guest: &GuestName, what: For, event: &Event) {
        use crate::console::protocol::Answer;
        for (id, conn) in &mut self.conns {
            if matches!(&conn.phase, Phase::Waiting { guest: g, what: w } if g == guest && *w == what) {
                conn.answer(&Answer::Ok(event));
                conn.settle(*id, &self.epoll, false);
            }
        }
    }
}

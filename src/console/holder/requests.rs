//! What is done for each request.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::config::site::ReadyCheck;
use crate::console::log::Log;
use crate::console::matches::Matches;
use crate::console::protocol::{
    Answer, ConsoleState, Event, For, Greeting, Kind, Launch, Mode, Position, Request, Settings,
};
use crate::console::ready;
use crate::console::record::{Cause, ExitRecord, ReadyState, RunRecord};
use crate::console::restart::Restarts;
use crate::names::GuestName;

use super::Holder;
use super::conn::{Conn, Phase};
use super::console::Console;
use super::reader::Attached;

impl Holder {
    pub(super) fn request(&mut self, conn: u32, request: Request, fds: Vec<OwnedFd>) {
        let done = match request {
            Request::Adopt { guest, settings } => self.adopt(&guest, settings, fds).map(|()| Some(())),
            Request::Spawn { guest, launch, settings } => {
                self.spawn(conn, &guest, launch, settings).map(|()| None)
            }
            Request::Stopping { guest } => self.stopping(&guest).map(|()| Some(())),
            Request::Attach { guest, mode, take, who, from } => {
                self.attach(conn, &guest, mode, take, who, from).map(|()| None)
            }
            Request::Wait { guest, what, since_ms } => self.wait(conn, guest, what, since_ms).map(|()| None),
            Request::List => {
                self.answer(conn, &Answer::Ok(self.list()));
                Ok(None)
            }
            Request::Starting => {
                let starting = self.consoles.values().filter(|c| c.is_starting()).map(|c| c.guest.clone());
                let starting: Vec<GuestName> = starting.collect();
                self.answer(conn, &Answer::Ok(starting));
                Ok(None)
            }
            Request::Quit => self.quit().map(|()| Some(())),
        };
        match done {
            Ok(Some(())) => self.answer(conn, &Answer::Ok(())),
            Ok(None) => {}
            Err(e) => self.answer(conn, &Answer::<()>::Error(format!("{e:#}"))),
        }
    }

    fn answer<T: Serialize>(&mut self, conn: u32, answer: &Answer<T>) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.answer(answer);
        }
    }

    /// The console's number; made if it is not there.
    pub(super) fn console_for(&mut self, guest: &GuestName, settings: &Settings) -> u32 {
        if let Some(id) = self.console_id(guest) {
            return id;
        }
        let id = self.consoles.last_key_value().map_or(0, |(last, _)| last + 1);
        let log = Log::open(&self.paths.console(guest), settings.log_bytes);
        self.consoles.insert(id, Console::new(guest.clone(), log, settings.clone()));
        id
    }

    fn adopt(&mut self, guest: &GuestName, settings: Option<Settings>, fds: Vec<OwnedFd>) -> Result<()> {
        let what = || format!("adopting the console of guest '{guest}'");
        let master =
            fds.into_iter().next().context("no terminal came with the request").with_context(what)?;
        let record = RunRecord::read(&self.paths, guest).with_context(what)?;
        let record = record.context("it has no run record").with_context(what)?;
        let id = self.console_for(guest, &settings.clone().unwrap_or_default());
        self.take_up(id, record, settings, master).with_context(what)
    }

    fn spawn(&mut self, conn: u32, guest: &GuestName, launch: Launch, settings: Settings) -> Result<()> {
        let what = || format!("starting guest '{guest}'");
        for check in &settings.ready {
            if let ReadyCheck::Console(text) = check {
                ready::pattern(text).with_context(what)?;
            }
        }
        Matches::new(&settings.console_watch).with_context(what)?;
        let id = self.console_for(guest, &settings);
        let Some(console) = self.consoles.get_mut(&id) else { return Ok(()) };
        if let Some(run) = &console.run {
            bail!("starting guest '{guest}': it is running already, as process {}", run.record.pid);
        }
        // Somebody has seen to what it died of.
        if console.is_waiting() {
            console.next = None;
        }
        if console.is_live() {
            bail!("starting guest '{guest}': it is being started already");
        }
        console.settings = settings;
        console.launch = Some(launch);
        console.stopping = false;
        Restarts::forget(&self.paths, guest).with_context(what)?;
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.phase = Phase::Spawning;
        }
        self.launch(id, Some(conn)).with_context(what)
    }

    fn stopping(&mut self, guest: &GuestName) -> Result<()> {
        let id = self.console_id(guest).filter(|id| self.consoles.get(id).is_some_and(Console::is_live));
        let Some(console) = id.and_then(|id| self.consoles.get_mut(&id)) else {
            bail!("stopping guest '{guest}': it is not running");
        };
        console.stopping = true;
        let id = id.unwrap_or_default();
        if console.is_waiting() {
            self.stay_down(id);
            return Ok(());
        }
        if console.next.is_some() && console.run.is_none() {
            self.gone(id, Cause::Unknown, None);
            return Ok(());
        }
        self.write_console_record(id)
    }

    fn list(&self) -> Vec<ConsoleState> {
        self.consoles.values().filter_map(|c| c.state(self.writer_of(c))).collect()
    }

    fn writer_of(&self, console: &Console) -> Option<String> {
        match &self.conns.get(&console.writer?)?.phase {
            Phase::Attached(attached) => Some(attached.who.clone()),
            _ => None,
        }
    }

    fn quit(&mut self) -> Result<()> {
        let alive: Vec<&str> =
            self.consoles.values().filter(|c| c.is_live()).map(|c| c.guest.as_str()).collect();
        if !alive.is_empty() {
            bail!("ending the console holder: guests are running: {}", alive.join(", "));
        }
        self.ending = true;
        Ok(())
    }

    fn wait(&mut self, conn: u32, guest: GuestName, what: For, since_ms: Option<u64>) -> Result<()> {
        let console = self.console_id(&guest).and_then(|id| self.consoles.get(&id));
        let ready = console.and_then(|c| c.run.as_ref()).map(|r| r.watch.record().clone());
        let live = console.is_some_and(|c| c.is_live() && !c.is_waiting());
        let exit = ExitRecord::read(&self.paths, &guest)?;
        let recent = exit.as_ref().is_some_and(|e| since_ms.is_some_and(|since| e.at_ms >= since));
        let event = match (what, ready) {
            (For::Ready, Some(ready)) if ready.state == ReadyState::Ready => Some(Event::Ready(ready)),
            (For::Ready, _) if !live && recent => Some(Event::Stopped(exit)),
            (For::Stopped, _) if !live => Some(Event::Stopped(exit)),
            _ => None,
        };
        match (event, self.conns.get_mut(&conn)) {
            (Some(event), Some(conn)) => conn.answer(&Answer::Ok(event)),
            (None, Some(conn)) => conn.phase = Phase::Waiting { guest, what },
            (_, None) => {}
        }
        Ok(())
    }

    fn attach(
        &mut self,
        conn: u32,
        guest: &GuestName,
        mode: Mode,
        take: bool,
        who: String,
        from: Option<Position>,
    ) -> Result<()> {
        let what = || format!("attaching to the console of guest '{guest}'");
        let id = self.console_id(guest).context("it is not running").with_context(what)?;
        let console = self.consoles.get_mut(&id).filter(|c| c.run.is_some());
        let console = console.context("it is not running").with_context(what)?;
        let who: String = who.chars().filter(|c| !c.is_control()).take(80).collect();
        let before = console.writer.filter(|_| mode == Mode::Write);
        let granted = if before.is_some() && !take { Mode::Read } else { mode };
        if granted == Mode::Write {
            console.writer = Some(conn);
        }
        console.readers.push(conn);
        let end = console.end();
        let (at, live_from) = match from {
            Some(from) => (from.min(end), Position { boot: 0, offset: 0 }),
            None => (Position { boot: end.boot, offset: 0 }, end),
        };
        let other = before.and_then(|b| self.conns.get_mut(&b));
        let other_who = other.and_then(Conn::attached).map(|a| a.who.clone()).unwrap_or_default();
        if let (Some(before), Mode::Write) = (before, granted) {
            self.demote(before, &who);
        }
        let frames = crate::console::protocol::Frames::default();
        let attached = Attached { console: id, who, mode: granted, at, live_from, frames, ends: None };
        let writer = (granted == Mode::Write).then(|| attached.who.clone());
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.phase = Phase::Attached(Box::new(attached));
        }
        let Some(console) = self.consoles.get(&id) else { return Ok(()) };
        let state = console.state(writer.or_else(|| self.writer_of(console)));
        let Some(conn_now) = self.conns.get_mut(&conn) else { return Ok(()) };
        if let Some(state) = state {
            conn_now.answer(&Answer::Ok(Greeting { mode: granted, console: state }));
        }
        if granted != mode {
            let text = format!("{other_who} is writing; you are reading (--take to write)");
            conn_now.notify(Kind::Notice, text.as_bytes());
        }
        conn_now.tell_position();
        self.pump(conn);
        Ok(())
    }

    fn demote(&mut self, loser: u32, winner: &str) {
        let Some(conn) = self.conns.get_mut(&loser) else { return };
        conn.paused = false;
        if let Some(attached) = conn.attached() {
            attached.mode = Mode::Read;
        }
        conn.notify(Kind::Mode, &serde_json::to_vec(&Mode::Read).unwrap_or_default());
        conn.notify(Kind::Notice, format!("{winner} is writing now; you are reading").as_bytes());
        self.pump(loser);
    }

    /// A line for everybody who is attached.
    pub(super) fn tell_readers(&mut self, id: u32, text: &str) {
        let readers = self.consoles.get(&id).map(|c| c.readers.clone()).unwrap_or_default();
        for reader in readers {
            if let Some(conn) = self.conns.get_mut(&reader) {
                conn.notify(Kind::Notice, text.as_bytes());
            }
            self.pump(reader);
        }
    }
}

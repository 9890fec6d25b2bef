//! What is done for each request.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::config::site::ReadyCheck;
use crate::config::supervision::StopRung;
use crate::console::exit::{self, marks::StopMark};
use crate::console::log::Log;
use crate::console::matches::Matches;
use crate::console::now_ms;
use crate::console::protocol::{Answer, ConsoleState, Event, For, Launch, Request, Settings};
use crate::console::ready;
use crate::console::record::{Cause, ExitRecord, ReadyState, RunRecord};
use crate::console::restart::Restarts;
use crate::names::GuestName;

use super::Holder;
use super::clients::client;
use super::conn::Phase;
use super::console::Console;

impl Holder {
    pub(super) fn request(&mut self, conn: u32, request: Request, fds: Vec<OwnedFd>) {
        self.has_worked();
        let done = match request {
            Request::Adopt { guest, settings } => self.adopt(&guest, settings, fds).map(|()| Some(())),
            Request::Spawn { guest, launch, settings } => {
                self.spawn(conn, &guest, launch, settings).map(|()| None)
            }
            Request::Stopping { guest } => self.stopping(&guest).map(|()| Some(())),
            Request::Attach { guest, mode, take, who, origin, from, tail } => {
                let client = client(who, origin, mode);
                self.attach(conn, &guest, client, take, from, tail).map(|()| None)
            }
            Request::Broadcast { guest, text } => self.broadcast(guest.as_ref(), &text).map(|told| {
                self.answer(conn, &Answer::Ok(told));
                None
            }),
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
            let (launched_at_ms, now) = (exit::last_launch(&self.paths, guest), now_ms());
            let rung = StopRung::Ask.name().to_owned();
            StopMark { launched_at_ms, began_ms: now, rung, until_ms: 0 }.write(&self.paths, guest)?;
            self.gone(id, Cause::Unknown, None);
            return Ok(());
        }
        self.write_console_record(id)
    }

    fn list(&self) -> Vec<ConsoleState> {
        self.consoles.values().filter_map(|c| c.state(self.clients_of(c))).collect()
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
}

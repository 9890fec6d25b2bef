//! Who is attached to a console, who of them writes, and what they are told.

use anyhow::{Context, Result, bail};

use crate::console::now_ms;
use crate::console::protocol::{Answer, ClientState, Frames, Greeting, Kind, Mode, Position, Told};
use crate::names::GuestName;

use super::Holder;
use super::conn::{Conn, Phase};
use super::console::Console;
use super::reader::Attached;

impl Holder {
    pub(super) fn clients_of(&self, console: &Console) -> Vec<ClientState> {
        let of = |reader: &u32| match &self.conns.get(reader)?.phase {
            Phase::Attached(attached) => Some(attached.client.clone()),
            _ => None,
        };
        console.readers.iter().filter_map(of).collect()
    }

    pub(super) fn attach(
        &mut self,
        conn: u32,
        guest: &GuestName,
        mut client: ClientState,
        take: bool,
        from: Option<Position>,
        tail: Option<u64>,
    ) -> Result<()> {
        let what = || format!("attaching to the console of guest '{guest}'");
        let id = self.console_id(guest).context("it is not running").with_context(what)?;
        let console = self.consoles.get_mut(&id).filter(|c| c.run.is_some());
        let console = console.context("it is not running").with_context(what)?;
        let wanted = client.mode;
        let before = console.writer.filter(|_| wanted == Mode::Write);
        if before.is_some() && !take {
            client.mode = Mode::Read;
        }
        let granted = client.mode;
        if granted == Mode::Write {
            console.writer = Some(conn);
        }
        console.readers.push(conn);
        let end = console.end();
        let (at, live_from) = match (from, tail) {
            (Some(from), _) => (from.min(end), Position { boot: 0, offset: 0 }),
            (None, tail) => {
                let offset = tail.map_or(0, |tail| end.offset.saturating_sub(tail));
                (Position { offset, ..end }, end)
            }
        };
        let other = before.and_then(|b| self.conns.get_mut(&b)).and_then(Conn::attached);
        let other = other.map(|a| a.client.to_string()).unwrap_or_default();
        if let (Some(before), Mode::Write) = (before, granted) {
            self.demote(before, &client);
        }
        let frames = Frames::default();
        let attached =
            Attached { console: id, client, wanted, at, typing: None, live_from, frames, ends: None };
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.phase = Phase::Attached(Box::new(attached));
        }
        let Some(console) = self.consoles.get(&id) else { return Ok(()) };
        let state = console.state(self.clients_of(console));
        let Some(conn_now) = self.conns.get_mut(&conn) else { return Ok(()) };
        if let Some(state) = state {
            conn_now.answer(&Answer::Ok(Greeting { mode: granted, console: state }));
        }
        if granted != wanted {
            let text = format!("{other} is writing; you are reading (--take to write)");
            conn_now.notify(Kind::Notice, text.as_bytes());
        }
        conn_now.tell_position();
        self.pump(conn);
        Ok(())
    }

    fn demote(&mut self, loser: u32, winner: &ClientState) {
        self.set_mode(loser, Mode::Read, &format!("{winner} is writing now; you are reading"));
    }

    /// The console has no writer any more: the first of those who wait to be one is it.
    pub(super) fn promote(&mut self, id: u32, gone: &ClientState) {
        let Some(console) = self.consoles.get(&id) else { return };
        let waits = |reader: &&u32| {
            let conn = self.conns.get(*reader);
            matches!(conn.map(|c| &c.phase), Some(Phase::Attached(a)) if a.wanted == Mode::Write)
        };
        let Some(next) = console.readers.iter().find(waits).copied() else { return };
        if let Some(console) = self.consoles.get_mut(&id) {
            console.writer = Some(next);
        }
        self.set_mode(next, Mode::Write, &format!("{gone} has left; you are writing now"));
    }

    fn set_mode(&mut self, of: u32, mode: Mode, why: &str) {
        self.note_end(of);
        let Some(conn) = self.conns.get_mut(&of) else { return };
        conn.paused = false;
        if let Some(attached) = conn.attached() {
            attached.client.mode = mode;
        }
        conn.notify(Kind::Mode, &serde_json::to_vec(&mode).unwrap_or_default());
        conn.notify(Kind::Notice, why.as_bytes());
        self.pump(of);
    }

    pub(super) fn broadcast(&mut self, guest: Option<&GuestName>, text: &str) -> Result<Vec<Told>> {
        let wanted = |c: &Console| c.run.is_some() && guest.is_none_or(|guest| c.guest == *guest);
        let found: Vec<u32> = self.consoles.iter().filter(|(_, c)| wanted(c)).map(|(id, _)| *id).collect();
        if let (Some(guest), true) = (guest, found.is_empty()) {
            bail!("telling those who watch guest '{guest}': it is not running");
        }
        let mut told = Vec::new();
        for id in found {
            let Some(console) = self.consoles.get(&id) else { continue };
            told.push(Told { guest: console.guest.clone(), clients: console.readers.len() });
            self.tell_readers(id, text);
        }
        Ok(told)
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

/// What others are shown of a client: no control characters, and not too much.
pub(super) fn client(who: String, origin: Option<String>, mode: Mode) -> ClientState {
    let harmless = |text: String| text.chars().filter(|c| !c.is_control()).take(80).collect();
    ClientState { who: harmless(who), origin: origin.map(harmless), mode, since_ms: now_ms() }
}

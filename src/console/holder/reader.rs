//! An attached client: a place in the log that moves on as fast as the client reads. Nothing is kept for it but one frame.

use crate::console::logread::{At, read_at};
use crate::console::protocol::{ClientState, FRAME_BYTES, Frames, Kind, Mode, Position};
use crate::console::record::ExitRecord;

use super::Holder;
use super::conn::{Conn, Phase};
use super::console::Console;
use super::typing::Typing;

/// Frames that are sent to one client before others have their turn.
const FRAMES_A_TURN: usize = 4;

pub(super) struct Attached {
    pub(super) console: u32,
    /// Who it is, and what it may do now.
    pub(super) client: ClientState,
    /// What it asked for.
    pub(super) wanted: Mode,
    /// The next byte that it gets.
    pub(super) at: Position,
    /// What it has typed as the writer that it is.
    pub(super) typing: Option<Typing>,
    /// What comes before is replay.
    pub(super) live_from: Position,
    /// What it has sent of an unfinished frame.
    pub(super) frames: Frames,
    /// After that boot's last byte it is told this, and goes.
    pub(super) ends: Option<ExitRecord>,
}

impl Conn {
    /// Tells the client where the next output stands.
    pub(super) fn tell_position(&mut self) {
        let Some(at) = self.attached().map(|a| a.at) else { return };
        if let Ok(json) = serde_json::to_vec(&at) {
            self.notify(Kind::Position, &json);
        }
    }

    fn skip_to(&mut self, to: Position) {
        let Some(attached) = self.attached() else { return };
        let skipped = to.offset.saturating_sub(attached.at.offset);
        attached.at = to;
        self.notify(Kind::Notice, format!("{skipped} bytes skipped").as_bytes());
        self.tell_position();
    }

    /// Output that has just been logged, straight from memory if the client has all that came before.
    pub(super) fn live(&mut self, at: Position, bytes: &[u8]) {
        let idle = self.is_idle();
        let Some(attached) = self.attached() else { return };
        if attached.at == at && idle {
            attached.at.offset += bytes.len() as u64;
            self.output(Kind::Live, bytes);
        }
    }

    /// Sends what comes next, from the log; true if there is more.
    fn catch_up(&mut self, console: &Console) -> bool {
        if !self.is_idle() {
            return true;
        }
        let has_all = |a: &mut Attached| a.at >= console.end() && a.ends.is_none();
        if self.attached().is_none_or(has_all) {
            return false;
        }
        // On the stack it would be there for ever.
        let mut buffer = vec![0; FRAME_BYTES];
        for _ in 0..FRAMES_A_TURN {
            if !self.is_idle() {
                return true;
            }
            let Some(attached) = self.attached() else { return false };
            let (at, log) = (attached.at, &console.log);
            let replay = at < attached.live_from;
            let mut room = buffer.len();
            if replay && at.boot == attached.live_from.boot {
                room = room.min(usize::try_from(attached.live_from.offset - at.offset).unwrap_or(room));
            }
            match read_at(log.dir(), log.segments(), at.boot, at.offset, &mut buffer[..room]) {
                At::Bytes(n) => {
                    attached.at.offset += n as u64;
                    self.output(if replay { Kind::Replay } else { Kind::Live }, &buffer[..n]);
                }
                At::Skip(to) => self.skip_to(Position { offset: to, ..at }),
                At::End if at.boot == log.boot() && at.offset < log.end() => {
                    self.skip_to(Position { offset: log.end(), ..at });
                }
                At::End => {
                    if let Some(exit) = attached.ends.take_if(|e| e.boot <= at.boot) {
                        let json = serde_json::to_vec(&exit).unwrap_or_default();
                        self.notify(Kind::Exit, &json);
                        self.phase = Phase::Leaving;
                        return false;
                    }
                    if at.boot >= log.boot() {
                        return false;
                    }
                    attached.at = Position { boot: at.boot + 1, offset: 0 };
                    self.notify(Kind::Notice, format!("boot {}", at.boot + 1).as_bytes());
                    self.tell_position();
                }
            }
        }
        true
    }
}

impl Holder {
    /// Brings an attached client as far as it goes.
    pub(super) fn pump(&mut self, id: u32) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(console) = conn.attached().and_then(|a| self.consoles.get(&a.console)) else { return };
        let behind = conn.catch_up(console);
        if matches!(conn.phase, Phase::Leaving) && conn.is_idle() {
            return self.close(id);
        }
        conn.settle(id, &self.epoll, behind);
    }
}

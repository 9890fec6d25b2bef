//! What is written down of those who write.

use crate::console::now_ms;
use crate::console::writers::{self, Typed, Writer};

use super::Holder;
use super::conn::Conn;

/// Longer lines are kept in parts.
const LINE_BYTES: usize = 1024;

/// One who writes, from the first key on.
#[derive(Debug)]
pub(super) struct Typing {
    began_at_ms: u64,
    last_at_ms: u64,
    bytes: u64,
    boot: u32,
    /// What was typed since the last line's end, if that is kept.
    line: Vec<u8>,
}

impl Holder {
    /// The writer has typed this.
    pub(super) fn note_typed(&mut self, conn_id: u32, bytes: &[u8]) {
        let now = now_ms();
        let Some(attached) = self.conns.get_mut(&conn_id).and_then(Conn::attached) else { return };
        let Some(console) = self.consoles.get(&attached.console) else { return };
        let (boot, record) = (console.log.boot(), console.settings.record);
        let first = attached.typing.is_none();
        let typing = attached.typing.get_or_insert_with(|| Typing {
            began_at_ms: now,
            last_at_ms: now,
            bytes: 0,
            boot,
            line: Vec::new(),
        });
        typing.last_at_ms = now;
        typing.bytes += bytes.len() as u64;
        if record {
            typing.line.extend_from_slice(bytes);
        }
        let whole = typing.line.len() >= LINE_BYTES || typing.line.iter().any(|b| matches!(b, b'\r' | b'\n'));
        if first {
            self.note(conn_id, false);
        }
        if whole {
            self.keep(conn_id);
        }
    }

    /// The client writes no more, if it did.
    pub(super) fn note_end(&mut self, conn_id: u32) {
        self.keep(conn_id);
        self.note(conn_id, true);
        if let Some(attached) = self.conns.get_mut(&conn_id).and_then(Conn::attached) {
            attached.typing = None;
        }
    }

    fn note(&mut self, conn_id: u32, ended: bool) {
        let Some(conn) = self.conns.get_mut(&conn_id) else { return };
        let pid = conn.pid();
        let Some(attached) = conn.attached() else { return };
        let Some((typing, console)) = attached.typing.as_ref().zip(self.consoles.get(&attached.console))
        else {
            return;
        };
        let writer = Writer {
            who: attached.client.who.clone(),
            origin: attached.client.origin.clone(),
            pid,
            boot: typing.boot,
            began_at_ms: typing.began_at_ms,
            ended_at_ms: ended.then_some(typing.last_at_ms),
            bytes: ended.then_some(typing.bytes),
        };
        if let Err(e) = writers::note(console.log.dir(), console.log.access(), &writer) {
            eprintln!("guest '{}': ignoring: writing down who types: {e}", console.guest);
        }
    }

    fn keep(&mut self, conn_id: u32) {
        let Some(attached) = self.conns.get_mut(&conn_id).and_then(Conn::attached) else { return };
        let who = attached.client.to_string();
        let Some((typing, console)) = attached.typing.as_mut().zip(self.consoles.get(&attached.console))
        else {
            return;
        };
        if typing.line.is_empty() {
            return;
        }
        let text = std::mem::take(&mut typing.line).escape_ascii().to_string();
        let typed = Typed { at_ms: typing.last_at_ms, who, text };
        if let Err(e) = writers::keep(console.log.dir(), &typed) {
            eprintln!("guest '{}': ignoring: writing down what is typed: {e}", console.guest);
        }
    }
}

//! A client's connection.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::{self, EventFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;

use crate::console::protocol::{Answer, For, HEADER_BYTES, Kind, REQUEST_BYTES, Request, frame, header};
use crate::names::GuestName;

use super::reader::Attached;
use super::{Holder, Token};

/// More than this is not kept for a client; what cannot be kept is a notice, never output.
const OUT_BYTES: usize = 128 << 10;

pub(super) struct Conn {
    socket: UnixStream,
    pub(super) phase: Phase,
    out: Vec<u8>,
    interest: EventFlags,
    /// Its input has to wait.
    pub(super) paused: bool,
}

pub(super) enum Phase {
    /// Has not asked yet.
    Asking { line: Vec<u8>, fds: Vec<OwnedFd> },
    /// Waits until its launcher is adopted.
    Spawning,
    /// Waits for an event.
    Waiting { guest: GuestName, what: For },
    /// Is shown a console.
    Attached(Box<Attached>),
    /// Goes as soon as it has everything.
    Leaving,
}

/// A request, or why it is none, and the descriptors that came with it.
type Asked = (Result<Request, String>, Vec<OwnedFd>);

impl Conn {
    pub(super) fn new(socket: UnixStream) -> Self {
        let phase = Phase::Asking { line: Vec::new(), fds: Vec::new() };
        Self { socket, phase, out: Vec::new(), interest: EventFlags::IN, paused: false }
    }

    pub(super) fn attached(&mut self) -> Option<&mut Attached> {
        match &mut self.phase {
            Phase::Attached(attached) => Some(attached),
            _ => None,
        }
    }

    /// Nothing is waiting to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends the answer; a client that is not attached goes then.
    pub(super) fn answer<T: Serialize>(&mut self, answer: &Answer<T>) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            self.out.extend_from_slice(&line);
        }
        if !matches!(self.phase, Phase::Attached(_)) {
            self.phase = Phase::Leaving;
        }
        self.flush();
    }

    /// Sends a frame; dropped if the client has too much waiting already.
    pub(super) fn notify(&mut self, kind: Kind, payload: &[u8]) {
        if self.out.len() + payload.len() <= OUT_BYTES {
            self.out.extend_from_slice(&frame(kind, payload));
            self.flush();
        }
    }

    /// Sends output as a frame, at best without copying it. Only when nothing is waiting.
    pub(super) fn output(&mut self, kind: Kind, payload: &[u8]) {
        let head = header(kind, payload.len());
        let sent = self.socket.write_vectored(&[IoSlice::new(&head), IoSlice::new(payload)]).unwrap_or(0);
        self.out.extend_from_slice(head.get(sent..).unwrap_or_default());
        self.out.extend_from_slice(payload.get(sent.saturating_sub(HEADER_BYTES)..).unwrap_or_default());
    }

    /// Sends what is waiting, as far as it goes.
    pub(super) fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.socket.write(&self.out[sent..]) {
                Ok(n) if n > 0 => sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // Gone: epoll says so as well, and then the connection is dropped.
                _ => sent = self.out.len(),
            }
        }
        if sent == self.out.len() {
            self.out = Vec::new();
        } else {
            self.out.drain(..sent);
        }
    }

    /// Asks epoll for what this connection now wants to hear of.
    pub(super) fn settle(&mut self, id: u32, epoll: &OwnedFd, behind: bool) {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.paused && !matches!(self.phase, Phase::Leaving));
        // One that is leaving is closed at the next event.
        let leaving = matches!(self.phase, Phase::Leaving);
        interest.set(EventFlags::OUT, behind || leaving || !self.out.is_empty());
        if interest != self.interest
            && epoll::modify(epoll, &self.socket, Token::Conn(id).data(), interest).is_ok()
        {
            self.interest = interest;
        }
    }

    /// Reads more of the request; `None` as long as it is not whole.
    fn request(&mut self) -> io::Result<Option<Asked>> {
        let Phase::Asking { line, fds } = &mut self.phase else { return Ok(None) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&chunk[..got.bytes]);
        let Some(end) = line.iter().position(|b| *b == b'\n') else {
            let too_long = line.len() > REQUEST_BYTES;
            return Ok(too_long.then(|| (Err("the request is too long".to_owned()), Vec::new())));
        };
        let request =
            serde_json::from_slice(&line[..end]).map_err(|e| format!("understanding the request: {e}"));
        Ok(Some((request, std::mem::take(fds))))
    }

    /// The process at the other end.
    pub(super) fn pid(&self) -> i32 {
        rustix::net::sockopt::socket_peercred(&self.socket).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Holder {
    pub(super) fn conn_event(&mut self, id: u32, flags: EventFlags) {
        if flags.contains(EventFlags::IN) {
            self.conn_input(id);
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.close(id);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.flush();
        match conn.phase {
            Phase::Attached(_) => self.pump(id),
            Phase::Leaving if conn.is_idle() => self.close(id),
            _ => conn.settle(id, &self.epoll, false),
        }
    }

    fn conn_input(&mut self, id: u32) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match &mut conn.phase {
            Phase::Asking { .. } => match conn.request() {
                Ok(None) => {}
                Ok(Some((Ok(request), fds))) => self.request(id, request, fds),
                Ok(Some((Err(why), _))) => conn.answer(&Answer::<()>::Error(why)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(id),
            },
            Phase::Attached(attached) => {
                let mut buffer = [0; 8192];
                let mut frames = std::mem::take(&mut attached.frames);
                let alive = match conn.read(&mut buffer) {
                    Ok(0) => false,
                    Ok(n) => frames.push(&buffer[..n], |kind, payload| self.frame(id, kind, payload)).is_ok(),
                    Err(e) => e.kind() == io::ErrorKind::WouldBlock,
                };
                match self.conns.get_mut(&id).and_then(Conn::attached) {
                    Some(attached) if alive => attached.frames = frames,
                    _ => self.close(id),
                }
            }
            // Nothing more is expected; only its end is news.
            _ => {
                if !matches!(conn.read(&mut [0; 64]), Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
                    self.close(id);
                }
            }
        }
    }

    pub(super) fn close(&mut self, id: u32) {
        // Dropping the socket takes it out of epoll.
        self.note_end(id);
        let mut gone = self.conns.remove(&id);
        for console in self.consoles.values_mut() {
            console.readers.retain(|reader| *reader != id);
        }
        let Some(gone) = gone.as_mut().and_then(Conn::attached) else { return };
        let Some(console) = self.consoles.get_mut(&gone.console).filter(|c| c.writer == Some(id)) else {
            return;
        };
        console.writer = None;
        self.promote(gone.console, &gone.client);
    }
}

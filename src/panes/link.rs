//! A connection to the console holder that never waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use rustix::event::PollFlags;

use crate::console::client;
use crate::console::protocol::{Frames, Kind, Request, frame};
use crate::paths::Paths;

/// Read at once, so that no guest keeps the others waiting.
const READ_BYTES: usize = 16 << 10;
/// An answer is no longer than this; a list of a hundred consoles fits well.
const ANSWER_BYTES: usize = 1 << 20;

/// What the holder says.
#[derive(Debug)]
pub enum Said<'a> {
    /// The answer: a line of JSON.
    Answer(&'a [u8]),
    /// After an attach.
    Frame(Kind, &'a [u8]),
}

/// A request on its way, and then its frames.
#[derive(Debug)]
pub struct Link {
    socket: UnixStream,
    out: Vec<u8>,
    /// The answer as far as it has come; none once it was whole.
    answer: Option<Vec<u8>>,
    frames: Frames,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    /// Connects, and asks as soon as [`Link::exchange`] is called.
    pub fn open(paths: &Paths, request: &Request) -> Result<Self> {
        let socket = client::connect(paths)?;
        socket.set_nonblocking(true).context("preparing the connection")?;
        let mut out = serde_json::to_vec(request).context("asking the console holder")?;
        out.push(b'\n');
        Ok(Self { socket, out, answer: Some(Vec::new()), frames: Frames::default() })
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.out.is_empty());
        flags
    }

    /// Sends a frame; only after the answer, since the holder reads no further than the request before.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.out.extend_from_slice(&frame(kind, payload));
    }

    /// Talks as far as it goes; false if the holder is gone or speaks another language.
    pub fn exchange(&mut self, ready: PollFlags, mut sink: impl FnMut(Said<'_>)) -> bool {
        if ready.contains(PollFlags::OUT) && !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if is_passing(&e) => {}
                // What the holder has still to say comes first.
                Err(_) => self.out.clear(),
            }
        }
        if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return true;
        }
        let mut buffer = [0; READ_BYTES];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => self.take(&buffer[..n], &mut sink),
            Err(e) => is_passing(&e),
        }
    }

    fn take(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Said<'_>)) -> bool {
        if let Some(answer) = &mut self.answer {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            answer.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return answer.len() <= ANSWER_BYTES };
            sink(Said::Answer(answer));
            self.answer = None;
            bytes = &bytes[end + 1..];
        }
        self.frames.push(bytes, |kind, payload| sink(Said::Frame(kind, payload))).is_ok()
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

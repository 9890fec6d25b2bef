//! The connection to the holder.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::console::client::{answer_line, connect, ensure_holder, is_gone, send, understand};
use crate::console::protocol::{Frames, Greeting, Mode, Position, Request};
use crate::names::GuestName;
use crate::paths::Paths;

use super::Options;

/// A holder that has ended is waited for so long, and one that does not answer.
pub(super) const REVIVAL: Duration = Duration::from_secs(10);

pub(super) struct Link {
    pub(super) socket: UnixStream,
    pub(super) frames: Frames,
}

/// Where to begin, and as what.
pub(super) struct Wish {
    pub(super) mode: Mode,
    pub(super) take: bool,
    pub(super) from: Option<Position>,
    pub(super) tail: Option<u64>,
}

impl Link {
    /// As [`Link::open`]; a holder that ends just now has a successor in a moment.
    pub(super) fn open_surely(
        paths: &Paths,
        guest: &GuestName,
        options: &Options,
        wish: &Wish,
    ) -> Result<(Self, Greeting)> {
        let began = Instant::now();
        loop {
            match Self::open(paths, guest, options, wish) {
                Err(e) if is_gone(&e) && began.elapsed() < REVIVAL => {
                    std::thread::sleep(Duration::from_millis(50));
                    if let Some(exe) = &options.revive {
                        ensure_holder(paths, exe)?;
                    }
                }
                other => return other,
            }
        }
    }

    pub(super) fn open(
        paths: &Paths,
        guest: &GuestName,
        options: &Options,
        wish: &Wish,
    ) -> Result<(Self, Greeting)> {
        let mut socket = connect(paths)?;
        socket.set_read_timeout(Some(REVIVAL)).context("setting a limit")?;
        let Wish { mode, take, from, tail } = *wish;
        let (guest, who, origin) = (guest.clone(), options.who.name.clone(), options.who.origin.clone());
        send(&mut socket, &Request::Attach { guest, mode, take, who, origin, from, tail }, None)?;
        let line = answer_line(&mut socket)?;
        let greeting = understand(&line)?;
        socket.set_nonblocking(true).context("preparing the connection")?;
        Ok((Self { socket, frames: Frames::default() }, greeting))
    }
}

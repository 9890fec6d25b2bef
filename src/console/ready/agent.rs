//! The QEMU guest agent: a service in the guest that answers on a socket of QEMU's (QEMU Guest Agent Protocol Reference).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::host::sockets;

use super::probe::{Pace, Probe, Progress};

/// QEMU serves one client at a time: one that asks must not stay, and not come often.
const PACE: Pace = Pace {
    patience: Duration::from_secs(2),
    retry: Duration::from_millis(500),
    longest: Duration::from_secs(2),
    degraded: Duration::from_secs(5),
};
/// What older attempts asked for may be answered first; each answer is a short line.
const ANSWER_BYTES: usize = 4096;
/// Before the answer to `guest-sync-delimited`, so that a half line from before can be told from it.
const SENTINEL: u8 = 0xff;

#[derive(Debug)]
pub(super) struct Agent {
    path: PathBuf,
    socket: Option<OwnedFd>,
    said: Vec<u8>,
    number: u32,
}

impl Agent {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None, said: Vec::new(), number: 0 }
    }
}

/// The answers to synchronisations so far, in order; an unfinished one is none.
pub(super) fn synchronised(said: &[u8]) -> Vec<u64> {
    let answers = said.split(|byte| *byte == SENTINEL).skip(1);
    let whole = answers.filter_map(|rest| rest.split_inclusive(|byte| *byte == b'\n').next());
    let values = whole
        .filter(|line| line.ends_with(b"\n"))
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()?.get("return")?.as_u64());
    values.collect()
}

impl Probe for Agent {
    fn begin(&mut self) -> Result<Progress> {
        self.give_up();
        self.number = self.number.wrapping_add(1);
        let what = || format!("asking the guest agent at '{}'", self.path.display());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.with_context(what)?;
        let found = sockets::find(&self.path).with_context(what)?;
        let address = SocketAddrUnix::new(found.path()).with_context(what)?;
        rustix::net::connect(&socket, &address).with_context(what)?;
        let question =
            format!("{{\"execute\":\"guest-sync-delimited\",\"arguments\":{{\"id\":{}}}}}\n", self.number);
        // The sentinel makes the agent forget a half line of somebody else's.
        let bytes = [&[SENTINEL], question.as_bytes()].concat();
        // So little always fits into the buffer of a new socket, or not at all.
        rustix::io::write(&socket, &bytes).with_context(what)?;
        self.socket = Some(socket);
        Ok(Progress::Pending)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    fn event(&mut self) -> Progress {
        let Some(socket) = &self.socket else { return Progress::Failed };
        let mut buffer = [0; 512];
        let progress = loop {
            match rustix::io::read(socket, &mut buffer) {
                Ok(0) => break Progress::Failed,
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break Progress::Pending,
                Err(_) => break Progress::Failed,
            }
            if synchronised(&self.said).contains(&u64::from(self.number)) {
                break Progress::Seen;
            }
            if self.said.len() > ANSWER_BYTES {
                break Progress::Failed;
            }
        };
        if progress != Progress::Pending {
            self.give_up();
        }
        progress
    }

    fn give_up(&mut self) {
        self.socket = None;
        self.said = Vec::new();
    }

    fn pace(&self) -> Pace {
        PACE
    }
}

/// Tells the agent to shut the guest down. It gives no answer to that; the limit is for handing it over.
pub fn shut_down(path: &std::path::Path, limit: Duration) -> Result<()> {
    let what = || format!("asking the guest agent at '{}' to shut the guest down", path.display());
    let mut probe = Agent::new(path.to_owned());
    probe.begin().with_context(what)?;
    let until = std::time::Instant::now() + limit;
    // One that does not hear would get the order when it comes up, long after the guest was to be stopped.
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let fd = probe.fd().context("it has gone").with_context(what)?;
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let span = rustix::event::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        if matches!(rustix::event::poll(&mut fds, Some(&span)), Ok(0)) {
            anyhow::bail!("{}: it does not answer", what());
        }
        let socket = probe.socket.as_ref().map(|socket| socket.try_clone()).transpose()?;
        match probe.event() {
            Progress::Seen => {
                let socket = UnixStream::from(socket.context("it has gone").with_context(what)?);
                let order = b"{\"execute\":\"guest-shutdown\"}\n";
                rustix::io::write(&socket, order).with_context(what)?;
                return Ok(());
            }
            Progress::Pending => {}
            Progress::Failed => anyhow::bail!("{}: it has gone", what()),
        }
    }
}

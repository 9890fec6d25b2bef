//! The QEMU guest agent: a service in the guest that answers on a socket of QEMU's (QEMU Guest Agent Protocol Reference).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
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
pub fn shut_down(path: &Path, limit: Duration) -> Result<()> {
    let what = || format!("asking the guest agent at '{}' to shut the guest down", path.display());
    let socket = listening(path, Instant::now() + limit).with_context(what)?;
    rustix::io::write(&socket, b"{\"execute\":\"guest-shutdown\"}\n").with_context(what)?;
    Ok(())
}

/// Gives the agent a command without arguments and waits for what it returns, for at most that long.
pub fn call(path: &Path, command: &str, limit: Duration) -> Result<serde_json::Value> {
    let what = || format!("asking the guest agent at '{}' for '{command}'", path.display());
    let until = Instant::now() + limit;
    let socket = listening(path, until).with_context(what)?;
    let order = format!("{{\"execute\":\"{command}\"}}\n");
    rustix::io::write(&socket, order.as_bytes()).with_context(what)?;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        wait(&socket, until).with_context(what)?;
        let mut buffer = [0; 512];
        match rustix::io::read(&socket, &mut buffer) {
            Ok(0) => bail!("{}: it has gone", what()),
            Ok(n) if said.len() + n > ANSWER_BYTES => bail!("{}: it talks too much", what()),
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error).with_context(what),
        }
    }
    let mut answer: serde_json::Value = serde_json::from_slice(&said).with_context(what)?;
    match answer.get("return") {
        Some(_) => Ok(answer["return"].take()),
        None => bail!("{}: it answered {answer}", what()),
    }
}

fn wait(socket: impl AsFd, until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let span = rustix::event::Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&span)) {
        Ok(0) => bail!("it does not answer"),
        _ => Ok(()),
    }
}

/// A connection to an agent that hears: one that does not would get an order when it comes up, long after it was meant.
fn listening(path: &Path, until: Instant) -> Result<UnixStream> {
    let mut probe = Agent::new(path.to_owned());
    probe.begin()?;
    loop {
        wait(probe.fd().context("it has gone")?, until)?;
        let socket = probe.socket.as_ref().map(|socket| socket.try_clone()).transpose()?;
        match probe.event() {
            Progress::Seen => return Ok(UnixStream::from(socket.context("it has gone")?)),
            Progress::Pending => {}
            Progress::Failed => bail!("it has gone"),
        }
    }
}

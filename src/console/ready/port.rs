//! A TCP port that accepts connections, and one that an SSH server answers on.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::probe::{Pace, Probe, Progress, socket_in};

/// A guest needs seconds to boot; 150 ms is little beside it, and little work. An attempt without any answer is given up
/// after a second: the kernel's own repetition (1 s, 3 s, 7 s) would be late.
const CONNECT: Pace = Pace {
    patience: Duration::from_secs(1),
    retry: Duration::from_millis(150),
    longest: Duration::from_millis(150),
    degraded: Duration::from_secs(2),
};
/// A server that looks its client's name up first takes its time to speak.
const BANNER: Pace = Pace { patience: Duration::from_secs(6), ..CONNECT };
/// A server may send other lines before its identification (RFC 4253, section 4.2); nobody sends that much of them.
const BANNER_BYTES: usize = 4096;

/// What the other side must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Connection,
    SshBanner,
}

#[derive(Debug)]
pub(super) struct Port {
    to: SocketAddr,
    netns: Option<PathBuf>,
    wanted: Wanted,
    socket: Option<OwnedFd>,
    said: Vec<u8>,
}

impl Port {
    pub(super) fn new(to: SocketAddr, netns: Option<PathBuf>, wanted: Wanted) -> Self {
        Self { to, netns, wanted, socket: None, said: Vec::new() }
    }

    fn heard(&mut self) -> Progress {
        let Some(socket) = &self.socket else { return Progress::Failed };
        let mut buffer = [0; 512];
        loop {
            match rustix::io::read(socket, &mut buffer) {
                Ok(0) => return Progress::Failed,
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Progress::Pending,
                Err(_) => return Progress::Failed,
            }
            if is_ssh(&self.said) {
                return Progress::Seen;
            }
            if self.said.len() > BANNER_BYTES {
                return Progress::Failed;
            }
        }
    }
}

/// Whether one of the lines so far is an SSH server's identification.
pub(super) fn is_ssh(said: &[u8]) -> bool {
    said.split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-"))
}

impl Probe for Port {
    fn begin(&mut self) -> Result<Progress> {
        self.give_up();
        let socket = socket_in(self.to.ip(), self.netns.as_deref())?;
        let connected = match rustix::net::connect(&socket, &self.to) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            Err(e) => return Err(e).with_context(|| format!("connecting to '{}'", self.to)),
        };
        if connected && self.wanted == Wanted::Connection {
            return Ok(Progress::Seen);
        }
        self.socket = Some(socket);
        Ok(Progress::Pending)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    fn event(&mut self) -> Progress {
        let Some(socket) = &self.socket else { return Progress::Failed };
        let progress = match rustix::net::sockopt::socket_error(socket) {
            Ok(Ok(())) if rustix::net::getpeername(socket).is_ok() => match self.wanted {
                Wanted::Connection => Progress::Seen,
                Wanted::SshBanner => self.heard(),
            },
            // Nothing has happened to it but that it was looked at.
            Ok(Ok(())) => Progress::Pending,
            _ => Progress::Failed,
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
        match self.wanted {
            Wanted::Connection => CONNECT,
            Wanted::SshBanner => BANNER,
        }
    }
}

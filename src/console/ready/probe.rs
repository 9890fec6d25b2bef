//! Attempts to get an answer out of a guest, one after the other, none of which makes anybody wait.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The guest has given the right answer.
    Seen,
    /// Its descriptor will tell.
    Pending,
    /// Not this time.
    Failed,
}

/// How often and how long one is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// An attempt without an answer is given up after this.
    pub(super) patience: Duration,
    /// Between the first attempts.
    pub(super) retry: Duration,
    /// The longest pause that failures in a row lead to; each doubles it.
    pub(super) longest: Duration,
    /// The pause for a guest that nobody waits for any more.
    pub(super) degraded: Duration,
}

/// One way to ask; at most one attempt at a time.
pub(super) trait Probe: std::fmt::Debug + Send {
    /// Begins an attempt, without the one before.
    fn begin(&mut self) -> Result<Progress>;
    /// What to watch for both ways, edge-triggered, while an attempt is pending.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
    /// Something happened to the descriptor.
    fn event(&mut self) -> Progress;
    /// The attempt took too long.
    fn give_up(&mut self);
    /// See [`Pace`].
    fn pace(&self) -> Pace;
}

/// A socket belongs for ever to the network namespace that it was made in; this thread is there only meanwhile.
pub(super) fn socket_in(ip: IpAddr, netns: Option<&Path>) -> Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let make = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).context("making a socket")
    };
    let Some(netns) = netns else { return make() };
    let enter =
        |namespace: &File| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    let open = |path: &Path| File::open(path).with_context(|| format!("opening '{}'", path.display()));
    let (home, there) = (open(Path::new("/proc/thread-self/ns/net"))?, open(netns)?);
    enter(&there).with_context(|| format!("entering the network namespace '{}'", netns.display()))?;
    let socket = make();
    enter(&home).context("coming back from a network namespace")?;
    socket
}

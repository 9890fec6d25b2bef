//! The holder: one process per site that reads every guest's console, always.
//!
//! One thread, one epoll(7) loop, no wake-up without a cause. Parts:
//!
//! ```text
//!   conn.rs      a client's connection: what it asks, what still has to be sent to it
//!   requests.rs  what is done for each request
//!   console.rs   a guest's console: output, input, readiness
//!   clients.rs   who is attached, who writes, what they are told
//!   typing.rs    what is written down of those who write
//!   reader.rs    an attached client: its place in the log
//!   heard.rs     what else is heard of a guest: its own words, its kernel's, QEMU's
//!   launch.rs    starting a guest's launcher, and its end
//!   heal.rs      putting back what was removed under it
//!   keep.rs      terminals kept by the service manager
//!   ending.rs    the end of a guest
//!   again.rs     starting one again that ended by itself
//!   recover.rs   taking up what an earlier holder left
//!   slim.rs      giving memory back
//!   setup.rs     socket, lock, telling that we are there, detaching
//! ```
//!
//! Its end never ends a guest.

mod again;
mod clients;
mod conn;
mod console;
mod ending;
mod heard;
mod heal;
mod keep;
mod launch;
mod reader;
mod recover;
mod requests;
mod setup;
mod slim;
mod vsock;
mod typing;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signalfd::SignalFd;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::console::inflight::Inflight;
use crate::names::GuestName;
use crate::paths::Paths;

use conn::Conn;
use console::Console;
pub use setup::detach;

/// Whose event it is; packed into epoll's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Listener,
    Signal,
    Conn(u32),
    /// A guest's terminal. The second number tells its runs apart, here and below.
    Master(u32, u16),
    /// The process that runs a guest.
    Process(u32, u16),
    /// A launcher that the holder started.
    Launcher(u32, u16),
    /// A readiness check's attempt to connect.
    Attempt(u32, u16),
    /// The socket that a guest's datagrams come to.
    Notify(u32, u16),
    /// QEMU's events.
    Machine(u32, u16),
    /// Machines call here.
    Switchboard,
    /// A machine that says something.
    Talker(u32),
    /// The run directory.
    Health,
}

impl Token {
    fn data(self) -> EventData {
        let (kind, id, sub) = match self {
            Token::Listener => (0, 0, 0),
            Token::Signal => (1, 0, 0),
            Token::Conn(id) => (2, id, 0),
            Token::Master(id, run) => (3, id, run),
            Token::Process(id, run) => (4, id, run),
            Token::Launcher(id, run) => (5, id, run),
            Token::Attempt(id, index) => (6, id, index),
            Token::Notify(id, run) => (7, id, run),
            Token::Machine(id, run) => (8, id, run),
            Token::Switchboard => (10, 0, 0),
            Token::Talker(number) => (11, number, 0),
            Token::Health => (9, 0, 0),
        };
        EventData::new_u64((kind << 48) | (u64::from(id) << 16) | u64::from(sub))
    }

    fn of(data: EventData) -> Option<Self> {
        let bits = data.u64();
        let (id, sub) = ((bits >> 16) as u32, bits as u16);
        Some(match bits >> 48 {
            0 => Token::Listener,
            1 => Token::Signal,
            2 => Token::Conn(id),
            3 => Token::Master(id, sub),
            4 => Token::Process(id, sub),
            5 => Token::Launcher(id, sub),
            6 => Token::Attempt(id, sub),
            7 => Token::Notify(id, sub),
            8 => Token::Machine(id, sub),
            10 => Token::Switchboard,
            11 => Token::Talker(id),
            9 => Token::Health,
            _ => return None,
        })
    }
}

struct Holder {
    paths: Paths,
    epoll: OwnedFd,
    listener: UnixListener,
    signals: SignalFd,
    inflight: Inflight,
    kept: keep::Kept,
    health: heal::Health,
    consoles: BTreeMap<u32, Console>,
    conns: BTreeMap<u32, Conn>,
    switchboard: vsock::Switchboard,
    next_conn: u32,
    slim_due: Option<Instant>,
    ending: bool,
}

/// Runs the holder of a site until SIGTERM, SIGINT or a request to quit; guests live on. When its socket answers it says
/// `ready` on stdout, lets go of stdout, and tells the service manager (sd_notify(3)). A second one for the same
/// site is refused.
pub fn run(paths: &Paths) -> Result<()> {
    let what = || format!("holding the consoles of '{}'", paths.state.display());
    let kept = keep::Kept::receive();
    let mut holder = setup::holder(paths, kept).with_context(what)?;
    setup::tell_ready().with_context(what)?;
    holder.has_worked();
    holder.turn().with_context(what)
}

impl Holder {
    fn turn(&mut self) -> Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(32);
        while !self.ending {
            let timeout = self.timeout().map(|d| {
                // Rounded up to whole milliseconds: a timer that fires early would spin.
                let ms = i64::try_from(d.as_millis()).unwrap_or(i64::MAX).saturating_add(1).min(86_400_000);
                rustix::event::Timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 }
            });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("waiting for events"),
            }
            // What tells of a reboot comes before the output that follows it.
            events.sort_unstable_by_key(|event| {
                !matches!(Token::of(event.data), Some(Token::Notify(..) | Token::Machine(..)))
            });
            for event in events.drain(..) {
                let Some(token) = Token::of(event.data) else { continue };
                self.event(token, event.flags);
            }
            self.tick();
        }
        Ok(())
    }

    fn event(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signal => self.ending = true,
            Token::Health => self.unwell(),
            Token::Conn(id) => self.conn_event(id, flags),
            Token::Master(id, run) => self.master_event(id, run, flags),
            Token::Process(id, run) => self.process_ended(id, run),
            Token::Launcher(id, run) => self.launcher_ended(id, run),
            Token::Attempt(id, index) => {
                if let Some(run) = self.consoles.get_mut(&id).and_then(|c| c.run.as_mut()) {
                    run.watch.attempted(usize::from(index), Instant::now());
                    self.conclude(id);
                }
            }
            Token::Notify(id, run) => self.notify_event(id, run, Instant::now()),
            Token::Machine(id, run) => self.machine_event(id, run, Instant::now()),
            Token::Switchboard => self.somebody_calls(),
            Token::Talker(number) => self.talks(number, Instant::now()),
        }
    }

    fn timeout(&self) -> Option<std::time::Duration> {
        let others = [self.health.due(), self.slim_due, self.switchboard.timer()].into_iter().flatten();
        let next = self.consoles.values().filter_map(Console::timer).chain(others).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.heal(now);
        self.slim(now);
        self.talk_tick(now);
        let due = |c: &Console| c.timer().is_some_and(|t| t <= now);
        let due: Vec<u32> = self.consoles.iter().filter(|(_, c)| due(c)).map(|(id, _)| *id).collect();
        for id in due {
            self.console_tick(id, now);
        }
    }

    fn accept(&mut self) {
        // An error here is the client's (it has gone again) or a lack of descriptors; the next event tries again.
        while let Ok((socket, _)) = self.listener.accept() {
            let id = self.next_conn;
            self.next_conn = self.next_conn.wrapping_add(1);
            let watched = socket.set_nonblocking(true).is_ok()
                && epoll::add(&self.epoll, &socket, Token::Conn(id).data(), EventFlags::IN).is_ok();
            if watched {
                self.conns.insert(id, Conn::new(socket));
            }
        }
    }

    fn console_id(&self, guest: &GuestName) -> Option<u32> {
        self.consoles.iter().find(|(_, c)| c.guest == *guest).map(|(id, _)| *id)
    }

    fn watch_fd(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, token.data(), flags).context("watching a file descriptor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_survives_the_kernel(id in any::<u32>(), sub in any::<u16>()) {
            for token in [Token::Conn(id), Token::Master(id, sub), Token::Process(id, sub), Token::Attempt(id, sub)] {
                prop_assert_eq!(Token::of(token.data()), Some(token));
            }
        }
    }
}

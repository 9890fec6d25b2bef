//! Whole machines that say over AF_VSOCK how they are: one listener for all of the site's, and the kernel says who it is
//! that connects.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, getpeername, listen, socket,
};
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;

use crate::config::site::ReadyCheck;
use crate::console::heard::Heard;
use crate::console::heard::notify::{DATAGRAM_BYTES, understand};
use crate::console::heard::vsock::{self, Vsock};

use super::{Holder, Token};

/// Messages that are on their way at once; the next one waits in the kernel.
const TALKERS: usize = 32;
/// A message is sent at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(super) struct Switchboard {
    listener: Option<OwnedFd>,
    talkers: BTreeMap<u32, Talker>,
    next: u32,
}

struct Talker {
    from: u32,
    line: OwnedFd,
    said: Vec<u8>,
    until: Instant,
}

impl Talker {
    /// Reads what has come; whether that is all there will be.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 512];
        loop {
            match rustix::io::read(&self.line, &mut buffer) {
                Ok(n) if n > 0 => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                _ => return true,
            }
            if self.said.len() >= DATAGRAM_BYTES {
                return true;
            }
        }
    }
}

impl Switchboard {
    pub(super) fn timer(&self) -> Option<Instant> {
        self.talkers.values().map(|talker| talker.until).min()
    }

    fn open(port: u32) -> Result<OwnedFd> {
        let what = || format!("listening on port {port} of AF_VSOCK");
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Vsock, SockType::Stream, flags, None).with_context(what)?;
        bind(listener.as_raw_fd(), &VsockAddr::new(u32::MAX, port)).with_context(what)?;
        listen(&listener, Backlog::new(16)?).with_context(what)?;
        Ok(listener)
    }
}

impl Holder {
    /// Listens, if a machine is there that may say something; without the kernel's help it does not.
    pub(super) fn expect_talk(&mut self, id: u32) {
        let Some(console) = self.consoles.get(&id) else { return };
        let wants = |check: &ReadyCheck| matches!(check, ReadyCheck::Notify | ReadyCheck::Heartbeat(_));
        let machine = console.run.as_ref().is_some_and(|run| run.record.backend == "qemu");
        let asked = console.settings.ready.iter().any(wants);
        if !machine || !asked || self.switchboard.listener.is_some() || !vsock::is_possible() {
            return;
        }
        let opened = Switchboard::open(Vsock::of(&self.paths, &console.guest).port).and_then(|listener| {
            self.watch_fd(listener.as_fd(), Token::Switchboard, EventFlags::IN)?;
            Ok(listener)
        });
        match opened {
            Ok(listener) => self.switchboard.listener = Some(listener),
            Err(e) => eprintln!("guest '{}': ignoring: {e:#}", console.guest),
        }
    }

    /// Somebody calls.
    pub(super) fn somebody_calls(&mut self) {
        while self.switchboard.talkers.len() < TALKERS {
            let Some(listener) = &self.switchboard.listener else { return };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let Ok(fd) = accept4(listener.as_raw_fd(), flags) else { return };
            #[expect(unsafe_code, reason = "what nix accepts is a bare number")]
            // SAFETY: accept4(2) has just made it, and nobody else has it.
            let line = unsafe { OwnedFd::from_raw_fd(fd) };
            let Ok(from) = getpeername::<VsockAddr>(line.as_raw_fd()) else { continue };
            let number = self.switchboard.next;
            self.switchboard.next = number.wrapping_add(1);
            if self.watch_fd(line.as_fd(), Token::Talker(number), EventFlags::IN).is_ok() {
                let until = Instant::now() + PATIENCE;
                let talker = Talker { from: from.cid(), line, said: Vec::new(), until };
                self.switchboard.talkers.insert(number, talker);
            }
        }
        self.answer_calls(false);
    }

    /// More of a message.
    pub(super) fn talks(&mut self, number: u32, now: Instant) {
        let Some(talker) = self.switchboard.talkers.get_mut(&number) else { return };
        if talker.read() {
            self.heard_out(number, now);
        }
    }

    /// Messages whose time is over count as far as they have come.
    pub(super) fn talk_tick(&mut self, now: Instant) {
        let over = self.switchboard.talkers.iter().filter(|(_, talker)| talker.until <= now);
        let over: Vec<u32> = over.map(|(number, _)| *number).collect();
        for number in over {
            self.heard_out(number, now);
        }
    }

    fn heard_out(&mut self, number: u32, now: Instant) {
        let Some(talker) = self.switchboard.talkers.remove(&number) else { return };
        self.answer_calls(true);
        let is_his = |guest| Vsock::of(&self.paths, guest).cid == talker.from;
        let his = self.consoles.iter().find(|(_, console)| is_his(&console.guest)).map(|(id, _)| *id);
        let Some(id) = his else { return };
        let mut heard = understand(&talker.said);
        heard.retain(|said| matches!(said, Heard::Ready | Heard::Beat | Heard::Status(_)));
        self.heard(id, heard, now);
    }

    /// With as many talkers as there may be, the next one waits.
    fn answer_calls(&self, answer: bool) {
        let full = self.switchboard.talkers.len() >= TALKERS;
        if let Some(listener) = &self.switchboard.listener
            && (answer || full)
        {
            let flags = if full { EventFlags::empty() } else { EventFlags::IN };
            // One that is not asked for is asked for again with the next message.
            let _ = epoll::modify(&self.epoll, listener, Token::Switchboard.data(), flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_message_is_read_to_its_end_and_no_further_than_its_bound() {
        let talker = || {
            let (guest, line) = UnixStream::pair().unwrap();
            line.set_nonblocking(true).unwrap();
            let (from, said, until) = (7, Vec::new(), Instant::now());
            (guest, Talker { from, line: line.into(), said, until })
        };
        let (mut guest, mut whole) = talker();
        guest.write_all(b"READY=1\nSTA").unwrap();
        assert!(!whole.read());
        guest.write_all(b"TUS=up\n").unwrap();
        drop(guest);
        assert!(whole.read());
        assert_eq!(understand(&whole.said), [Heard::Ready, Heard::Status("up".to_owned())]);
        let (mut guest, mut endless) = talker();
        guest.write_all(&[b'x'; 3 * DATAGRAM_BYTES]).unwrap();
        assert!(endless.read());
        assert!(endless.said.len() < DATAGRAM_BYTES + 512);
    }

    #[test]
    fn a_listener_is_opened_where_the_kernel_has_one() {
        let port = 0x4000_0000 + std::process::id();
        match Switchboard::open(port) {
            Ok(_listener) => assert!(Switchboard::open(port).is_err(), "twice"),
            Err(e) => eprintln!("skipped: {e:#}"),
        }
    }
}

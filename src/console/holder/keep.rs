//! Terminals kept by the service manager: systemd holds a copy of each master (sd_notify(3), FDSTORE), and hands them to the
//! next holder (sd_listen_fds(3)). Where pidfd_getfd(2) is forbidden, consoles survive the holder's end so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

use crate::console::record::RunRecord;
use crate::names::GuestName;

/// sd_listen_fds(3).
const FIRST_FD: RawFd = 3;

/// Terminals that were handed down and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<String, OwnedFd>);

/// A run of a guest, as a name that the service manager takes.
fn name(guest: &GuestName, record: &RunRecord) -> String {
    format!("{guest}.{}.{}", record.pid, record.start_ticks)
}

impl Kept {
    /// What the service manager has handed to this process. To be called once, and before anything else opens a descriptor.
    pub(super) fn receive() -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let found = parse(
            &variable("LISTEN_PID"),
            &variable("LISTEN_FDS"),
            &variable("LISTEN_FDNAMES"),
            std::process::id(),
        );
        Self(found.into_iter().filter_map(|(name, fd)| Some((name, adopt(fd)?))).collect())
    }

    /// The terminal of this run, if it is there.
    pub(super) fn take(&mut self, guest: &GuestName, record: &RunRecord) -> Option<OwnedFd> {
        self.0.remove(&name(guest, record))
    }

    /// Lets go of what nobody has taken: those guests have ended.
    pub(super) fn forget_rest(&mut self) {
        for name in std::mem::take(&mut self.0).into_keys() {
            tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        }
    }
}

/// Has the service manager keep a copy, if there is one.
pub(super) fn keep(guest: &GuestName, record: &RunRecord, master: BorrowedFd<'_>) {
    // Without FDPOLL=0 it would drop a terminal that nobody has open for a moment.
    tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", name(guest, record)), Some(master));
}

/// The guest has ended.
pub(super) fn forget(guest: &GuestName, record: &RunRecord) {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={}", name(guest, record)), None);
}

/// A manager that does not hear costs no console as long as this process lives.
fn tell(message: &str, fd: Option<BorrowedFd<'_>>) {
    if let Err(e) = notify(message, fd) {
        eprintln!("ignoring: telling the service manager: {e:#}");
    }
}

/// sd_notify(3), if there is somebody to tell.
pub(super) fn notify(message: &str, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = address_of(&address).context("understanding $NOTIFY_SOCKET")?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let message = [IoSlice::new(message.as_bytes())];
    sendmsg_addr(socket.as_fd(), &address, &message, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn address_of(text: &OsStr) -> Result<SocketAddrUnix> {
    Ok(match text.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(text)?,
    })
}

/// Names and numbers of the descriptors, if they are for this process.
fn parse(pid: &str, count: &str, names: &str, own_pid: u32) -> Vec<(String, RawFd)> {
    let count = match (pid.parse::<u32>(), count.parse::<RawFd>()) {
        (Ok(pid), Ok(count)) if pid == own_pid => count,
        _ => return Vec::new(),
    };
    names
        .split(':')
        .zip(FIRST_FD..FIRST_FD.saturating_add(count))
        .map(|(name, fd)| (name.to_owned(), fd))
        .collect()
}

/// `None` if there is no such descriptor.
#[expect(unsafe_code, reason = "inherited descriptors are known by their numbers alone")]
fn adopt(fd: RawFd) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the service manager opened it for this process and nothing else here knows it; `receive` is called once. One
    // that is not open fails in fcntl(2) and is not taken.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, as the call before has shown, and owned by nobody yet.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn descriptors_are_taken_by_name_and_only_if_they_are_ours() {
        let found = parse("42", "2", "ce.7.70:se.8.80", 42);
        assert_eq!(found, [("ce.7.70".to_owned(), 3), ("se.8.80".to_owned(), 4)]);
        assert_eq!(parse("43", "2", "ce.7.70:se.8.80", 42), []);
        assert_eq!(parse("42", "", "", 42), []);
        assert_eq!(parse("42", "1", "ce.7.70:more.1.1", 42), [("ce.7.70".to_owned(), 3)]);
    }

    proptest! {
        #[test]
        fn any_environment_is_understood_or_ignored(pid in "[0-9]{0,3}", count in "-?[0-9]{0,12}", names in "\\PC{0,40}") {
            prop_assert!(parse(&pid, &count, &names, 42).len() <= names.split(':').count());
        }
    }
}

//! The line between a process and the service manager that started it: sd_notify(3), and descriptors that are kept for the
//! next process of the unit (sd_pid_notify_with_fds(3), sd_listen_fds(3)).

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::PipeFlags;

/// The variables that all of this goes by; not for programs that a guest's process becomes.
pub const VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Lines such as `READY=1` or `STATUS=...`. Does nothing where no service manager listens.
pub fn tell(message: &str) -> Result<()> {
    send(message, None)
}

/// What is going on, for `systemctl status`. A manager that does not listen is no reason to stop.
pub fn status(text: &str) {
    let _ = tell(&format!("STATUS={}", text.replace('\n', " ")));
}

/// Has the descriptor kept under a name for the unit's next process.
pub fn store(name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    // Without FDPOLL=0 it would drop a terminal or tap that nobody has open for a moment.
    send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(fd))
        .with_context(|| format!("handing over '{name}'"))
}

/// No descriptor of that name is kept any more.
pub fn forget(name: &str) -> Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None)
}

/// Returns when the service manager has taken in all that was told before.
pub fn settle() -> Result<()> {
    /// It is the first process of the system, and busy at a boot.
    const LIMIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    send("BARRIER=1", Some(theirs.as_fd()))?;
    drop(theirs);
    match poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&LIMIT))? {
        0 => bail!("the service manager does not answer"),
        _ => Ok(()),
    }
}

fn send(message: &str, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let what = || format!("telling the service manager at '{socket}'");
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let ours = UnixDatagram::unbound().with_context(what)?;
    ours.connect_addr(&address.with_context(what)?).with_context(what)?;
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(&ours, &[IoSlice::new(message.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
        .with_context(what)?;
    Ok(())
}

/// Descriptors that were kept for this process, by name. To be called once, before anything else is opened.
pub fn received() -> BTreeMap<String, OwnedFd> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (pid, count, names) = (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    let found = parse(&pid, &count, &names, std::process::id());
    found.into_iter().filter_map(|(name, fd)| Some((name, take(fd)?))).collect()
}

/// Names and numbers of the descriptors, if they are for this process.
fn parse(pid: &str, count: &str, names: &str, own_pid: u32) -> Vec<(String, RawFd)> {
    /// SD_LISTEN_FDS_START.
    const FIRST: RawFd = 3;
    let count = match (pid.parse::<u32>(), count.parse::<RawFd>()) {
        (Ok(pid), Ok(count)) if pid == own_pid => count,
        _ => return Vec::new(),
    };
    let numbers = FIRST..FIRST.saturating_add(count);
    names.split(':').zip(numbers).map(|(name, fd)| (name.to_owned(), fd)).collect()
}

/// `None` if there is no such descriptor.
#[expect(unsafe_code, reason = "inherited descriptors are known by their numbers alone")]
fn take(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the service manager opened it for this process and nothing else here knows it; `received` is called once. One
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

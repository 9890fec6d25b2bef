//! Signals that ask for an end, read from a descriptor instead of cutting this process off.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// From its making to its end the calling thread (and those that it starts) hears of the signals here.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    mask: SigSet,
}

impl Signals {
    /// SIGINT, SIGTERM and SIGHUP.
    pub fn listen() -> Result<Self> {
        let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        mask.thread_block().context("blocking signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&mask, flags).context("listening for signals")?;
        Ok(Self { fd, mask })
    }

    /// The next one that has come, by its number.
    pub fn next(&self) -> Option<u8> {
        let signal = self.fd.read_signal().ok().flatten()?;
        u8::try_from(signal.ssi_signo).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // One that was not read yet is none of the next one's business.
        while self.next().is_some() {}
        let _ = self.mask.thread_unblock();
    }
}

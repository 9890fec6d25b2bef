//! The terminal that is a guest's console.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Winsize};

/// Both ends of it.
#[derive(Debug)]
pub struct Terminal {
    /// The console holder's.
    pub master: OwnedFd,
    /// The hypervisor's.
    pub slave: OwnedFd,
}

impl Terminal {
    /// A new one, 80 by 25.
    pub fn open() -> Result<Self> {
        let what = "making a terminal for its console";
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).context(what)?;
        rustix::pty::grantpt(&master).context(what)?;
        rustix::pty::unlockpt(&master).context(what)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(what)?;
        // The guest's own line discipline does the echoing; a second one would garble it.
        let mut mode = rustix::termios::tcgetattr(&slave).context(what)?;
        mode.make_raw();
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode).context(what)?;
        let size = Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context(what)?;
        Ok(Self { master, slave })
    }
}

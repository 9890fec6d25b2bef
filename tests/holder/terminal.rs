//! A user's terminal, with a command on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{self, Site, kill};

/// Its command is ended with it.
pub(crate) struct Terminal {
    screen: File,
    own: OwnedFd,
    pub(crate) client: Child,
}

impl Terminal {
    pub(crate) fn new(command: &mut Command, columns: u16, rows: u16) -> Self {
        let (master, slave) = support::terminal(OpenptFlags::CLOEXEC);
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let client = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { screen: master.into(), own: slave, client }
    }

    pub(crate) fn types(&mut self, bytes: &[u8]) {
        self.screen.write_all(bytes).unwrap();
    }

    /// What comes next; nothing if nothing comes in that time.
    pub(crate) fn read(&mut self, limit: Duration) -> Vec<u8> {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let mut buffer = vec![0; 4096];
        let n = match poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&limit)).unwrap() {
            0 => 0,
            _ => self.screen.read(&mut buffer).unwrap(),
        };
        buffer.truncate(n);
        buffer
    }

    /// Nobody else tells the client: the terminal is not its controlling one here.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.own, size(columns, rows)).unwrap();
        kill(self.client.id().cast_signed(), Signal::WINCH);
    }

    pub(crate) fn modes(&self) -> LocalModes {
        tcgetattr(&self.own).unwrap().local_modes
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn size(ws_col: u16, ws_row: u16) -> Winsize {
    Winsize { ws_col, ws_row, ws_xpixel: 0, ws_ypixel: 0 }
}

/// gridgate, for that site.
pub(crate) fn gridgate(site: &Site, args: &[&str]) -> Command {
    let mut command = Command::new(support::exe());
    command.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state).args(args);
    command
}

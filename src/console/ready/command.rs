//! A command of the site's own, run on the host in the site's network, again and again until it succeeds.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::probe::{Pace, Probe, Progress};
use crate::names::GuestName;

/// It may be anything, so that it gets time, and is not run more often than it takes to do something.
const PACE: Pace = Pace {
    patience: Duration::from_secs(30),
    retry: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    degraded: Duration::from_secs(30),
};

#[derive(Debug)]
pub(super) struct Script {
    line: String,
    guest: GuestName,
    address: Option<IpAddr>,
    netns: Option<PathBuf>,
    running: Option<(Child, OwnedFd)>,
}

impl Script {
    pub(super) fn new(
        line: String,
        guest: GuestName,
        address: Option<IpAddr>,
        netns: Option<PathBuf>,
    ) -> Self {
        Self { line, guest, address, netns, running: None }
    }
}

impl Probe for Script {
    /// A session of its own, so that all of it can be ended; it ends with the thread that started it.
    #[expect(
        unsafe_code,
        reason = "session, signals and namespace of a child can only be set between fork and exec"
    )]
    fn begin(&mut self) -> Result<Progress> {
        self.give_up();
        let what = || format!("running '{}'", self.line);
        let netns = self.netns.as_ref().map(std::fs::File::open).transpose().with_context(what)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &self.line]).env("GUEST", self.guest.as_str()).current_dir("/");
        command.env("ADDRESS", self.address.map(|ip| ip.to_string()).unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: these are system calls and nothing else, all async-signal-safe; nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                if let Some(netns) = &netns {
                    nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                }
                Ok(SigSet::empty().thread_set_mask()?)
            });
        }
        let child = command.spawn().with_context(what)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).with_context(what)?;
        self.running = Some((child, pidfd));
        Ok(Progress::Pending)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|(_, pidfd)| pidfd.as_fd())
    }

    fn event(&mut self) -> Progress {
        let Some((child, _)) = &mut self.running else { return Progress::Failed };
        match child.try_wait() {
            Ok(None) => Progress::Pending,
            Ok(Some(status)) => {
                self.running = None;
                if status.success() { Progress::Seen } else { Progress::Failed }
            }
            Err(_) => {
                self.give_up();
                Progress::Failed
            }
        }
    }

    fn give_up(&mut self) {
        let Some((mut child, _)) = self.running.take() else { return };
        // It leads its session's group; what left that ends with itself.
        let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
        // The kernel may need a while to end it, and nobody here may wait for that.
        let wait = std::thread::Builder::new().stack_size(16 << 10).spawn(move || child.wait());
        drop(wait);
    }

    fn pace(&self) -> Pace {
        PACE
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.give_up();
    }
}

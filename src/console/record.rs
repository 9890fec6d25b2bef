//! What is written down about a running guest, and about the end of one.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::site::ReadyCheck;
use crate::console::moment::Moment;
use crate::console::{exit, now_ms};
use crate::host::Live;
use crate::host::files::Files;
use crate::names::GuestName;
use crate::paths::Paths;

pub use crate::console::exit::{Cause, EndedBy, ExitRecord, write_exit};

/// Which process runs a guest (`run.json`). Written by the launcher before it asks the holder to adopt the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The process that is, or is about to become, the hypervisor.
    pub pid: i32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`. A process keeps it through execve(2), and
    /// no other process with the same number has it.
    pub start_ticks: u64,
    /// The host's `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `qemu`, `uml` or `nspawn`.
    pub backend: String,
    /// The pty master's number inside that process.
    pub console_fd: i32,
    /// Network namespace that the guest's addresses are in; the host's own if none.
    pub netns: Option<PathBuf>,
    /// Milliseconds since 1970.
    pub launched_at_ms: u64,
}

impl RunRecord {
    /// A record of the calling process, launched now.
    pub fn of_this_process(backend: &str, console_fd: i32, netns: Option<PathBuf>) -> Result<Self> {
        Self::of_process(std::process::id().cast_signed(), backend, console_fd, netns)
    }

    /// A record of a process that was launched just now.
    pub fn of_process(pid: i32, backend: &str, console_fd: i32, netns: Option<PathBuf>) -> Result<Self> {
        let start_ticks =
            start_ticks(pid).with_context(|| format!("finding the start time of process {pid}"))?;
        let boot_id = boot_id()?;
        Ok(Self {
            pid,
            start_ticks,
            boot_id,
            backend: backend.to_owned(),
            console_fd,
            netns,
            launched_at_ms: now_ms(),
        })
    }

    /// The guest's record; `None` if it was not launched or its end was already noticed.
    pub fn read(paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        read_json(&paths.run_record(guest))
    }

    /// Replaces the guest's record; one that outlives the host's boot is kept beside its disk.
    pub fn write(&self, paths: &Paths, guest: &GuestName) -> Result<()> {
        exit::note_power_cut(paths, guest)?;
        write_json(&paths.last_run(guest), self)?;
        write_json(&paths.run_record(guest), self)
    }

    /// Whether there is a record of the guest whose process still runs; one that cannot be read counts as none.
    pub fn is_running(paths: &Paths, guest: &GuestName) -> bool {
        Self::read(paths, guest).is_ok_and(|run| run.is_some_and(|run| run.is_alive()))
    }

    /// When it was launched. The process is as old as the launch: it became the hypervisor, or is just about to.
    pub fn launched(&self) -> Moment {
        Moment::of_ticks(self.launched_at_ms, self.start_ticks)
    }

    /// Whether that very process still runs; one that has ended but was not yet waited for does not.
    pub fn is_alive(&self) -> bool {
        if boot_id().is_ok_and(|id| id == self.boot_id)
            && let Some(pidfd) =
                Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        {
            return start_ticks(self.pid) == Some(self.start_ticks) && !has_ended(&pidfd);
        }
        false
    }
}

/// Whether a process has ended: its pidfd is readable then (pidfd_open(2)). `/proc` is no guide: it shows a process whose first
/// thread has ended, or is being replaced in execve(2), as a zombie.
pub(crate) fn has_ended(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(n) if n > 0)
}

/// Start time of a process in clock ticks since boot; also of one that has ended and was not yet waited for.
pub fn start_ticks(pid: i32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in field 2 may contain spaces and parentheses, so that fields count from its last one, see proc_pid_stat(5).
fn parse_stat(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The host's `/proc/sys/kernel/random/boot_id`: another one after each boot.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).with_context(|| format!("reading '{path}'"))?;
    Ok(id.trim().to_owned())
}

/// Whether a new console holder could take guests' terminals over from the processes that run them (pidfd_getfd(2)), tried
/// on this very process. Some containers' system call filters forbid it; a holder that is killed there takes the consoles
/// of running guests with it, though not the guests.
pub fn can_take_over() -> Result<()> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use std::os::fd::AsRawFd;
    let what = "taking a descriptor from a process (pidfd_getfd)";
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context(what)?;
    pidfd_getfd(&own, own.as_raw_fd(), PidfdGetfdFlags::empty()).map(drop).context(what)
}

/// How far a guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyState {
    /// Not everything has been seen yet.
    Waiting,
    /// Everything has been seen.
    Ready,
    /// The time for it is over, and not everything has been seen. It may still become ready.
    Degraded,
}

/// A check and when it was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// What was looked for.
    pub check: ReadyCheck,
    /// Milliseconds since 1970; none as long as it has not been seen.
    pub at_ms: Option<u64>,
}

/// `ready.json`: valid as long as the process in it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyRecord {
    /// How far the guest has come.
    pub state: ReadyState,
    /// When it got into that state, in milliseconds since 1970.
    pub at_ms: u64,
    /// The same, counted from the beginning of this boot.
    pub after_ms: u64,
    /// When this boot began: the launch, or the last reboot.
    #[serde(default)]
    pub began_at_ms: u64,
    /// The same, in milliseconds since the host's boot.
    #[serde(default)]
    pub began_up_ms: Option<u64>,
    /// When it first was ready in this boot; none if it never was.
    #[serde(default)]
    pub ready_at_ms: Option<u64>,
    /// The same, in milliseconds since the host's boot.
    #[serde(default)]
    pub ready_up_ms: Option<u64>,
    /// What the guest itself last said of its state, in a few words.
    #[serde(default)]
    pub said: Option<String>,
    /// Why its console's log cannot be written; none if it can.
    #[serde(default)]
    pub log_trouble: Option<String>,
    /// As in [`RunRecord`].
    pub pid: i32,
    /// As in [`RunRecord`].
    pub start_ticks: u64,
    /// In the order in which they were asked for.
    pub checks: Vec<CheckRecord>,
}

impl ReadyRecord {
    /// When it first was ready in this boot.
    pub fn ready(&self) -> Option<Moment> {
        Some(Moment { at_ms: self.ready_at_ms?, up_ms: self.ready_up_ms? })
    }

    /// The guest's record; `None` if it is not running.
    pub fn read(paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        read_json(&paths.ready_record(guest))
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = Live.read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("understanding '{}'", path.display()))
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).with_context(|| format!("writing '{}'", path.display()))?;
    bytes.push(b'\n');
    Live.write(path, &bytes, 0o640)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_process_with_an_odd_name_has_a_start_time() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(parse_stat(stat), Some(987_654));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_with_its_number_is_not() {
        let mut record = RunRecord::of_this_process("uml", 3, None).unwrap();
        assert!(record.is_alive());
        record.start_ticks += 1;
        assert!(!record.is_alive());
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        let own = RunRecord::of_this_process("uml", 3, None).unwrap();
        let record = RunRecord { pid, start_ticks: start_ticks(pid).unwrap(), ..own };
        assert!(!record.is_alive());
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn any_stat_line_is_read_or_refused(text in ".{0,200}") {
            let _ = parse_stat(&text);
        }
    }
}

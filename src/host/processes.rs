//! What /proc tells of processes (proc_pid_stat(5)), and what a pidfd does of one that has ended.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// A process's lines of accounting that gridgate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// Processor time used, in clock ticks (100 a second on every Linux that matters; sysconf(3) `_SC_CLK_TCK`).
    pub cpu_ticks: u64,
    /// Memory in use, in pages, shared ones included.
    pub resident_pages: u64,
}

/// All processes of a session, its leader included.
pub fn in_session(session: i32) -> Vec<i32> {
    all().filter(|stat| stat.session == session).map(|stat| stat.pid).collect()
}

/// Descriptors of the processes that this one started and that still run.
pub fn children(parent: i32) -> Vec<OwnedFd> {
    let children: Vec<i32> = all().filter(|stat| stat.parent == parent).map(|stat| stat.pid).collect();
    let opened = children.into_iter().filter_map(|pid| open_child(pid, parent));
    opened.collect()
}

/// A descriptor of that process, if it is a child of the other one.
pub fn open_child(pid: i32, parent: i32) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The number may have come round to another process before it was opened; after this look it cannot.
    let stat = parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    (stat.parent == parent).then_some(process)
}

/// Ends (SIGKILL) all that is left of a session, and these processes.
pub fn end(session: i32, others: &[OwnedFd]) {
    for process in others {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    for pid in in_session(session) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A process and all that came from it, among those that were seen.
pub fn family(seen: &[Stat], first: i32) -> Vec<Stat> {
    let mut family: Vec<Stat> = seen.iter().filter(|stat| stat.pid == first).copied().collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).map(|stat| stat.pid) {
        family.extend(seen.iter().filter(|stat| stat.parent == parent && stat.pid != parent));
        at += 1;
    }
    family
}

/// All processes that can be seen.
pub fn all() -> impl Iterator<Item = Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    })
}

/// The wait status of a process that has ended and was waited for by somebody else, if this kernel keeps it (since Linux
/// 6.15: `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, linux/pidfd.h). Waits a moment for that somebody.
#[expect(unsafe_code, reason = "there is no safe wrapper for this ioctl yet")]
pub fn exit_status(pidfd: impl AsFd) -> Option<i32> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    /// The first version of `struct pidfd_info` (`PIDFD_INFO_SIZE_VER0`).
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ids: [u32; 8],
        exit_code: i32,
    }
    const EXIT: u64 = 1 << 3;
    nix::ioctl_readwrite!(get_info, 0xff, 11, Info);
    // A process that only has ended is readable; one that was waited for has hung up.
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::empty())], Some(&limit));
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel reads and writes as many bytes as the request's number says, which is made from this very type.
    let told = unsafe { get_info(pidfd.as_fd().as_raw_fd(), &raw mut info) };
    (told.is_ok() && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// The name in field 2 may contain anything, so that fields count from its last parenthesis.
fn parse(pid: i32, stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        parent: fields.get(4 - 3)?.parse().ok()?,
        session: fields.get(6 - 3)?.parse().ok()?,
        cpu_ticks: field(14)? + field(15)?,
        resident_pages: field(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_is_in_its_own_session() {
        let pid = std::process::id() as i32;
        let ours = all().find(|stat| stat.pid == pid).unwrap();
        assert!(in_session(ours.session).contains(&pid));
        assert!(ours.resident_pages > 0);
    }

    #[test]
    fn a_name_with_parentheses_is_passed_over() {
        let line = "7 (a) b) S 1 7 5 0 -1 0 0 0 0 0 11 22 0 0 20 0 1 0 99 4096 33 0";
        assert_eq!(
            parse(7, line),
            Some(Stat { pid: 7, parent: 1, session: 5, cpu_ticks: 33, resident_pages: 33 })
        );
    }

    #[test]
    fn a_family_is_a_process_and_all_that_came_from_it() {
        let stat = |pid, parent| Stat { pid, parent, session: 1, cpu_ticks: 1, resident_pages: 1 };
        let seen = [stat(1, 0), stat(5, 1), stat(7, 5), stat(8, 7), stat(9, 1)];
        let pids: Vec<i32> = family(&seen, 5).iter().map(|stat| stat.pid).collect();
        assert_eq!(pids, [5, 7, 8]);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(text in ".{0,200}") {
            let _ = parse(1, &text);
        }
    }
}

//! The way in: everything that a child process does between fork(2) and execve(2).
//!
//! What can be prepared before is, since between the two a process may do nothing that needs memory or locks.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result as IoResult};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::libc;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;
use seccompiler::BpfProgram;

use super::Sandbox;
use super::filter;
use super::group::Group;
use crate::host::root::Root;

/// Devices that every program expects and that lead nowhere.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev` that shells use.
const LINKS: [(&core::ffi::CStr, &core::ffi::CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// What it takes to write files for others and to become them (capabilities(7)).
const KEPT: [u32; 7] = [
    0, // CAP_CHOWN
    1, // CAP_DAC_OVERRIDE
    3, // CAP_FOWNER
    4, // CAP_FSETID
    5, // CAP_KILL
    6, // CAP_SETGID
    7, // CAP_SETUID
];

/// Larger files are not written by a compiler of profiles.
const LARGEST_FILE: u64 = 1 << 30;

/// All that the child needs.
pub(super) struct Entrance {
    /// The guest's tree: a copy of its mount, or the one mount that nobody else has.
    tree: OwnedFd,
    /// Each device's own mount and the path where it goes.
    devices: Vec<(OwnedFd, CString)>,
    /// Paths that stay writable, if the rest does not.
    writable: Option<Vec<CString>>,
    /// Control groups to enter.
    groups: Vec<File>,
    filters: Vec<BpfProgram>,
    limits: Vec<(Resource, u64)>,
    namespaces: UnshareFlags,
}

impl Entrance {
    pub(super) fn prepare(sandbox: &Sandbox, root: &Root, group: Option<&Group>) -> Result<Self> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = match open_tree(root.as_fd(), c"", flags) {
            Ok(tree) => tree,
            // Kernels before 6.15 do not copy a mount that is attached nowhere; but it can be attached, once.
            Err(_) => root.as_fd().try_clone_to_owned()?,
        };
        let mut devices = Vec::new();
        for name in DEVICES {
            let path = CString::new(format!("/dev/{name}"))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            // Where there is no terminal there may be no /dev/tty.
            if let Ok(device) = open_tree(CWD, &path, flags) {
                devices.push((device, path));
            }
        }
        let paths = |paths: &Vec<String>| {
            paths.iter().map(|path| CString::new(path.as_str())).collect::<Result<_, _>>()
        };
        let mut namespaces =
            UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        if !sandbox.network {
            namespaces |= UnshareFlags::NEWNET;
        }
        let mut limits = vec![
            (Resource::Core, 0),
            (Resource::Fsize, LARGEST_FILE),
            (Resource::Nofile, 1024),
            (Resource::Cpu, sandbox.time.as_secs() + 1),
        ];
        if !group.is_some_and(|group| group.limits_memory) {
            limits.push((Resource::As, sandbox.memory_bytes));
        }
        let groups = group.map(|group| group.entrances.iter().map(File::try_clone).collect::<IoResult<_>>());
        Ok(Self {
            tree,
            devices,
            writable: sandbox.writable.as_ref().map(paths).transpose().context("a path holds a zero byte")?,
            groups: groups.transpose()?.unwrap_or_default(),
            filters: filter::programs()?,
            limits,
            namespaces,
        })
    }

    #[expect(unsafe_code, reason = "namespaces can only be entered between fork and exec")]
    pub(super) fn install(self, command: &mut Command) {
        // SAFETY: the closure makes system calls and touches memory that was made before the fork; it neither allocates nor
        // takes locks.
        unsafe {
            command.pre_exec(move || self.enter());
        }
    }

    /// In the child. Returns in a child of its own, which is process 1 of its namespace; the child itself stays behind as the
    /// keeper and ends when that does.
    fn enter(&self) -> IoResult<()> {
        die_with_parent()?;
        for group in &self.groups {
            told("entering a control group", rustix::io::write(group, b"0"))?;
        }
        told("leaving the terminal", rustix::process::setsid())?;
        told("making namespaces", unshare(self.namespaces))?;
        told("starting a process", self.leave_a_keeper())?;
        die_with_parent()?;
        self.build()?;
        for (resource, most) in &self.limits {
            let limit = Rlimit { current: Some(*most), maximum: Some(*most) };
            told("limiting resources", rustix::process::setrlimit(*resource, limit))?;
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        told("dropping capabilities", drop_capabilities())?;
        told("closing files", close_on_exec())?;
        for filter in &self.filters {
            if seccompiler::apply_filter(filter).is_err() {
                say(b"filtering system calls\n");
                return Err(Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Makes the guest's tree the root of all that can be seen.
    fn build(&self) -> IoResult<()> {
        told(
            "making mounts private",
            mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
        )?;
        // Any directory that is there on every host; nobody but this process sees what is put on it.
        const AT: &core::ffi::CStr = c"/proc";
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        told("attaching the guest's tree", move_mount(&self.tree, c"", CWD, AT, flags))?;
        told("entering the guest's tree", rustix::process::chdir(AT))?;
        // A copy tells the mount that it was made of, and pivot_root(2) takes no such mount for a root: under systemd
        // every directory of the host is on one.
        told(
            "making the guest's tree private",
            mount_change(c".", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
        )?;
        told("changing the root", rustix::process::pivot_root(c".", c"."))?;
        told("leaving the host's tree", unmount(c".", UnmountFlags::DETACH))?;
        told("entering the guest's root", rustix::process::chdir(c"/"))?;
        let tree = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        let locked = if self.writable.is_some() { tree | MountFlags::RDONLY } else { tree };
        for path in self.writable.iter().flatten() {
            told("keeping a path writable", mount_bind(path.as_c_str(), path.as_c_str()))?;
        }
        told("setting the mount's flags", mount_remount(c"/", locked, c""))?;
        for path in self.writable.iter().flatten() {
            told("keeping a path writable", mount_remount(path.as_c_str(), tree, c""))?;
        }
        let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
        told(
            "making /dev (has the guest such a directory?)",
            mount(c"tmpfs", c"/dev", c"tmpfs", quiet, c"mode=755,size=64k"),
        )?;
        for (device, path) in &self.devices {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            told("making a device", rustix::fs::open(path.as_c_str(), flags, mode))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            told("making a device", move_mount(device, c"", CWD, path.as_c_str(), flags))?;
        }
        for (target, path) in LINKS {
            told("making a link", rustix::fs::symlink(target, path))?;
        }
        // What is left there goes with it. A guest without these directories does without.
        for path in [c"/tmp", c"/run"] {
            let _ = mount(
                c"tmpfs",
                path,
                c"tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV,
                c"mode=1777,size=64m",
            );
        }
        // Only processes are shown, and nothing of the kernel's (proc(5), subset; since 5.8). A guest without /proc does
        // without.
        let _ =
            mount(c"proc", c"/proc", c"proc", quiet | MountFlags::NODEV | MountFlags::RDONLY, c"subset=pid");
        Ok(())
    }

    #[expect(unsafe_code, reason = "only a child is in a new process namespace")]
    fn leave_a_keeper(&self) -> IoResult<()> {
        // SAFETY: this process has one thread, that of the fork before; what follows in parent and child are system calls.
        match unsafe { libc::fork() } {
            -1 => Err(Error::last_os_error()),
            0 => Ok(()),
            child => {
                let mut status = 0;
                // SAFETY: close_range(2) takes numbers alone, waitpid(2) writes to the number that lives here, and _exit(2)
                // ends this process without running anything of it.
                unsafe {
                    // Whoever waits for the program's start waits until nobody holds that pipe.
                    libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
                    while libc::waitpid(child, &raw mut status, 0) == -1
                        && Error::last_os_error().raw_os_error() == Some(libc::EINTR)
                    {}
                    let code = match libc::WIFSIGNALED(status) {
                        true => 128 + libc::WTERMSIG(status),
                        false => libc::WEXITSTATUS(status),
                    };
                    libc::_exit(code)
                }
            }
        }
    }
}

fn die_with_parent() -> IoResult<()> {
    told("dying with the parent", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))
}

#[expect(unsafe_code, reason = "unshare is unsafe for file descriptors, which are not unshared here")]
fn unshare(flags: UnshareFlags) -> IoResult<()> {
    // SAFETY: the flags hold none that unshares the table of file descriptors.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Everything but the three standard streams ends with execve(2); until then an error can still be told.
#[expect(unsafe_code, reason = "there is no safe wrapper for this call")]
fn close_on_exec() -> IoResult<()> {
    // SAFETY: it takes numbers alone, and only marks descriptors.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct` of linux/capability.h.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

#[expect(unsafe_code, reason = "capabilities have no safe wrapper that takes no memory")]
fn drop_capabilities() -> IoResult<()> {
    for capability in (0..64).filter(|capability| !KEPT.contains(capability)) {
        // SAFETY: prctl(2) takes numbers alone here.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            // EINVAL says that the kernel knows no further capability.
            match Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) => break,
                error => return Err(error),
            }
        }
    }
    let kept = KEPT.iter().fold(0u32, |set, capability| set | 1 << capability);
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let low = CapData { effective: kept, permitted: kept, inheritable: 0 };
    let data = [low, CapData { effective: 0, permitted: 0, inheritable: 0 }];
    // SAFETY: the kernel reads one header and two sets of data, which live across the call.
    let set = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr())
    };
    if set == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Says which step failed: all that the parent is told is the number of the error.
fn told<T, E: Into<Error>>(step: &'static str, result: std::result::Result<T, E>) -> IoResult<T> {
    result.map_err(|error| {
        say(step.as_bytes());
        error.into()
    })
}

#[expect(unsafe_code, reason = "the stream that the parent reads")]
fn say(text: &[u8]) {
    // SAFETY: the descriptor is open as long as this process lives.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = rustix::io::write(stderr.as_fd(), text);
    debug_assert_eq!(stderr.as_raw_fd(), 2);
}

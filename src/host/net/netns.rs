//! Network namespaces: a file that one is bound to, as `ip netns` does it, or only an open descriptor.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags};

use super::links;
use crate::host::programs::Program;

/// `NSFS_MAGIC` of linux/magic.h: the filesystem that namespaces are files of.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The namespace of the calling thread; `/proc/self` would be the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Does something in a network namespace, on a thread of its own, so that the caller never leaves its own namespace,
/// whatever happens. Files under `/proc/sys/net`, sockets and started programs are the namespace's. With `None` it is
/// done where the caller is.
pub fn in_netns<T: Send>(ns: Option<&Path>, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(path) = ns else { return act() };
    let ns = open(path)?;
    on_a_thread(move || {
        setns(&ns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace '{}'", path.display()))?;
        act()
    })
}

/// Becomes a program, in a network namespace if one is given: on success nothing of this process is left, and the
/// program's exit status is its own. Returns only with the reason why that failed. Call it on the main thread.
pub fn become_program(ns: Option<&Path>, program: &Program) -> Error {
    let enter = || -> Result<()> {
        let Some(path) = ns else { return Ok(()) };
        setns(open(path)?, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace '{}'", path.display()))
    };
    match enter() {
        Err(e) => e,
        Ok(()) => Error::from(program.command().exec()).context(format!("running '{}'", program.typed())),
    }
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let what = || format!("opening the network namespace '{}'", path.display());
    let file =
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let file = file.with_context(what)?;
    let is_ns = rustix::fs::fstatfs(&file).with_context(what)?.f_type == NSFS_MAGIC;
    anyhow::ensure!(is_ns, "{}: it is a plain file", what());
    Ok(file)
}

pub(super) fn exists(path: &Path) -> Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(fs) => Ok(fs.f_type == NSFS_MAGIC),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("looking at '{}'", path.display())),
    }
}

pub(super) fn make(path: &Path) -> Result<()> {
    if exists(path)? {
        return Ok(());
    }
    let bind = || -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making directory '{}'", dir.display()))?;
        }
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o444).open(path)?;
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            links::set_up(None, "lo")?;
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
    };
    let made = bind().with_context(|| format!("making the network namespace '{}'", path.display()));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    made
}

pub(super) fn remove(path: &Path) -> Result<()> {
    let what = || format!("removing the network namespace '{}'", path.display());
    // Each turn takes one mount off; two commands that raced may have put two there.
    while exists(path)? {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(what),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(what),
        _ => Ok(()),
    }
}

pub(super) fn fresh() -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        links::set_up(None, "lo")?;
        Ok(File::open(OWN)?.into())
    };
    on_a_thread(make).context("making a network namespace")
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

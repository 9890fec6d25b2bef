//! What a user cannot reach because a directory on the way is closed, shown to one process of his all the same.
//!
//! In a mount namespace of the calling process, a tmpfs takes the place of each closed directory, and only what is meant to
//! be reached stands in it. Permissions of the things themselves are as they were.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;

use super::users;

/// Makes these paths, with all that is below them, reachable for the user in this process and its children. Nothing is done
/// if they are already. The process must have a single thread.
pub fn open_for(uid: u32, wanted: &[PathBuf]) -> Result<()> {
    let mut closed: BTreeSet<PathBuf> = BTreeSet::new();
    for path in wanted {
        closed.extend(users::barrier(path, uid)?);
    }
    if closed.is_empty() {
        return Ok(());
    }
    let what = || format!("showing user {uid} what he is to run");
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mut trees: Vec<(OwnedFd, bool, &Path)> = Vec::new();
    for path in wanted.iter().filter(|path| path.exists()) {
        let tree = rustix::mount::open_tree(CWD, path, flags).with_context(what)?;
        trees.push((tree, path.is_dir(), path));
    }
    #[expect(unsafe_code, reason = "unshare is unsafe for file descriptors, which are not unshared here")]
    // SAFETY: only the mount namespace is unshared; the caller has a single thread and keeps its descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.with_context(what)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).with_context(what)?;
    for dir in &closed {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", dir, "tmpfs", flags, Some(c"mode=0755,size=1M"))
            .with_context(|| format!("mounting over '{}'", dir.display()))
            .with_context(what)?;
    }
    for (tree, is_dir, path) in trees {
        place(&tree, is_dir, path)
            .with_context(|| format!("putting '{}' into its place", path.display()))
            .with_context(what)?;
    }
    Ok(())
}

fn place(tree: &OwnedFd, is_dir: bool, path: &Path) -> Result<()> {
    if !path.exists() {
        let parent = path.parent().context("it has no parent directory")?;
        std::fs::create_dir_all(parent)?;
        match is_dir {
            true => std::fs::create_dir(path)?,
            false => drop(std::fs::File::create(path)?),
        }
    }
    Ok(rustix::mount::move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

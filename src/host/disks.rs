//! Disks of guests and directories of images: made under another name, and there all at once or not at all.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, RenameFlags, SeekFrom};
use rustix::io::Errno;

use super::files::Files;
use super::temporary::Maker;
use crate::names::Bytes;
use crate::progress::Progress;

/// How a clone was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneHow {
    /// The filesystem shares the blocks until one side is written to.
    Reflink,
    /// The data was copied, holes left out.
    Copied {
        /// Bytes copied.
        bytes: u64,
    },
}

/// What gridgate asks of the host for disks and images.
pub trait Disks {
    /// Makes `to` a copy of `from` with `size` bytes, readable by its owner alone; beyond the end of `from` it is a hole.
    /// It is written under a temporary name in the same directory, which must exist, and renamed; an error leaves
    /// nothing. Temporary files of killed clones in that directory are removed first.
    ///
    /// The data is not forced out to the disk, which would take as long again: a killed process leaves a whole clone or
    /// none, a power cut within the kernel's write-back time (half a minute) may leave one with blocks missing. Whoever
    /// records that the disk is finished calls for that first.
    fn clone_file(&self, from: &Path, to: &Path, size: u64, progress: &Progress) -> Result<CloneHow>;

    /// Returns when the file's content is on stable storage (fsync(2)).
    fn sync_file(&self, path: &Path) -> Result<()>;

    /// Makes the directory `from` known as `to`. If `to` is a directory already, the two change names in one step, so
    /// that at any time a whole one has the name; the old one is then at `from`.
    fn publish_dir(&self, from: &Path, to: &Path) -> Result<()>;

    /// What killed commands left in a directory: entries named by a [`Maker`] that no longer runs.
    fn abandoned(&self, dir: &Path) -> Result<Vec<PathBuf>>;
}

impl Disks for super::Live {
    fn clone_file(&self, from: &Path, to: &Path, size: u64, progress: &Progress) -> Result<CloneHow> {
        clone(self, from, to, size, progress)
            .with_context(|| format!("cloning '{}' to '{}'", from.display(), to.display()))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let sync = || File::open(path)?.sync_all();
        sync().with_context(|| format!("writing '{}' to stable storage", path.display()))
    }

    fn publish_dir(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = |flags| rustix::fs::renameat_with(CWD, from, CWD, to, flags);
        rename(RenameFlags::NOREPLACE)
            .or_else(|e| if e == Errno::EXIST { rename(RenameFlags::EXCHANGE) } else { Err(e) })
            .with_context(|| format!("renaming '{}' to '{}'", from.display(), to.display()))?;
        to.parent().map_or(Ok(()), |dir| self.sync_file(dir))
    }

    fn abandoned(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let dead = |name: &String| Maker::of(name).is_some_and(|(_, maker)| !maker.is_alive());
        Ok(self.list(dir)?.into_iter().filter(dead).map(|name| dir.join(name)).collect())
    }
}

fn clone(host: &super::Live, from: &Path, to: &Path, size: u64, progress: &Progress) -> Result<CloneHow> {
    let source = File::open(from).with_context(|| format!("opening '{}'", from.display()))?;
    let found = source.metadata()?;
    if !found.is_file() {
        bail!("'{}' is not a regular file", from.display());
    }
    if size < found.len() {
        bail!("a disk of {} cannot hold an image of {}", Bytes(size), Bytes(found.len()));
    }
    let dir = to.parent().context("the target has no directory")?;
    let name = to.file_name().context("the target has no name")?.to_string_lossy();
    for path in host.abandoned(dir)? {
        host.remove(&path)?;
    }
    let temporary = Temporary(dir.join(Maker::this().name(&name)));
    let mut options = OpenOptions::new();
    let target = options.write(true).create_new(true).mode(0o600).open(&temporary.0);
    let target = target.with_context(|| format!("making '{}'", temporary.0.display()))?;
    let how = match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => {
            if size != found.len() {
                target.set_len(size)?;
            }
            CloneHow::Reflink
        }
        // Another filesystem, or one that cannot share blocks (ioctl_ficlone(2)).
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            let needed = found.blocks() * 512;
            let no_space = |free: u64| {
                let (dir, needed, free) = (dir.display(), Bytes(needed), Bytes(free));
                anyhow!("not enough space in '{dir}': {needed} are needed, {free} are free")
            };
            let free = host.free_bytes(dir)?;
            if free < needed {
                return Err(no_space(free));
            }
            target.set_len(size)?;
            match copy_data(&source, &target, found.len(), progress) {
                // Somebody else was faster.
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(no_space(host.free_bytes(dir)?)),
                Err(Errno::CANCELED) => bail!("interrupted"),
                other => CloneHow::Copied { bytes: other? },
            }
        }
        Err(e) => return Err(e.into()),
    };
    drop(target);
    fs::rename(&temporary.0, to)?;
    std::mem::forget(temporary);
    Ok(how)
}

/// A file that is removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // The error that led here is the one to tell; `abandoned` finds what stays.
        let _ = fs::remove_file(&self.0);
    }
}

/// How much is asked of the kernel at once: enough to keep the number of calls small, little enough for progress and a
/// quick end on Ctrl-C.
const CHUNK: u64 = 16 << 20;

fn copy_data(source: &File, target: &File, len: u64, progress: &Progress) -> rustix::io::Result<u64> {
    let meter = progress.meter("cloning", Some(len));
    let mut copied = 0;
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start))?.min(len);
        at = start;
        while at < end {
            if crate::progress::interrupted() {
                return Err(Errno::CANCELED);
            }
            let wanted = (end - at).min(CHUNK) as usize;
            let (mut from, mut to) = (at, at);
            let n = match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted)
            {
                // Two kinds of filesystem, or a kernel that will not copy between them (copy_file_range(2)).
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    read_write(source, target, at, wanted)?
                }
                other => other?,
            };
            if n == 0 {
                // The image became shorter while it was read.
                return Err(Errno::IO);
            }
            start_writing(target, at, n);
            at += n as u64;
            copied += n as u64;
            meter.set(at);
        }
    }
    Ok(copied)
}

/// Asks the kernel to begin writing out what was written, and does not wait: whoever syncs the file next does (the kernel syncs
/// one that becomes a loop device), and would otherwise wait for all of it at once.
#[expect(unsafe_code, reason = "neither nix nor rustix has sync_file_range")]
pub fn start_writing(target: &File, at: u64, len: usize) {
    use nix::libc::{SYNC_FILE_RANGE_WRITE, off64_t, sync_file_range};
    // SAFETY: the call takes numbers and an open descriptor only. What it cannot begin now is written later all the same.
    unsafe { sync_file_range(target.as_raw_fd(), at as off64_t, len as off64_t, SYNC_FILE_RANGE_WRITE) };
}

fn read_write(source: &File, target: &File, at: u64, wanted: usize) -> rustix::io::Result<usize> {
    let mut buffer = vec![0; wanted.min(1 << 20)];
    let n = rustix::io::pread(source, &mut buffer, at)?;
    let mut done = 0;
    while done < n {
        done += rustix::io::pwrite(target, &buffer[done..n], at + done as u64)?;
    }
    Ok(n)
}

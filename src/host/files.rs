//! gridgate's own files on the host. (Files of a guest are another matter: [`super::root`].)

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::temporary::Maker;

/// What gridgate asks of the host's filesystem.
pub trait Files {
    /// The whole file; `None` if there is none.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// Replaces the file as a whole: written under a temporary name, synced, renamed. The directory is made (0755).
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()>;
    /// Makes a directory and its parents; the last one gets the mode. Done already is fine.
    fn make_dir(&self, path: &Path, mode: u32) -> Result<()>;
    /// Moves a file or directory; the target, if a file, is replaced at once.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes a symbolic link; its directory is made (0755). A name that is taken is an error.
    fn link(&self, path: &Path, target: &Path) -> Result<()>;
    /// What a symbolic link leads to; `None` if there is none.
    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>>;
    /// Removes a file or a whole tree, not following links. Gone already is fine.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Names in a directory, sorted; none if there is no directory.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// What is at the path, itself, not what it links to.
    fn stat(&self, path: &Path) -> Result<Option<Stat>>;
    /// Free bytes for the caller on the filesystem that holds the path or its nearest existing parent.
    fn free_bytes(&self, path: &Path) -> Result<u64>;
    /// Takes an exclusive lock (flock) on a file, which is made if need be; waits for at most the limit. It is given
    /// back when the guard is dropped, or by the kernel if the process dies.
    fn lock(&self, path: &Path, limit: Duration) -> Result<LockGuard>;
}

/// What gridgate wants to know about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes.
    pub len: u64,
    /// Bytes that it takes up (less than the length if it is sparse).
    pub allocated: u64,
}

/// Tells this process's temporary files apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Holds a lock until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    file: Option<fs::File>,
}

impl LockGuard {
    /// A guard that holds nothing, for a machine that is only modelled.
    pub fn none() -> Self {
        Self { file: None }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Closing is not enough (flock(2)): a child that another thread has forked, and that has not yet become a program, has
        // the descriptor too. What fails here is as good as closed.
        if let Some(file) = &self.file {
            let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
        }
    }
}

impl Files for super::Live {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading '{}'", path.display())),
        }
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let write = || -> Result<()> {
            let dir = path.parent().context("it has no parent directory")?;
            self.make_dir_if_missing(dir)?;
            let name = path.file_name().context("it has no file name")?.to_string_lossy();
            // Two threads may write the same file; each then writes a whole one, and the last one stays.
            let number = WRITES.fetch_add(1, Ordering::Relaxed);
            let temporary = dir.join(Maker::this().name(&format!("{name}.{number}")));
            let result = (|| -> Result<()> {
                let mut options = fs::OpenOptions::new();
                let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.write_all(content)?;
                file.sync_data()?;
                Ok(fs::rename(&temporary, path)?)
            })();
            if result.is_err() {
                // The first error is the one to tell.
                let _ = fs::remove_file(&temporary);
            }
            result
        };
        write().with_context(|| format!("writing '{}'", path.display()))
    }

    fn make_dir(&self, path: &Path, mode: u32) -> Result<()> {
        let make = || -> std::io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        };
        make().with_context(|| format!("making directory '{}'", path.display()))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).with_context(|| format!("renaming '{}' to '{}'", from.display(), to.display()))
    }

    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            self.make_dir_if_missing(dir)?;
        }
        std::os::unix::fs::symlink(target, path)
            .with_context(|| format!("linking '{}' to '{}'", path.display(), target.display()))
    }

    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>> {
        match fs::read_link(path) {
            Ok(target) => Ok(Some(target)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(e) => Err(e).with_context(|| format!("looking at '{}'", path.display())),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        let removed = match fs::symlink_metadata(path) {
            Err(e) if gone(&e) => return Ok(()),
            Err(e) => Err(e),
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
        };
        match removed {
            Err(e) if !gone(&e) => Err(e).with_context(|| format!("removing '{}'", path.display())),
            _ => Ok(()),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let read = || -> std::io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        match read() {
            Ok(names) => Ok(names),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(|| format!("listing '{}'", path.display())),
        }
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => {
                Ok(Some(Stat { is_dir: meta.is_dir(), len: meta.len(), allocated: meta.blocks() * 512 }))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("looking at '{}'", path.display())),
        }
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        let mut at = path;
        loop {
            match rustix::fs::statvfs(at) {
                Ok(vfs) => return Ok(vfs.f_bavail * vfs.f_frsize),
                Err(rustix::io::Errno::NOENT) => match at.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => at = parent,
                    _ => bail!("looking for free space at '{}': no such path", path.display()),
                },
                Err(e) => {
                    return Err(e).with_context(|| format!("looking for free space at '{}'", at.display()));
                }
            }
        }
    }

    fn lock(&self, path: &Path, limit: Duration) -> Result<LockGuard> {
        if let Some(dir) = path.parent() {
            self.make_dir_if_missing(dir)?;
        }
        let what = || format!("locking '{}'", path.display());
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.with_context(what)?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(LockGuard { file: Some(file) }),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < limit => {
                    // flock has no time limit of its own, and an alarm would be the whole process's.
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    bail!(
                        "locking '{}': another gridgate command is at work here; hint: try again when it has ended",
                        path.display()
                    )
                }
                Err(e) => return Err(e).with_context(what),
            }
        }
    }
}

impl super::Live {
    fn make_dir_if_missing(&self, dir: &Path) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .with_context(|| format!("making directory '{}'", dir.display()))
    }
}

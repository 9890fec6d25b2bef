//! A guest's filesystem, held by its root directory, that nothing inside it can lead out of.
//!
//! A guest's filesystem is hostile input: its administrator may have put symbolic links, device nodes, fifos or huge
//! files wherever gridgate is going to read or write. Every path is resolved by the kernel as if this directory were
//! `/` (openat2(2), `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`), files are opened only after they
//! are known to be regular, and what is replaced is replaced as a directory entry, never written through.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

mod beside;
pub mod exact;
pub mod seen;
pub mod look;
mod label;
mod owner;
mod volume_label;
mod remove;
mod write;

/// Larger files are never read from a guest: nothing that gridgate reads there is near it.
pub const LARGEST_READ: u64 = 4 << 20;

/// A directory that stands for `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    label: PathBuf,
    /// Whether it is a filesystem of its own, mounted for this.
    is_volume: bool,
}

/// What is at a path inside the root; the path's own entry, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file, with its permission bits.
    File {
        /// Permission bits, set-id bits included.
        mode: u32,
        /// Length in bytes.
        len: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link and where it points.
    Link(PathBuf),
    /// A device, fifo or socket.
    Special,
}

/// What a name in a directory stands for; links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, fifo or socket.
    Special,
}

impl From<FileType> for Kind {
    fn from(found: FileType) -> Self {
        match found {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Link,
            _ => Self::Special,
        }
    }
}

/// Whether an edit changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there already, to the letter.
    Same,
    /// It is there now.
    Changed,
}

/// How a file is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// A file that is there keeps its mode; a new one gets this.
    KeepOr(u32),
    /// The mode is part of what is asked for (keys).
    Exactly(u32),
}

impl Root {
    /// Opens a directory of the host as a root. The path itself is resolved as usual.
    pub fn open(dir: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty());
        let fd = fd.with_context(|| format!("opening the tree '{}'", dir.display()))?;
        Ok(Self { fd, label: dir.to_owned(), is_volume: false })
    }

    /// The top of a filesystem that was mounted for this, and is attached nowhere; `label` names it in messages.
    pub fn from_fd(fd: OwnedFd, label: &Path) -> Self {
        Self { fd, label: label.to_owned(), is_volume: true }
    }

    /// The root directory itself.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn what(&self, doing: &str, path: &Path) -> String {
        format!("{doing} '{}' in '{}'", path.display(), self.label.display())
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let inside = inside(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        // EAGAIN: something was renamed meanwhile and the kernel could not vouch for the result (openat2(2)).
        for _ in 0..16 {
            match rustix::fs::openat2(&self.fd, inside, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory that holds the path's last component, and that component. Missing directories are made if asked.
    fn parent<'p>(&self, path: &'p Path, make: bool) -> Result<Option<(OwnedFd, &'p OsStr)>> {
        let name = path.file_name().with_context(|| self.what("looking at", path))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(dir, flags) {
            Ok(fd) => Ok(Some((fd, name))),
            Err(Errno::NOENT) if make => {
                self.make_dir(dir, 0o755)?;
                let fd = self.resolve(dir, flags).with_context(|| self.what("opening", dir))?;
                Ok(Some((fd, name)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) if !make => Ok(None),
            Err(e) => Err(e).with_context(|| self.what("opening", dir)),
        }
    }

    /// What is at the path; `None` if nothing is.
    pub fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(None) };
        let what = || self.what("looking at", path);
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).with_context(what),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Entry::File { mode: stat.st_mode & 0o7777, len: stat.st_size as u64 },
            FileType::Directory => Entry::Dir,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dir, name, Vec::new()).with_context(what)?;
                Entry::Link(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
            }
            _ => Entry::Special,
        }))
    }

    /// When what is at the path was last written (seconds since 1970); links not followed. `None` if nothing is there.
    pub fn modified(&self, path: &Path) -> Result<Option<i64>> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(None) };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_mtime)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| self.what("looking at", path)),
        }
    }

    /// A regular file's content, links followed inside the root; `None` if there is no such file. Anything but a
    /// regular file, or one over [`LARGEST_READ`], is an error.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let what = || self.what("reading", path);
        let handle = match self.resolve(path, OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e).with_context(what),
        };
        read_regular(&handle).with_context(what).map(Some)
    }

    /// A regular file of any size, for reading; links are not followed where it stands itself.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        let what = || self.what("opening", path);
        let (dir, name) = self.parent(path, false)?.with_context(what)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&dir, name, flags, Mode::empty()).with_context(what)?;
        reopen_regular(&handle).with_context(what)
    }

    /// Names in a directory, sorted; none if there is no directory.
    pub fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        self.names(path, &mut |name, _| {
            names.push(PathBuf::from(name));
            true
        })?;
        names.sort();
        Ok(names)
    }

    /// What is in a directory, one by one, in no order, until `each` has enough and gives `false`; nothing if there is no
    /// directory. However much there is, only one name is held.
    pub fn names(&self, path: &Path, each: &mut dyn FnMut(&OsStr, Kind) -> bool) -> Result<()> {
        let what = || self.what("listing", path);
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(e) => return Err(e).with_context(what),
        };
        for entry in rustix::fs::Dir::read_from(&fd).with_context(what)? {
            let entry = entry.with_context(what)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            // Some filesystems do not say it here (readdir(3)).
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(e) => return Err(e).with_context(what),
                    }
                }
                known => known,
            };
            if !each(OsStr::from_bytes(name), kind.into()) {
                break;
            }
        }
        Ok(())
    }
}

/// `/etc/hosts` and `etc/hosts` name the same file inside a root, and an empty path the root itself.
fn inside(path: &Path) -> &Path {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() { Path::new(".") } else { relative }
}

/// Opening by name again could meet another file; this opens the very one that was looked at.
fn reopen_regular(handle: &OwnedFd) -> Result<File> {
    if FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode) != FileType::RegularFile {
        bail!("it is not a regular file");
    }
    Ok(File::open(format!("/proc/self/fd/{}", handle.as_raw_fd()))?)
}

fn read_regular(handle: &OwnedFd) -> Result<Vec<u8>> {
    let file = reopen_regular(handle)?;
    let stat = rustix::fs::fstat(handle)?;
    if stat.st_size as u64 > LARGEST_READ {
        bail!("it has {} bytes, which is more than is ever read from a guest", stat.st_size);
    }
    let mut content = Vec::with_capacity(stat.st_size as usize);
    file.take(LARGEST_READ).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests;

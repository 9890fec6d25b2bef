//! All that a filesystem says about one thing in it. No link is followed anywhere, and nothing is opened but files and directories.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::Root;

/// What is known of a thing, but its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its type and permission bits, as stat(2) has them.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length.
    pub len: u64,
    /// Which device it stands for, if it is one: major and minor number.
    pub device: (u32, u32),
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Filesystem and number of the inode: names of one file have the same.
    pub inode: (u64, u64),
    /// How many names it has.
    pub names: u64,
    /// Extended attributes, sorted.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// All its flags; 0 where there are none.
    pub flags: u32,
    /// Where it leads, if it is a symbolic link.
    pub target: Vec<u8>,
}

impl Seen {
    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// For what is known to be a regular file or a directory.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Root {
    /// What is at the path, which is relative and may be empty; `None` if nothing is. Of a regular
    /// file or directory also a handle to read it.
    pub fn seen(&self, path: &Path) -> Result<Option<(Seen, Option<File>)>> {
        let what = || self.what("looking at", path);
        if path.as_os_str().is_empty() {
            let dir = self.beneath(self.as_fd(), Path::new("."), READ | OFlags::DIRECTORY);
            let dir = File::from(dir.with_context(what)?);
            return Ok(Some((of_open(&dir).with_context(what)?, Some(dir))));
        }
        let Some((dir, name)) = self.place_if_there(path)? else { return Ok(None) };
        self.seen_as(dir.as_fd(), name, path)
    }

    /// As [`Root::seen`], where the directory that it is in is open: what is in one is looked at without a walk from the top.
    pub fn seen_in(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<Option<(Seen, Option<File>)>> {
        let name = path.file_name().with_context(|| self.what("looking at", path))?;
        self.seen_as(dir, name, path)
    }

    fn seen_as(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<(Seen, Option<File>)>> {
        let what = || self.what("looking at", path);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).with_context(what),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            let file = File::from(self.beneath(dir, Path::new(name), READ).with_context(what)?);
            let seen = of_open(&file).with_context(what)?;
            anyhow::ensure!(seen.kind() == kind, "{}: it changed meanwhile", what());
            return Ok(Some((seen, Some(file))));
        }
        let target = match kind {
            FileType::Symlink => {
                rustix::fs::readlinkat(dir, name, Vec::new()).with_context(what)?.into_bytes()
            }
            _ => Vec::new(),
        };
        // The directory is the one that is open, and the name in it is not followed.
        let at: PathBuf = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let attributes = attributes(&|list| rustix::fs::llistxattr(&at, list), &|key, value| {
            rustix::fs::lgetxattr(&at, key, value)
        });
        Ok(Some((Seen { target, ..seen(&stat, attributes.with_context(what)?, 0) }, None)))
    }
}

impl Root {
    /// The regular file at the path, open, and what stat(2) says of it; `None` if there is none. Costs less than [`Root::seen`].
    pub fn regular(&self, path: &Path) -> Result<Option<(rustix::fs::Stat, File)>> {
        let what = || self.what("opening", path);
        let Some((dir, name)) = self.place_if_there(path)? else { return Ok(None) };
        // A device is not opened even to see that it is one.
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e).with_context(what),
        }
        let file = File::from(self.beneath(dir.as_fd(), Path::new(name), READ).with_context(what)?);
        let stat = rustix::fs::fstat(&file).with_context(what)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then_some((stat, file)))
    }
}

fn of_open(file: &File) -> Result<Seen> {
    let attributes = attributes(&|list| rustix::fs::flistxattr(file, list), &|key, value| {
        rustix::fs::fgetxattr(file, key, value)
    })?;
    let flags = match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => flags.bits(),
        // Filesystems without flags.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => 0,
        Err(e) => return Err(e.into()),
    };
    Ok(seen(&rustix::fs::fstat(file)?, attributes, flags))
}

fn seen(stat: &rustix::fs::Stat, attributes: Vec<(Vec<u8>, Vec<u8>)>, flags: u32) -> Seen {
    Seen {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        len: stat.st_size as u64,
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        inode: (stat.st_dev, stat.st_ino),
        names: stat.st_nlink,
        attributes,
        flags,
        target: Vec::new(),
    }
}

/// XFS shows access lists once more under names of its own (`fs/xfs/libxfs/xfs_attr.h`).
const ACCESS_LISTS_OF_XFS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

type List<'a> = &'a dyn Fn(&mut [u8]) -> rustix::io::Result<usize>;
type Get<'a> = &'a dyn Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>;

fn attributes(list: List<'_>, get: Get<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match whole(list) {
        // Most things have none.
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    for name in names.filter(|name| !ACCESS_LISTS_OF_XFS.contains(name)) {
        let key = OsStr::from_bytes(name);
        let value = whole(&|value| get(key, value));
        let value = value.with_context(|| format!("reading '{}'", name.escape_ascii()))?;
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// What the kernel gives at most (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of linux/limits.h).
const LARGEST: usize = 64 << 10;

/// Most lists are empty and most values short.
fn whole(ask: &dyn Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut few = [0; 256];
    match ask(&mut few) {
        Err(Errno::RANGE) => {}
        other => return Ok(few[..other?].to_vec()),
    }
    let mut bytes = vec![0; LARGEST];
    let len = ask(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

//! What puts files, links and directories into a guest's filesystem.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Change, Entry, FileMode, Root, beside, inside, read_regular};

/// The kernel's own bound for one value and for the list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LARGEST_XATTR: usize = 65536;

impl Root {
    /// Makes a directory and its parents inside the root. Links on the way are followed inside the root.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<Change> {
        let what = || self.what("making directory", path);
        let mut at = PathBuf::new();
        let mut change = Change::Same;
        for part in inside(path).components() {
            let parent = at.clone();
            at.push(part);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            match self.resolve(&at, flags) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e).with_context(what),
            }
            let dir = self.resolve(&parent, flags).with_context(what)?;
            match rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(mode)) {
                Ok(()) => {
                    let fd = rustix::fs::openat(
                        &dir,
                        part.as_os_str(),
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    );
                    // mkdirat(2) takes the umask off.
                    rustix::fs::fchmod(fd.with_context(what)?, Mode::from_raw_mode(mode))
                        .with_context(what)?;
                    change = Change::Changed;
                }
                Err(Errno::EXIST) => bail!("{}: a link or file is in the way", what()),
                Err(e) => return Err(e).with_context(what),
            }
        }
        Ok(change)
    }

    /// Puts a regular file with this content at the path. What was there (a file, a link, a device) is replaced as a
    /// directory entry, at once; a directory is refused. A file that was there hands on its owner, extended
    /// attributes and, unless told otherwise, its mode. If all is as asked already, nothing is touched, not even times.
    pub fn write(&self, path: &Path, content: &[u8], mode: FileMode) -> Result<Change> {
        let what = || self.what("writing", path);
        let (dir, name) = self.parent(path, true)?.with_context(what)?;
        let old = match rustix::fs::openat(
            &dir,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(fd) => Some(fd),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(e).with_context(what),
        };
        let mut inherit = None;
        let mut bits = match mode {
            FileMode::KeepOr(bits) | FileMode::Exactly(bits) => bits,
        };
        if let Some(old) = &old {
            let stat = rustix::fs::fstat(old).with_context(what)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => bail!("{}: a directory is in the way", what()),
                FileType::RegularFile => {
                    if matches!(mode, FileMode::KeepOr(_)) {
                        bits = stat.st_mode & 0o7777;
                    }
                    let same_mode = stat.st_mode & 0o7777 == bits;
                    let same_len = stat.st_size as u64 == content.len() as u64;
                    if same_mode && same_len && read_regular(old).with_context(what)? == content {
                        return Ok(Change::Same);
                    }
                    inherit = Some((old, stat));
                }
                _ => {}
            }
        }
        self.replace_entry(&dir, name, inherit, bits, &mut |file| Ok(file.write_all(content)?))
            .with_context(what)?;
        Ok(Change::Changed)
    }

    /// Puts what `work` writes in the place of a regular file, of any size: it is handed the old file, and a new one that has its
    /// owner, mode and extended attributes. If nothing changes, the old one stays.
    pub fn replace(
        &self,
        path: &Path,
        work: &mut dyn FnMut(&File, &mut File) -> Result<Change>,
    ) -> Result<Change> {
        let what = || self.what("replacing", path);
        let (dir, name) = self.parent(path, false)?.with_context(what)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = rustix::fs::openat(&dir, name, flags, Mode::empty()).with_context(what)?;
        let stat = rustix::fs::fstat(&old).with_context(what)?;
        let file = super::reopen_regular(&old).with_context(what)?;
        let bits = stat.st_mode & 0o7777;
        let mut same = false;
        let done = self.replace_entry(&dir, name, Some((&old, stat)), bits, &mut |new| {
            same = work(&file, new)? == Change::Same;
            // Nothing has to be put in its place; the error goes no further than this.
            if same { bail!("nothing changes") } else { Ok(()) }
        });
        if same {
            return Ok(Change::Same);
        }
        done.with_context(what)?;
        Ok(Change::Changed)
    }

    /// Makes a file beside an entry, lets it be filled, and gives it the entry's name.
    fn replace_entry(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        inherit: Option<(&OwnedFd, rustix::fs::Stat)>,
        bits: u32,
        fill: &mut dyn FnMut(&mut File) -> Result<()>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, temporary) =
            beside::make(dir, |name| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)))?;
        let mut file = File::from(file);
        let mut finish = || -> Result<()> {
            if let Some((old, stat)) = &inherit {
                let uid = rustix::fs::Uid::from_raw(stat.st_uid);
                let gid = rustix::fs::Gid::from_raw(stat.st_gid);
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                copy_xattrs(old, &file)?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(bits))?;
            fill(&mut file)?;
            Ok(rustix::fs::renameat(dir, temporary.as_str(), dir, name)?)
        };
        let finished = finish();
        if finished.is_err() {
            beside::take_away(dir, &temporary);
        }
        finished
    }

    /// Puts a symbolic link at the path; the target is text for the guest and is not looked at.
    pub fn link(&self, path: &Path, target: &Path) -> Result<Change> {
        match self.entry(path)? {
            Some(Entry::Link(now)) if now == target => return Ok(Change::Same),
            Some(Entry::Dir) => bail!("{}: a directory is in the way", self.what("linking", path)),
            Some(_) => {
                self.remove(path)?;
            }
            None => {}
        }
        let what = || self.what("linking", path);
        let (dir, name) = self.parent(path, true)?.with_context(what)?;
        rustix::fs::symlinkat(target, &dir, name).with_context(what)?;
        Ok(Change::Changed)
    }

    /// Sets both times of a file to a moment (seconds since 1970), as far as the entry itself goes.
    pub fn set_times(&self, path: &Path, seconds: i64) -> Result<()> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(()) };
        let moment = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: moment, last_modification: moment };
        let set = rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        set.with_context(|| self.what("setting the times of", path))
    }
}

fn copy_xattrs(from: &OwnedFd, to: &File) -> Result<()> {
    let from = File::open(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    let mut names = vec![0u8; LARGEST_XATTR];
    let size = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Ok(size) => size,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut value = vec![0u8; LARGEST_XATTR];
    for name in names[..size].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = OsStr::from_bytes(name);
        let size = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..size], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

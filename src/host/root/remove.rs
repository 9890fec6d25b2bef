//! What takes entries out of a guest's filesystem: always the entry itself, never what a link leads to.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Change, Root};

/// Directories below one another that are held open at a time; a deeper one is moved up first. A guest may nest them
/// thousands deep, where neither descriptors nor the stack would last.
const DEEPEST: usize = 24;

/// A directory is read again until nothing is left, since entries may be passed over while others are removed. Only a
/// tree that somebody fills at the same time needs as many.
const PASSES: usize = 64;

impl Root {
    /// Removes a file, link or special file (the entry itself); a directory is refused. Gone already is fine.
    pub fn remove(&self, path: &Path) -> Result<Change> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(Change::Same) };
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => Ok(Change::Changed),
            Err(Errno::NOENT) => Ok(Change::Same),
            Err(e) => Err(explained(e, &dir, name)).with_context(|| self.what("removing", path)),
        }
    }

    /// Removes whatever is at the path, a directory with all that is in it. Links are removed, never followed; a directory
    /// on which something is mounted is refused when it is met. Gone already is fine. Memory does not grow with the tree.
    pub fn remove_tree(&self, path: &Path) -> Result<Change> {
        let what = || self.what("removing", path);
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(Change::Same) };
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => return Ok(Change::Changed),
            Err(Errno::NOENT) => return Ok(Change::Same),
            Err(Errno::ISDIR) => {}
            Err(e) => return Err(explained(e, &dir, name)).with_context(what),
        }
        let top = child(&dir, name).with_context(what)?;
        Emptying::new(&top).all().with_context(what)?;
        let removed = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
        removed.map_err(|e| explained(e, &dir, name)).with_context(what)?;
        Ok(Change::Changed)
    }

    /// Removes all that is in a directory, as [`Root::remove_tree`] does; the directory itself stays as it is. If a link or
    /// file is there, or nothing, nothing is done.
    pub fn clear(&self, path: &Path) -> Result<Change> {
        let what = || self.what("clearing", path);
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(Change::Same) };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(Change::Same),
            Err(e) => return Err(e).with_context(what),
        }
        let top = child(&dir, name).with_context(what)?;
        Emptying::new(&top).all().with_context(what)
    }
}

/// A directory inside another, neither through a link nor onto another filesystem.
fn child(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => bail!("another filesystem is mounted on '{}'", Path::new(name).display()),
        opened => Ok(opened?),
    }
}

/// The error as it is, or what is behind "operation not permitted".
fn explained(error: Errno, dir: &OwnedFd, name: &OsStr) -> Error {
    let name_is = |flags: OFlags| {
        let again = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | flags;
        rustix::fs::openat(dir, name, again, Mode::empty()).ok()
    };
    let opened = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => name_is(OFlags::empty()),
            FileType::Directory => name_is(OFlags::DIRECTORY),
            _ => None,
        },
        Err(_) => None,
    };
    let holder =
        rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let marked = |fd: &OwnedFd| {
        rustix::fs::ioctl_getflags(fd).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
    };
    let shown = Path::new(name).display();
    match error {
        Errno::PERM if opened.as_ref().is_some_and(marked) => {
            anyhow!("'{shown}' is marked immutable or append-only; hint: chattr -i -a takes the mark away")
        }
        Errno::PERM if holder.as_ref().is_ok_and(marked) => {
            anyhow!("the directory of '{shown}' is marked immutable; hint: chattr -i -a takes the mark away")
        }
        Errno::BUSY => anyhow!("something is mounted on '{shown}'"),
        _ => error.into(),
    }
}

/// A directory that is being emptied.
struct Emptying<'t> {
    top: &'t OwnedFd,
    /// Where it is at, below the top; for messages.
    at: PathBuf,
    moved: u64,
    change: Change,
}

impl<'t> Emptying<'t> {
    fn new(top: &'t OwnedFd) -> Self {
        Self { top, at: PathBuf::new(), moved: 0, change: Change::Same }
    }

    fn all(mut self) -> Result<Change> {
        let mut passes = 0;
        while passes < PASSES {
            let moved = self.moved;
            self.pass(self.top, 0)?;
            if moved == self.moved {
                if is_empty(self.top)? {
                    return Ok(self.change);
                }
                passes += 1;
            }
        }
        bail!("it fills as fast as it is emptied; hint: nothing else may work on the tree");
    }

    /// Removes what is seen when reading the directory once.
    fn pass(&mut self, dir: &OwnedFd, depth: usize) -> Result<()> {
        for entry in Dir::read_from(dir).with_context(|| self.here())? {
            let entry = entry.with_context(|| self.here())?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) => self.change = Change::Changed,
                Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => self.directory(dir, name, depth)?,
                Err(e) => return Err(explained(e, dir, name)).with_context(|| self.here()),
            }
        }
        Ok(())
    }

    fn directory(&mut self, dir: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
        self.change = Change::Changed;
        for _ in 0..PASSES {
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY | Errno::EXIST) if depth >= DEEPEST => return self.move_up(dir, name),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(explained(e, dir, name)).with_context(|| self.here()),
            }
            let inner = child(dir, name).with_context(|| self.here())?;
            self.at.push(name);
            self.pass(&inner, depth + 1)?;
            self.at.pop();
        }
        bail!("'{}' fills as fast as it is emptied", self.at.join(name).display());
    }

    /// The next pass over the top meets it there.
    fn move_up(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        loop {
            self.moved += 1;
            let free = OsString::from(format!(".gridgate-{}-{}", std::process::id(), self.moved));
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(dir, name, self.top, &free, flags) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(explained(e, dir, name)).with_context(|| self.here()),
            }
        }
    }

    fn here(&self) -> String {
        format!("emptying './{}'", self.at.display())
    }
}

fn is_empty(dir: &OwnedFd) -> Result<bool> {
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}

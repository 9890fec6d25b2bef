//! What makes things in a new filesystem exactly as they are told, down to the nanosecond.
//!
//! Unlike the other edits of a root, nothing is replaced, nothing is made on the way and no link is followed anywhere: what is
//! in the way is an error. Directories on the way have been made before.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Gid, IFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Root;

/// All that is set of a thing beside its content.
#[derive(Debug, Clone, Copy)]
pub struct Dress<'a> {
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds: when it was last written, and as when it was last read.
    pub modified: (i64, u32),
    /// Extended attributes by full name.
    pub attributes: &'a [(Vec<u8>, Vec<u8>)],
    /// Flags of chattr(1), files and directories alone; others of the thing stay as they are.
    pub flags: u32,
}

/// Something other than a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New<'a> {
    /// A directory for the owner alone, until it is dressed.
    Directory,
    /// A symbolic link and what it says.
    SymbolicLink(&'a [u8]),
    /// A character device.
    CharacterDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Whether the filesystem took the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flags {
    /// All that were asked for.
    Kept,
    /// It has no such flags.
    Unknown,
}

/// `FS_NOCOW_FL` of linux/fs.h, which is taken by empty files only.
const NO_COPY_ON_WRITE: u32 = 0x80_0000;
/// Longer paths are walked in steps: the kernel takes `PATH_MAX` bytes at once.
const STEP: usize = 4000;

/// Pieces of at least that length go to the device as they stand. Shorter ones are copied in less time than a device takes to
/// answer; 32, 64, 128 and 256 KiB made no difference that could be measured on a loop device.
const STRAIGHT: usize = 64 << 10;
/// What lengths and places have to be multiples of for that, with every device; of memory it is the sector (open(2), O_DIRECT).
const STRAIGHT_BLOCK: usize = 4096;
const STRAIGHT_MEMORY: usize = 512;

/// A regular file that is being written.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Whether it may be written past the kernel's cache.
    straight: bool,
}

impl Root {
    /// A new, empty file for the owner alone, that is to get those flags when it is done.
    pub fn new_file(&self, path: &Path, flags: u32) -> Result<NewFile> {
        let what = || self.what("making", path);
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = if path.as_os_str().len() < STEP {
            self.beneath(self.as_fd(), path, create).with_context(what)?
        } else {
            let (dir, name) = self.place(path)?;
            self.beneath(dir.as_fd(), Path::new(name), create).with_context(what)?
        };
        let file = File::from(fd);
        if flags & NO_COPY_ON_WRITE != 0 {
            // Whether it was taken is seen when all flags are set.
            let _ = set_flags(&file, NO_COPY_ON_WRITE, NO_COPY_ON_WRITE);
        }
        Ok(NewFile { file, straight: self.is_volume })
    }

    /// Something that is no regular file. A directory that is there and empty (`lost+found`) is fine.
    pub fn new_special(&self, path: &Path, new: New<'_>) -> Result<()> {
        let what = || self.what("making", path);
        let (dir, name) = self.place(path)?;
        let node = |kind, device| rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(0o600), device);
        let made = match new {
            New::Directory => match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    let there = self.beneath(dir.as_fd(), Path::new(name), flags).with_context(what)?;
                    let mut names = rustix::fs::Dir::new(there).with_context(what)?;
                    let empty = names.all(|entry| {
                        entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
                    });
                    if empty { Ok(()) } else { Err(Errno::EXIST) }
                }
                other => other,
            },
            New::SymbolicLink(target) => rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, name),
            New::CharacterDevice(major, minor) => {
                node(FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            New::BlockDevice(major, minor) => node(FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            New::Fifo => node(FileType::Fifo, 0),
            New::Socket => node(FileType::Socket, 0),
        };
        made.with_context(what)
    }

    /// Another name for what is at `of`, whatever it is but a directory.
    pub fn new_name(&self, path: &Path, of: &Path) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (of_dir, of_name) = self.place(of)?;
        rustix::fs::linkat(&of_dir, of_name, &dir, name, AtFlags::empty())
            .with_context(|| self.what("linking", path))
    }

    /// Takes a file away that was made and cannot be finished.
    pub fn take_back(&self, path: &Path) -> Result<()> {
        let (dir, name) = self.place(path)?;
        rustix::fs::unlinkat(&dir, name, AtFlags::empty()).with_context(|| self.what("removing", path))
    }

    /// Takes an empty directory of that name away, if there is one.
    pub fn take_back_dir(&self, path: &Path) -> Result<()> {
        let (dir, name) = self.place(path)?;
        match rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(e).with_context(|| self.what("removing", path)),
        }
    }

    /// Gives a directory its looks, when nothing more is going to be put into it; an empty path is the top.
    pub fn dress_dir(&self, path: &Path, dress: &Dress<'_>) -> Result<Flags> {
        let what = || self.what("setting the attributes of", path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = if path.as_os_str().is_empty() {
            self.beneath(self.as_fd(), Path::new("."), flags)
        } else {
            let (dir, name) = self.place(path)?;
            self.beneath(dir.as_fd(), Path::new(name), flags)
        };
        let dir = File::from(fd.with_context(what)?);
        dress_open(&dir, dress).with_context(what)?;
        set_all_flags(&dir, dress.flags).with_context(what)
    }

    /// Gives what [`Root::new_special`] made its looks; directories are [`Root::dress_dir`]'s.
    pub fn dress_special(&self, path: &Path, new: New<'_>, dress: &Dress<'_>) -> Result<()> {
        let what = || self.what("setting the attributes of", path);
        let (dir, name) = self.place(path)?;
        let (uid, gid) = (Uid::from_raw(dress.uid), Gid::from_raw(dress.gid));
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .with_context(what)?;
        // The directory is the one that is open, and the name in it is not followed.
        let at = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        for (key, value) in dress.attributes {
            rustix::fs::lsetxattr(&at, OsStr::from_bytes(key), value, rustix::fs::XattrFlags::empty())
                .with_context(|| format!("setting '{}'", String::from_utf8_lossy(key)))
                .with_context(what)?;
        }
        if !matches!(new, New::SymbolicLink(_)) {
            let mode = Mode::from_raw_mode(dress.mode);
            rustix::fs::chmodat(&dir, name, mode, AtFlags::empty()).with_context(what)?;
        }
        rustix::fs::utimensat(&dir, name, &times(dress), AtFlags::SYMLINK_NOFOLLOW).with_context(what)
    }

    /// Sets flags of a file that is there: those that would have kept other names of it from being made.
    pub fn flag_file(&self, path: &Path, flags: u32) -> Result<Flags> {
        let what = || self.what("setting the flags of", path);
        let (dir, name) = self.place(path)?;
        let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.beneath(dir.as_fd(), Path::new(name), open).with_context(what)?;
        set_all_flags(&File::from(file), flags).with_context(what)
    }

    pub(super) fn beneath(
        &self,
        dir: BorrowedFd<'_>,
        path: &Path,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
        loop {
            // The kernel could not vouch for the result, as something else was renamed meanwhile (openat2(2)).
            match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// The directory that a thing is in, and its name there.
    fn place<'p>(&self, path: &'p Path) -> Result<(Dir<'_>, &'p OsStr)> {
        let found = self.place_if_there(path)?;
        found.with_context(|| format!("{}: its directory is missing", self.what("making", path)))
    }

    /// As [`Root::place`]; `None` if a directory on the way is missing, or is none.
    pub(super) fn place_if_there<'p>(&self, path: &'p Path) -> Result<Option<(Dir<'_>, &'p OsStr)>> {
        let bytes = path.as_os_str().as_bytes();
        let (mut parents, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
            None => (&bytes[..0], bytes),
        };
        if matches!(name, b"" | b"." | b"..") || bytes.starts_with(b"/") || name.contains(&0) {
            bail!("'{}' is no path inside '{}'", path.display(), self.label.display());
        }
        let name = OsStr::from_bytes(name);
        if parents.is_empty() {
            return Ok(Some((Dir::Top(self), name)));
        }
        let what = || self.what("opening the directory of", path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let mut at: Option<OwnedFd> = None;
        while !parents.is_empty() {
            let end = match parents.len() > STEP {
                true => parents[..STEP].iter().rposition(|byte| *byte == b'/').with_context(what)?,
                false => parents.len(),
            };
            let from = at.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            let step = Path::new(OsStr::from_bytes(&parents[..end]));
            at = match self.beneath(from, step, flags) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                other => Some(other.with_context(what)?),
            };
            parents = parents.get(end + 1..).unwrap_or_default();
        }
        Ok(at.map(|fd| (Dir::Below(fd), name)))
    }
}

/// A directory that something is made in.
pub(super) enum Dir<'a> {
    Top(&'a Root),
    Below(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Top(root) => root.as_fd(),
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl AsRawFd for Dir<'_> {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl NewFile {
    /// Puts a piece of the content in its place. In a filesystem that was mounted for this a long piece goes to the device without
    /// staying in memory, where nobody is going to look for it: it would have to be copied there, and from there when all is written
    /// out in the end.
    pub fn write(&self, piece: &[u8], offset: u64) -> std::io::Result<()> {
        let gone = if self.straight { self.write_straight(piece, offset)? } else { 0 };
        self.file.write_all_at(&piece[gone..], offset + gone as u64)
    }

    /// How much of it is there; nothing where the piece or the filesystem is not made for that.
    fn write_straight(&self, piece: &[u8], offset: u64) -> std::io::Result<usize> {
        let whole = piece.len() / STRAIGHT_BLOCK * STRAIGHT_BLOCK;
        let is_placed = offset.is_multiple_of(STRAIGHT_BLOCK as u64)
            && piece.as_ptr().addr().is_multiple_of(STRAIGHT_MEMORY);
        if whole < STRAIGHT || !is_placed || rustix::fs::fcntl_setfl(&self.file, OFlags::DIRECT).is_err() {
            return Ok(0);
        }
        let mut gone = 0;
        while gone < whole && gone.is_multiple_of(STRAIGHT_BLOCK) {
            match rustix::io::pwrite(&self.file, &piece[gone..whole], offset + gone as u64) {
                Ok(0) | Err(Errno::INVAL | Errno::OPNOTSUPP) => break,
                Ok(written) => gone += written,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        rustix::fs::fcntl_setfl(&self.file, OFlags::empty())?;
        Ok(gone)
    }

    /// Gives the file its length, with a hole where nothing was written, and its looks, all but its flags.
    pub fn dress(&self, len: u64, dress: &Dress<'_>) -> Result<()> {
        if rustix::fs::fstat(&self.file)?.st_size as u64 != len {
            self.file.set_len(len)?;
        }
        dress_open(&self.file, dress)
    }

    /// Sets the flags, as the last thing.
    pub fn flag(&self, flags: u32) -> Result<Flags> {
        set_all_flags(&self.file, flags)
    }
}

fn times(dress: &Dress<'_>) -> Timestamps {
    let moment = Timespec { tv_sec: dress.modified.0, tv_nsec: i64::from(dress.modified.1) };
    Timestamps { last_access: moment, last_modification: moment }
}

/// The owner first, whose change takes set-id bits and capabilities away (chown(2)); the mode after an access list, which
/// changes the bits of the group, and to which they then are the same (acl(5)).
fn dress_open(file: &File, dress: &Dress<'_>) -> Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(dress.uid)), Some(Gid::from_raw(dress.gid)))?;
    for (key, value) in dress.attributes {
        rustix::fs::fsetxattr(file, OsStr::from_bytes(key), value, rustix::fs::XattrFlags::empty())
            .with_context(|| format!("setting '{}'", String::from_utf8_lossy(key)))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(dress.mode))?;
    Ok(rustix::fs::futimens(file, &times(dress))?)
}

fn set_all_flags(file: &File, flags: u32) -> Result<Flags> {
    if flags == 0 {
        return Ok(Flags::Kept);
    }
    match set_flags(file, flags, flags) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) => {
            // Those that it has are better than none: one after the other.
            for bit in (0..32).map(|n| 1 << n).filter(|bit| flags & bit != 0) {
                match set_flags(file, bit, bit) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Err(e) => return Err(e.into()),
    }
    let now = rustix::fs::ioctl_getflags(file).map_or(0, |flags| flags.bits());
    Ok(if now & flags == flags { Flags::Kept } else { Flags::Unknown })
}

fn set_flags(file: &File, mask: u32, flags: u32) -> rustix::io::Result<()> {
    let now = rustix::fs::ioctl_getflags(file)?.bits();
    rustix::fs::ioctl_setflags(file, IFlags::from_bits_retain(now & !mask | flags))
}

//! A guest's filesystem, held by its root directory, that nothing inside it can lead out of.
//!
//! A guest's filesystem is hostile input: its administrator may have put symbolic links, device nodes, fifos or huge
//! files wherever gridgate is going to read or write. Every path is resolved by the kernel as if this directory were
//! `/` (openat2(2), `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`), files are opened only after they
//! are known to be regular, and what is replaced is replaced as a directory entry, never written through.

mod owner;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// Larger files are never read from a guest: nothing that gridgate reads there is near it.
pub const LARGEST_READ: u64 = 4 << 20;

/// The kernel's own bound for one value and for the list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LARGEST_XATTR: usize = 65536;

/// A directory that stands for `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    label: PathBuf,
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
        Ok(Self { fd, label: dir.to_owned() })
    }

    /// A root that is held already, such as a mount that is attached nowhere; `label` names it in messages.
    pub fn from_fd(fd: OwnedFd, label: &Path) -> Self {
        Self { fd, label: label.to_owned() }
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

    /// Names in a directory, sorted; none if there is no directory.
    pub fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let what = || self.what("listing", path);
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(what),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd).with_context(what)? {
            let entry = entry.with_context(what)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(OsStr::from_bytes(name)));
            }
        }
        names.sort();
        Ok(names)
    }

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
        let temporary = format!(".gridgate-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // One that a killed run left behind: process numbers come round again.
        let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
        let file = rustix::fs::openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.with_context(what)?);
        let fill = || -> Result<()> {
            if let Some((old, stat)) = inherit {
                let uid = rustix::fs::Uid::from_raw(stat.st_uid);
                let gid = rustix::fs::Gid::from_raw(stat.st_gid);
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                copy_xattrs(old, &file)?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(bits))?;
            file.write_all(content)?;
            Ok(rustix::fs::renameat(&dir, temporary.as_str(), &dir, name)?)
        };
        let mut fill = fill;
        if let Err(e) = fill() {
            let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
            return Err(e).with_context(what);
        }
        Ok(Change::Changed)
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

    /// Removes a file, link or special file (the entry itself); a directory is refused. Gone already is fine.
    pub fn remove(&self, path: &Path) -> Result<Change> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(Change::Same) };
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => Ok(Change::Changed),
            Err(Errno::NOENT) => Ok(Change::Same),
            Err(e) => Err(e).with_context(|| self.what("removing", path)),
        }
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

/// `/etc/hosts` and `etc/hosts` name the same file inside a root, and an empty path the root itself.
fn inside(path: &Path) -> &Path {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() { Path::new(".") } else { relative }
}

fn read_regular(handle: &OwnedFd) -> Result<Vec<u8>> {
    let stat = rustix::fs::fstat(handle)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        bail!("it is not a regular file");
    }
    if stat.st_size as u64 > LARGEST_READ {
        bail!("it has {} bytes, which is more than is ever read from a guest", stat.st_size);
    }
    // Opening by name again could meet another file; this opens the very one that was looked at.
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let mut content = Vec::with_capacity(stat.st_size as usize);
    File::open(again)?.take(LARGEST_READ).read_to_end(&mut content)?;
    Ok(content)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn tree() -> (tempfile::TempDir, Root, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let inside = top.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(top.path().join("outside"), "host").unwrap();
        let root = Root::open(&inside).unwrap();
        (top, root, inside)
    }

    #[test]
    fn an_absolute_link_is_followed_inside_the_root_and_never_out_of_it() {
        let (top, root, dir) = tree();
        symlink(top.path().join("outside"), dir.join("etc/a")).unwrap();
        symlink("../../../../../../../../etc/passwd", dir.join("etc/b")).unwrap();
        std::fs::write(dir.join("etc/real"), "guest").unwrap();
        symlink("/etc/real", dir.join("etc/c")).unwrap();
        assert_eq!(root.read(Path::new("/etc/a")).unwrap(), None);
        assert_eq!(root.read(Path::new("/etc/b")).unwrap(), None);
        assert_eq!(root.read(Path::new("/etc/c")).unwrap().as_deref(), Some(&b"guest"[..]));
    }

    #[test]
    fn writing_replaces_a_link_instead_of_writing_through_it() {
        let (top, root, dir) = tree();
        symlink(top.path().join("outside"), dir.join("etc/hostname")).unwrap();
        root.write(Path::new("/etc/hostname"), b"ce\n", FileMode::KeepOr(0o644)).unwrap();
        assert_eq!(std::fs::read_to_string(top.path().join("outside")).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(dir.join("etc/hostname")).unwrap(), "ce\n");
        assert!(!dir.join("etc/hostname").is_symlink());
    }

    #[test]
    fn a_linked_directory_leads_nowhere_but_into_the_root() {
        let (top, root, dir) = tree();
        std::fs::create_dir(top.path().join("hostdir")).unwrap();
        symlink(top.path().join("hostdir"), dir.join("etc/ssh")).unwrap();
        let written = root.write(Path::new("/etc/ssh/key"), b"secret", FileMode::Exactly(0o600));
        assert!(written.is_err());
        assert!(!top.path().join("hostdir/key").exists());
    }

    #[test]
    fn a_fifo_or_device_is_refused_without_waiting() {
        let (_top, root, dir) = tree();
        nix::unistd::mkfifo(&dir.join("etc/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", root.read(Path::new("/etc/fifo")).unwrap_err());
        assert!(error.ends_with("it is not a regular file"), "{error}");
        assert_eq!(root.entry(Path::new("etc/fifo")).unwrap(), Some(Entry::Special));
        root.write(Path::new("/etc/fifo"), b"x", FileMode::KeepOr(0o644)).unwrap();
        assert_eq!(std::fs::read(dir.join("etc/fifo")).unwrap(), b"x");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let (_top, root, dir) = tree();
        let file = std::fs::File::create(dir.join("etc/huge")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(root.read(Path::new("/etc/huge")).is_err());
        root.write(Path::new("/etc/huge"), b"small", FileMode::KeepOr(0o644)).unwrap();
        assert_eq!(std::fs::read(dir.join("etc/huge")).unwrap(), b"small");
    }

    #[test]
    fn writing_twice_changes_nothing_the_second_time_not_even_times() {
        let (_top, root, dir) = tree();
        let path = Path::new("/etc/new/deep/file");
        assert_eq!(root.write(path, b"x", FileMode::Exactly(0o640)).unwrap(), Change::Changed);
        root.set_times(path, 1_000_000).unwrap();
        assert_eq!(root.write(path, b"x", FileMode::Exactly(0o640)).unwrap(), Change::Same);
        let meta = std::fs::metadata(dir.join("etc/new/deep/file")).unwrap();
        assert_eq!((meta.mtime(), meta.mode() & 0o7777), (1_000_000, 0o640));
        assert_eq!(root.write(path, b"x", FileMode::Exactly(0o600)).unwrap(), Change::Changed);
    }

    #[test]
    fn a_replaced_file_hands_on_its_mode_and_attributes() {
        let (_top, root, dir) = tree();
        let file = dir.join("etc/kept");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
        let empty = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(&file, "user.note", b"kept", empty).is_err() {
            eprintln!("skipped: no user attributes on this filesystem");
            return;
        }
        root.write(Path::new("/etc/kept"), b"new", FileMode::KeepOr(0o600)).unwrap();
        let mut value = [0u8; 16];
        let size = rustix::fs::getxattr(&file, "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..size], b"kept");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o4711);
    }

    #[test]
    fn a_directory_in_the_way_is_refused() {
        let (_top, root, dir) = tree();
        std::fs::create_dir(dir.join("etc/hostname")).unwrap();
        assert!(root.write(Path::new("/etc/hostname"), b"x", FileMode::KeepOr(0o644)).is_err());
        assert!(root.link(Path::new("/etc/hostname"), Path::new("x")).is_err());
        assert!(root.remove(Path::new("/etc/hostname")).is_err());
    }

    #[test]
    fn a_link_to_itself_is_an_error_and_not_a_loop() {
        let (_top, root, dir) = tree();
        symlink("loop", dir.join("etc/loop")).unwrap();
        assert!(root.read(Path::new("/etc/loop")).is_err());
        assert_eq!(
            root.write(Path::new("/etc/loop"), b"x", FileMode::KeepOr(0o644)).unwrap(),
            Change::Changed
        );
    }
}

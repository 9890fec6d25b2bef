//! Whose a file of a guest is, and what takes the place of what at once.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::{Change, Entry, Root, beside};

impl Root {
    /// The numbers of the user and group that the path's own entry belongs to; `None` if nothing is there.
    pub fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>> {
        let Some((dir, name)) = self.parent(path, false)? else { return Ok(None) };
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_uid, stat.st_gid))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| self.what("looking at", path)),
        }
    }

    /// Gives a file or directory that is there to this user and group, with these permission bits. A link or special file
    /// is refused; what is so already is not touched.
    pub fn own(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Change> {
        let what = || self.what("changing the owner of", path);
        let (dir, name) = self.parent(path, false)?.with_context(what)?;
        let there = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).with_context(what)?;
        let kind = FileType::from_raw_mode(there.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            bail!("{}: it is neither a file nor a directory", what());
        }
        // Opened only now that it is known to be harmless to open, and looked at again: it may be another one by now.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).with_context(what)?;
        let stat = rustix::fs::fstat(&file).with_context(what)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            bail!("{}: it changed meanwhile", what());
        }
        if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (uid, gid, mode) {
            return Ok(Change::Same);
        }
        if (stat.st_uid, stat.st_gid) != (uid, gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).with_context(what)?;
        }
        // Afterwards: a change of owner takes set-id bits away (chown(2)).
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).with_context(what)?;
        Ok(Change::Changed)
    }

    /// A symbolic link in place of the one that was there, by one rename: the path is never without a link.
    pub fn switch(&self, path: &Path, target: &Path) -> Result<Change> {
        match self.entry(path)? {
            Some(Entry::Link(now)) if now == target => return Ok(Change::Same),
            Some(Entry::Dir) => bail!("{}: a directory is in the way", self.what("linking", path)),
            _ => {}
        }
        let what = || self.what("linking", path);
        let (dir, name) = self.parent(path, true)?.with_context(what)?;
        let made = beside::make(&dir, |name| rustix::fs::symlinkat(target, &dir, name));
        let ((), temporary) = made.with_context(what)?;
        let renamed = rustix::fs::renameat(&dir, temporary.as_str(), &dir, name);
        if renamed.is_err() {
            beside::take_away(&dir, &temporary);
        }
        renamed.with_context(what)?;
        Ok(Change::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn an_owner_is_changed_once_and_never_through_a_link() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let (dir, root) = root();
        std::fs::write(dir.path().join("etc/key"), "x").unwrap();
        symlink("key", dir.path().join("etc/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("etc/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let key = Path::new("/etc/key");
        assert_eq!(root.own(key, 64030, 7, 0o4750).unwrap(), Change::Changed);
        assert_eq!(root.own(key, 64030, 7, 0o4750).unwrap(), Change::Same);
        assert_eq!(root.owner(key).unwrap(), Some((64030, 7)));
        assert_eq!(std::fs::metadata(dir.path().join("etc/key")).unwrap().mode() & 0o7777, 0o4750);
        for refused in ["/etc/link", "/etc/fifo", "/etc/none"] {
            assert!(root.own(Path::new(refused), 1, 1, 0o600).is_err(), "{refused}");
        }
        assert_eq!(root.owner(key).unwrap(), Some((64030, 7)));
    }

    #[test]
    fn a_link_is_switched_and_nothing_is_left_beside_it() {
        let (dir, root) = root();
        let path = Path::new("/var/current");
        for (target, change) in [("1", Change::Changed), ("2", Change::Changed), ("2", Change::Same)] {
            assert_eq!(root.switch(path, Path::new(target)).unwrap(), change);
            assert_eq!(std::fs::read_link(dir.path().join("var/current")).unwrap(), Path::new(target));
        }
        assert_eq!(std::fs::read_dir(dir.path().join("var")).unwrap().count(), 1);
        assert!(root.switch(Path::new("/etc"), Path::new("x")).is_err());
    }
}

//! Looks at files of a guest that are too large to be read, and at what was changed.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::Root;

/// A moment of the kernel's clock, in seconds and nanoseconds since 1970.
pub type Moment = (i64, i64);

/// Directories nested deeper than this are told of as a whole.
const DEEPEST: usize = 128;

impl Root {
    /// The first bytes of a regular file, links followed inside the root; `None` if there is no such file.
    pub fn head(&self, path: &Path, bytes: u64) -> Result<Option<Vec<u8>>> {
        let what = || self.what("reading", path);
        let handle = match self.resolve(path, OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e).with_context(what),
        };
        let stat = rustix::fs::fstat(&handle).with_context(what)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            bail!("{}: it is not a regular file", what());
        }
        // Opening by name again could meet another file; this opens the very one that was looked at.
        let file = File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).with_context(what)?;
        let mut head = Vec::new();
        file.take(bytes).read_to_end(&mut head).with_context(what)?;
        Ok(Some(head))
    }

    /// Paths whose entry was changed (stat(2), `st_ctim`) at that moment or later, in no order, and at most so many: what was
    /// removed shows as its directory. Links are not followed, and other filesystems not entered.
    pub fn changed_since(&self, since: Moment, most: usize) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut dirs: Vec<PathBuf> = vec![PathBuf::from("/")];
        while let Some(at) = dirs.pop() {
            let what = || self.what("looking for changes in", &at);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let dir = match self.resolve(&at, flags) {
                Ok(dir) => dir,
                // Another filesystem, or not what it was a moment ago.
                Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(e).with_context(what),
            };
            for entry in Dir::read_from(&dir).with_context(what)? {
                let entry = entry.with_context(what)?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e).with_context(what),
                };
                let changed = (stat.st_ctime, stat.st_ctime_nsec as i64) >= since;
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if !changed && !is_dir {
                    continue;
                }
                let path = at.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                if changed {
                    if found.len() == most {
                        return Ok(found);
                    }
                    found.push(path.clone());
                }
                if is_dir && path.components().count() < DEEPEST {
                    dirs.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// The next moment of the clock that files' times are taken from (`CLOCK_REALTIME_COARSE`, a few milliseconds from one to the
/// next): whatever was changed until now is older, and what is changed from now on is not.
pub fn next_moment() -> Moment {
    use rustix::time::{ClockId, clock_gettime};
    let now = |clock| {
        let now = clock_gettime(clock);
        (now.tv_sec, now.tv_nsec)
    };
    // Since Linux 6.13 a file may have been given the exact time, which this clock comes up to only later
    // (Documentation/filesystems/multigrain-ts.rst).
    let mut begin = now(ClockId::Realtime);
    loop {
        let later = now(ClockId::RealtimeCoarse);
        if later > begin {
            return later;
        }
        // A clock that is set back is not waited for.
        begin = begin.min(now(ClockId::Realtime));
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_since_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b", "c"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for file in ["a/old", "a/gone", "c/old"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("/", dir.path().join("c/link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let since = next_moment();
        assert_eq!(root.changed_since(since, 10).unwrap(), Vec::<PathBuf>::new());
        std::fs::write(dir.path().join("a/b/new"), "x").unwrap();
        std::fs::remove_file(dir.path().join("a/gone")).unwrap();
        let mut found = root.changed_since(since, 10).unwrap();
        found.sort();
        assert_eq!(found, ["/a", "/a/b", "/a/b/new"].map(PathBuf::from));
        assert_eq!(root.changed_since(since, 2).unwrap().len(), 2);
        assert_eq!(root.head(Path::new("/a/b/new"), 8).unwrap().as_deref(), Some(&b"x"[..]));
        assert!(root.head(Path::new("/a"), 8).is_err());
    }

    #[test]
    fn a_moment_is_later_than_what_was_changed_before_it_whatever_times_others_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (Root::open(dir.path()).unwrap(), tempfile::NamedTempFile::new().unwrap());
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Whoever is looked at between two changes is given exact times, behind which no other falls from then on.
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::write(other.path(), "x").unwrap();
                    other.path().metadata().unwrap();
                }
            });
            let early = (0..200).filter(|round| {
                std::fs::write(dir.path().join(round.to_string()), "").unwrap();
                let since = next_moment();
                let before = root.changed_since(since, 10).unwrap();
                std::fs::write(dir.path().join("now"), round.to_string()).unwrap();
                let after = root.changed_since(since, 10).unwrap();
                !before.is_empty() || after != [Path::new("/now")]
            });
            let early = early.count();
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(early, 0);
        });
    }
}

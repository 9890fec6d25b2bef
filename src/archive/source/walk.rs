//! All that is in a tree, told by several threads: to look at a file takes the kernel longer than to pass it on.

use std::os::fd::AsFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::Dir;

use super::{CHANGED, Kind, Surveyed, look};
use crate::host::root::Root;

/// How many things are told at once, and how often that may wait to be heard.
const TOLD: usize = 256;
const WAITING: usize = 16;
/// More than these wait for the disk or for each other.
const MOST_THREADS: usize = 4;

/// Tells everything below the top, in no order, until all is told or something fails.
pub(super) fn tree(root: &Root, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
    let walk =
        Walk { root, left: Mutex::new(Left { dirs: vec![Vec::new()], at_work: 0 }), more: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    std::thread::scope(|scope| {
        let (tell, told) = sync_channel(WAITING);
        for _ in 0..threads {
            let (walk, tell) = (&walk, tell.clone());
            scope.spawn(move || walk.work(&tell));
        }
        drop(tell);
        // When this gives up, nobody hears what is told any more, and all end.
        told.into_iter().try_for_each(|things| things?.into_iter().try_for_each(&mut *each))
    })
}

struct Walk<'r> {
    root: &'r Root,
    left: Mutex<Left>,
    /// There are more directories, or all threads are done.
    more: Condvar,
}

struct Left {
    dirs: Vec<Vec<u8>>,
    /// Threads that may still find directories.
    at_work: usize,
}

type Told = Result<Vec<Surveyed>>;

/// A thread that is in a directory, for as long as it lives.
struct AtWork<'w>(&'w Walk<'w>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.left().at_work -= 1;
        self.0.more.notify_all();
    }
}

impl Walk<'_> {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Vec<u8>, AtWork<'_>)> {
        let left = self.left();
        let wait = |left: &mut Left| left.dirs.is_empty() && left.at_work > 0;
        let mut left = self.more.wait_while(left, wait).unwrap_or_else(PoisonError::into_inner);
        let dir = left.dirs.pop()?;
        left.at_work += 1;
        Some((dir, AtWork(self)))
    }

    fn work(&self, tell: &SyncSender<Told>) {
        while let Some((dir, _at_work)) = self.next() {
            let told = self.dir(&dir, tell);
            let failed = told.is_err();
            if tell.send(told).is_err() || failed {
                self.left().dirs.clear();
                return;
            }
        }
    }

    /// What is in a directory, and the rest of it that was not told yet.
    fn dir(&self, dir: &[u8], tell: &SyncSender<Told>) -> Told {
        let what = || format!("reading the directory '{}'", dir.escape_ascii());
        let (_, handle) = look(self.root, None, dir)?;
        let handle = handle.with_context(|| format!("{}: {CHANGED}", what()))?;
        let mut found = Vec::new();
        for name in Dir::read_from(&handle).with_context(what)? {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            let name = name.with_context(what)?;
            let name = name.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
            let (surveyed, _) = look(self.root, Some(handle.as_fd()), &path)?;
            if surveyed.entry.kind == Kind::Directory {
                self.left().dirs.push(path);
                self.more.notify_one();
            }
            found.push(surveyed);
            if found.len() == TOLD && tell.send(Ok(std::mem::take(&mut found))).is_err() {
                bail!("nobody hears it");
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dirs: usize, files: usize) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for d in 0..dirs {
            std::fs::create_dir_all(dir.path().join(format!("{}/{d}", d % 3))).unwrap();
            for f in 0..files {
                std::fs::write(dir.path().join(format!("{}/{d}/{f}", d % 3)), "x").unwrap();
            }
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn everything_is_told_once() {
        let (_dir, root) = made(40, 20);
        let mut paths = Vec::new();
        tree(&root, &mut |thing| {
            paths.push(thing.entry.path);
            Ok(())
        })
        .unwrap();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!((all, paths.len()), (3 + 40 + 40 * 20, all));
    }

    #[test]
    fn who_has_heard_enough_is_told_nothing_more_and_all_threads_end() {
        let (_dir, root) = made(30, 300);
        let mut heard = 0;
        let error = tree(&root, &mut |_| {
            heard += 1;
            if heard == 100 { bail!("enough") } else { Ok(()) }
        });
        assert_eq!((error.unwrap_err().to_string(), heard), ("enough".to_owned(), 100));
    }
}

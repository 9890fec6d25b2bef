//! Every file of a filesystem, on all cores, with memory that does not grow with it.

mod file;
mod queue;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::needles::{Data, Needles};
use super::report::{Finding, Looked, MOST, Unseen, Verdict, class_of, shown};
use super::search::{BUFFER, Finder, Where};
use super::{Now, Old};
use crate::host::root::Root;
use queue::{Job, Queue};

/// Files that are handed over at a time to a thread that has nothing to do.
const BATCH: usize = 32;

/// Directories that one thread holds open within one another before it puts them in line.
const DEEPEST: usize = 48;

/// Names of files with several names that are remembered, so that each is read once; beyond that some are read twice.
const MOST_LINKED: usize = 200_000;

/// More threads would each need their buffer, and wait for the same memory.
const MOST_THREADS: usize = 16;

/// Further files that were not looked into are not listed.
const MOST_UNSEEN: usize = 1000;

/// What the search gives.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub findings: Vec<Finding>,
    pub further: u64,
    pub unseen: Vec<Unseen>,
    pub looked: Looked,
}

/// Searches every file, every name and where every link leads.
pub(super) fn search(root: &Root, needles: &Needles, old: &Old, now: &Now) -> Result<Searched> {
    let finder = Finder::new(needles, old)?;
    let shared = Shared {
        root,
        finder: &finder,
        old,
        now,
        queue: Queue::new(),
        linked: Mutex::default(),
        found: Mutex::default(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    shared.queue.put(Job::Dir(PathBuf::new()));
    let errors: Vec<Error> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| Worker::new(&shared).run())).collect();
        let ended = workers.into_iter().map(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow!("a thread of the search has stopped")))
        });
        ended.filter_map(Result::err).collect()
    });
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(shared.found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// What all threads share.
struct Shared<'s> {
    root: &'s Root,
    finder: &'s Finder<'s>,
    old: &'s Old,
    now: &'s Now,
    queue: Queue,
    linked: Mutex<HashSet<(u64, u64)>>,
    found: Mutex<Searched>,
}

impl Shared<'_> {
    fn found(&self, finding: Finding) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.findings.len() < MOST {
            found.findings.push(finding);
        } else {
            found.further += 1;
        }
    }

    fn unseen(&self, path: &Path, why: impl Into<String>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.unseen.len() < MOST_UNSEEN {
            found.unseen.push(Unseen { path: shown(path), why: why.into() });
        }
    }
}

struct Worker<'w> {
    shared: &'w Shared<'w>,
    buffer: Vec<u8>,
    looked: Looked,
}

impl<'w> Worker<'w> {
    fn new(shared: &'w Shared<'w>) -> Self {
        Self { shared, buffer: vec![0; BUFFER], looked: Looked::default() }
    }

    fn run(mut self) -> Result<()> {
        let done = self.jobs();
        if done.is_err() {
            self.shared.queue.stop();
        }
        let mut found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.looked.files += self.looked.files;
        found.looked.bytes += self.looked.bytes;
        done
    }

    fn jobs(&mut self) -> Result<()> {
        while let Some(job) = self.shared.queue.take() {
            match job {
                Job::Dir(path) => {
                    if let Some(dir) = self.open_dir(&path)? {
                        self.dir(&dir, &path, 0)?;
                    }
                }
                Job::Files(path, names) => {
                    if let Some(dir) = self.open_dir(&path)? {
                        self.files(&dir, &path, &names);
                    }
                }
            }
            self.shared.queue.done();
        }
        Ok(())
    }

    /// A directory by its path from the root, without a link on the way; none if it is no more there.
    fn open_dir(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let from = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match open(self.shared.root.as_fd(), from.as_os_str(), OFlags::DIRECTORY) {
            Ok(dir) => Ok(Some(dir)),
            // Another filesystem is another machine's business, or its own command's.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) if !path.as_os_str().is_empty() => {
                Ok(None)
            }
            Err(Errno::NAMETOOLONG) => {
                self.shared.unseen(&Path::new("/").join(path), "nested deeper than the kernel names");
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("opening '{}'", shown(path))),
        }
    }

    fn dir(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> Result<()> {
        let mut batch = Vec::new();
        let entries = Dir::read_from(dir).with_context(|| format!("listing '{}'", shown(path)))?;
        for entry in entries {
            let Ok(entry) = entry else {
                self.shared.unseen(&Path::new("/").join(path), "its list of files cannot be read");
                break;
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.name(path, name);
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(_) => continue,
                    }
                }
                known => known,
            };
            match kind {
                FileType::Directory => self.below(dir, path.join(name), name, depth)?,
                FileType::Symlink => self.link(dir, path, name),
                FileType::RegularFile => batch.push(name.to_owned()),
                _ => {}
            }
            if batch.len() == BATCH {
                self.batch(dir, path, std::mem::take(&mut batch));
            }
        }
        self.files(dir, path, &batch);
        Ok(())
    }

    fn batch(&mut self, dir: &OwnedFd, path: &Path, names: Vec<OsString>) {
        if let Some(Job::Files(_, names)) = self.shared.queue.offer(Job::Files(path.to_owned(), names)) {
            self.files(dir, path, &names);
        }
    }

    /// A directory in a directory: put in line while the line is short, else looked into at once.
    fn below(&mut self, dir: &OwnedFd, path: PathBuf, name: &OsStr, depth: usize) -> Result<()> {
        let Some(Job::Dir(path)) = self.shared.queue.put(Job::Dir(path)) else { return Ok(()) };
        if depth == DEEPEST {
            self.shared.unseen(&Path::new("/").join(path), "too many directories within one another");
            return Ok(());
        }
        match open(dir, name, OFlags::DIRECTORY) {
            Ok(inner) => self.dir(&inner, &path, depth + 1),
            Err(_) => Ok(()),
        }
    }

    fn files(&mut self, dir: &OwnedFd, path: &Path, names: &[OsString]) {
        for name in names {
            let path = Path::new("/").join(path).join(name);
            if let Err(error) = self.file(dir, name, &path) {
                self.shared.unseen(&path, format!("{error:#}"));
            }
        }
    }

    fn name(&self, path: &Path, name: &OsStr) {
        let at = |path: &Path| Where { newer: false, ..place(&Path::new("/").join(path)) };
        self.shared.finder.value(name.as_bytes(), at(path), Data::File, &mut |_, needle| {
            self.shared.found(Finding {
                class: class_of(needle.sort),
                verdict: Verdict::Left,
                path: shown(&Path::new("/").join(path).join(name)),
                place: None,
                found: format!(
                    "the old machine's {} '{}' in its own name",
                    needle.sort.as_str(),
                    needle.shown
                ),
                sort: Some(needle.sort),
                count: 1,
                mend: super::report::MEND.to_owned(),
            });
        });
    }

    fn link(&self, dir: &OwnedFd, path: &Path, name: &OsStr) {
        let Ok(target) = rustix::fs::readlinkat(dir, name, Vec::new()) else { return };
        let at = place(&Path::new("/").join(path));
        self.shared.finder.value(target.as_bytes(), at, Data::File, &mut |_, needle| {
            self.shared.found(Finding {
                class: class_of(needle.sort),
                verdict: Verdict::Left,
                path: shown(&Path::new("/").join(path).join(name)),
                place: None,
                found: format!("a link to the old machine's {} '{}'", needle.sort.as_str(), needle.shown),
                sort: Some(needle.sort),
                count: 1,
                mend: super::report::MEND.to_owned(),
            });
        });
    }
}

/// What is packaged, and what is a log, by its absolute path.
fn place(path: &Path) -> Where {
    let brought = ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/var/lib/dpkg/info"];
    let packaged = brought.iter().any(|dir| path.starts_with(dir)) && !path.starts_with("/usr/local");
    Where { packaged, log: path.starts_with("/var/log"), newer: false }
}

/// Opens without following a link, crossing a mount, waiting, or leaving a trace in the times of access.
fn open(dir: impl std::os::fd::AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let dir = dir.as_fd();
    let open = |more| {
        let all = flags | more | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(dir, name, all, Mode::empty(), resolve)
    };
    // O_PATH takes none of these, and only the owner may ask for O_NOATIME (openat2(2)).
    if flags.contains(OFlags::PATH) {
        return open(OFlags::empty());
    }
    let careful = OFlags::NONBLOCK | OFlags::NOCTTY;
    match open(careful | OFlags::NOATIME) {
        Err(Errno::PERM) => open(careful),
        opened => opened,
    }
}

//! Whether a filesystem is what a manifest says: everything that is kept of each thing, and nothing beside.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::entry::{Content, Entry, KEPT_FLAGS, Kind};
use crate::host::root::Root;
use crate::host::root::seen::Seen;

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The thing's path.
    pub path: Vec<u8>,
    /// In words.
    pub what: String,
}

/// As a line of a message.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}: {}", self.path.escape_ascii(), self.what)
    }
}

/// What is known to be otherwise, by number of the entry, and is not told again.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Not there.
    pub lost: BTreeSet<usize>,
    /// There without some of its flags.
    pub unkept: BTreeSet<usize>,
}

/// How much is read of a file at once.
const PIECE: usize = 1 << 20;
/// How many entries a thread takes at once.
const BATCH: usize = 64;

/// Compares all entries with what is there; `tick` is told now and then how many bytes have been read. Differences are sorted.
pub fn compare(
    root: &Root,
    entries: &[Entry],
    known: &Known,
    tick: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Difference>> {
    let comparison = Comparison::new(root, entries, known, tick);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| comparison.work())).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    let mut differences = Vec::new();
    for result in results {
        let found = result.map_err(|_| anyhow::anyhow!("a thread that compares files has crashed"))?;
        differences.append(&mut found?);
    }
    differences.sort();
    Ok(differences)
}

/// Where differences of the thing at a path are put down.
struct Differences<'a>(&'a mut Vec<Difference>, &'a [u8]);

impl Differences<'_> {
    fn add(&mut self, what: String) {
        self.0.push(Difference { path: self.1.to_vec(), what });
    }
}

struct Comparison<'a> {
    root: &'a Root,
    entries: &'a [Entry],
    known: &'a Known,
    tick: &'a (dyn Fn(u64) + Sync),
    paths: HashSet<&'a [u8]>,
    /// How many names each file has that has several.
    names: HashMap<&'a [u8], u64>,
    next: AtomicUsize,
    read: AtomicU64,
}

impl<'a> Comparison<'a> {
    fn new(root: &'a Root, entries: &'a [Entry], known: &'a Known, tick: &'a (dyn Fn(u64) + Sync)) -> Self {
        let there = || entries.iter().enumerate().filter(|(number, _)| !known.lost.contains(number));
        let mut names: HashMap<&[u8], u64> = HashMap::new();
        for (_, entry) in there() {
            if let Kind::HardLink(first) = &entry.kind {
                *names.entry(first).or_insert(1) += 1;
            }
        }
        Self {
            root,
            entries,
            known,
            tick,
            paths: there().map(|(_, entry)| &entry.path[..]).collect(),
            names,
            next: AtomicUsize::new(0),
            read: AtomicU64::new(0),
        }
    }

    fn work(&self) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let mut buffer = vec![0; PIECE];
        loop {
            let from = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= self.entries.len() {
                return Ok(differences);
            }
            for number in from..(from + BATCH).min(self.entries.len()) {
                if self.known.lost.contains(&number) {
                    continue;
                }
                let entry = &self.entries[number];
                self.one(number, entry, &mut buffer, &mut Differences(&mut differences, &entry.path))
                    .with_context(|| format!("comparing '{}'", entry.path.escape_ascii()))?;
            }
        }
    }

    /// What is in a directory and should not.
    fn beside(&self, entry: &Entry, dir: &File, say: &mut Differences<'_>) -> Result<()> {
        for found in rustix::fs::Dir::read_from(dir)? {
            let found = found?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let mut child = entry.path.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name);
            if !self.paths.contains(&child[..]) {
                say.0.push(Difference { path: child, what: "it is there, and should not be".to_owned() });
            }
        }
        Ok(())
    }

    fn one(&self, number: usize, entry: &Entry, buffer: &mut [u8], say: &mut Differences<'_>) -> Result<()> {
        ensure!(!crate::progress::interrupted(), "interrupted");
        let Some((seen, file)) = self.root.seen(path(&entry.path))? else {
            say.add("it is missing".to_owned());
            return Ok(());
        };
        if let Kind::HardLink(first) = &entry.kind {
            let same = self.root.seen(path(first))?.is_some_and(|(other, _)| other.inode == seen.inode);
            if !same {
                say.add(format!("it should be another name of '/{}'", first.escape_ascii()));
            }
            return Ok(());
        }
        if seen.kind() != kind_of(&entry.kind) {
            say.add(format!("it is {}, and should be {}", word(seen.kind()), word(kind_of(&entry.kind))));
            return Ok(());
        }
        properties(entry, &seen, self.known.unkept.contains(&number), say);
        if entry.kind != Kind::Directory {
            let names = self.names.get(&entry.path[..]).copied().unwrap_or(1);
            if seen.names != names {
                say.add(format!("it has {} names instead of {names}", seen.names));
            }
        }
        match (&entry.kind, file) {
            (Kind::Directory, Some(dir)) => self.beside(entry, &dir, say)?,
            (Kind::File(content), Some(_)) if seen.len != content.len => {
                say.add(format!("it has {} bytes instead of {}", seen.len, content.len));
            }
            (Kind::File(content), Some(file)) if !self.same_content(&file, content, buffer)? => {
                say.add("its content is another".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn same_content(&self, file: &File, content: &Content, buffer: &mut [u8]) -> Result<bool> {
        let mut hasher = blake3::Hasher::new();
        let mut hole = 0;
        for (offset, len) in &content.data {
            if *offset > hole && !is_zero(file, hole, *offset, buffer)? {
                return Ok(false);
            }
            hole = offset + len;
            let mut at = *offset;
            while at < hole {
                ensure!(!crate::progress::interrupted(), "interrupted");
                let piece = &mut buffer[..(hole - at).min(PIECE as u64) as usize];
                file.read_exact_at(piece, at)?;
                hasher.update(piece);
                at += piece.len() as u64;
                let read = self.read.fetch_add(piece.len() as u64, Ordering::Relaxed);
                (self.tick)(read + piece.len() as u64);
            }
        }
        Ok(*hasher.finalize().as_bytes() == content.blake3
            && (hole == content.len || is_zero(file, hole, content.len, buffer)?))
    }
}

/// Whether that part of a file reads as zeros; holes of it are not read.
fn is_zero(file: &File, from: u64, end: u64, buffer: &mut [u8]) -> Result<bool> {
    let mut at = from;
    while at < end {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(true),
            other => other?,
        };
        if at >= end {
            return Ok(true);
        }
        let piece = &mut buffer[..(end - at).min(PIECE as u64) as usize];
        file.read_exact_at(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

fn properties(entry: &Entry, seen: &Seen, flags_known: bool, say: &mut Differences<'_>) {
    let is_link = matches!(entry.kind, Kind::SymbolicLink(_));
    if !is_link && seen.mode & 0o7777 != entry.mode {
        say.add(format!("its mode is {:04o} instead of {:04o}", seen.mode & 0o7777, entry.mode));
    }
    if (seen.uid, seen.gid) != (entry.uid, entry.gid) {
        say.add(format!("it belongs to {}:{} instead of {}:{}", seen.uid, seen.gid, entry.uid, entry.gid));
    }
    let wanted = (entry.modified.seconds, entry.modified.nanoseconds);
    if seen.modified != wanted {
        let (now, wanted) = (seen.modified, wanted);
        say.add(format!("its time is {}.{:09} instead of {}.{:09}", now.0, now.1, wanted.0, wanted.1));
    }
    if seen.attributes != entry.attributes {
        let names =
            |list: &[(Vec<u8>, Vec<u8>)]| -> BTreeSet<(Vec<u8>, Vec<u8>)> { list.iter().cloned().collect() };
        let (now, wanted) = (names(&seen.attributes), names(&entry.attributes));
        let other: BTreeSet<_> = now.symmetric_difference(&wanted).map(|(name, _)| name).collect();
        for name in other {
            say.add(format!("its attribute '{}' is another", name.escape_ascii()));
        }
    }
    let flags = seen.flags & KEPT_FLAGS;
    if !flags_known && flags != entry.flags {
        say.add(format!("its flags are {flags:#x} instead of {:#x}", entry.flags));
    }
    match &entry.kind {
        Kind::SymbolicLink(target) if *target != seen.target => {
            say.add(format!(
                "it leads to '{}' instead of '{}'",
                seen.target.escape_ascii(),
                target.escape_ascii()
            ));
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor)
            if seen.device != (*major, *minor) =>
        {
            say.add(format!("it is device {}:{} instead of {major}:{minor}", seen.device.0, seen.device.1));
        }
        _ => {}
    }
}

/// Further names are never asked for here.
fn kind_of(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File(_) | Kind::HardLink(_) => FileType::RegularFile,
        Kind::SymbolicLink(_) => FileType::Symlink,
        Kind::CharacterDevice(..) => FileType::CharacterDevice,
        Kind::BlockDevice(..) => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a regular file",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::Unknown => "something unknown",
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

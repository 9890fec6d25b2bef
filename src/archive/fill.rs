//! An empty filesystem gets everything that a manifest tells of.
//!
//! Directories come first and are open to their owner alone; files in whatever order their content comes, by several threads if
//! need be; then further names of files, and last what would have hindered all that or been changed by it: attributes of
//! directories, times, and flags that forbid changes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use super::entry::{Content, Entry, Kind};
use super::source::Source;
use crate::host::root::Root;
use crate::host::root::exact::{Dress, Flags, New, NewFile};
use crate::progress::Meter;

/// `FS_IMMUTABLE_FL` and `FS_APPEND_FL`: no further name can be made of such a file.
const FORBID_NAMES: u32 = 0x10 | 0x20;

/// A filesystem that is being filled. Threads may fill different files of it at once.
pub struct Fill<'a> {
    root: &'a Root,
    entries: &'a [Entry],
    made: Vec<AtomicBool>,
    lost: Mutex<BTreeSet<usize>>,
    unkept: Mutex<BTreeSet<usize>>,
}

/// What did not come about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Short {
    /// Entries, by number, that are not there: files that were given up, and their further names.
    pub lost: Vec<usize>,
    /// Entries with flags that this kind of filesystem does not have.
    pub unkept: Vec<usize>,
}

impl<'a> Fill<'a> {
    /// Makes all directories, and everything that has no content. The filesystem holds nothing but, perhaps, `lost+found`.
    pub fn begin(root: &'a Root, entries: &'a [Entry]) -> Result<Self> {
        let made = entries.iter().map(|_| AtomicBool::new(false)).collect();
        let fill = Self { root, entries, made, lost: Mutex::default(), unkept: Mutex::default() };
        if !entries.iter().any(|entry| entry.path == b"lost+found") {
            root.take_back_dir(Path::new("lost+found"))?;
        }
        for entry in entries.iter().filter(|entry| entry.kind == Kind::Directory && !entry.path.is_empty()) {
            root.new_special(path(entry), New::Directory)?;
        }
        for entry in entries {
            let new = match &entry.kind {
                Kind::SymbolicLink(target) => New::SymbolicLink(target),
                Kind::CharacterDevice(major, minor) => New::CharacterDevice(*major, *minor),
                Kind::BlockDevice(major, minor) => New::BlockDevice(*major, *minor),
                Kind::Fifo => New::Fifo,
                Kind::Socket => New::Socket,
                Kind::Directory | Kind::File(_) | Kind::HardLink(_) => continue,
            };
            root.new_special(path(entry), new)?;
            root.dress_special(path(entry), new, &dress(entry))?;
        }
        Ok(fill)
    }

    /// Makes the file with that number; its pieces may be written now.
    pub fn file(&self, number: usize) -> Result<Filling<'_>> {
        let entry =
            self.entries.get(number).context("the content of a file that the manifest does not tell of")?;
        let Kind::File(content) = &entry.kind else {
            bail!("content of '{}', which is no regular file", path(entry).display());
        };
        ensure!(!self.made[number].swap(true, Ordering::Relaxed), "'{}' comes twice", path(entry).display());
        let file = self.root.new_file(path(entry), entry.flags)?;
        Ok(Filling { fill: self, number, entry, content, file })
    }

    /// Gives up a file before it was begun.
    pub fn lose(&self, number: usize) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Everything else, when all content has come. Files without content are made here, if nobody has made them.
    pub fn finish(self) -> Result<Short> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (number, entry) in self.entries.iter().enumerate() {
            if let Kind::File(content) = &entry.kind
                && !self.made[number].load(Ordering::Relaxed)
                && !lost.contains(&number)
            {
                ensure!(content.data.is_empty(), "the content of '{}' did not come", path(entry).display());
                self.file(number)?.end()?;
            }
        }
        let lost_paths: BTreeSet<&[u8]> = lost.iter().map(|number| &self.entries[*number].path[..]).collect();
        for (number, entry) in self.entries.iter().enumerate() {
            if let Kind::HardLink(first) = &entry.kind {
                if lost_paths.contains(&first[..]) {
                    lost.insert(number);
                } else {
                    self.root.new_name(path(entry), Path::new(OsStr::from_bytes(first)))?;
                }
            }
        }
        for (number, entry) in self.entries.iter().enumerate() {
            let is_file = matches!(entry.kind, Kind::File(_));
            if is_file && entry.flags & FORBID_NAMES != 0 && !lost.contains(&number) {
                self.flagged(number, self.root.flag_file(path(entry), entry.flags)?);
            }
        }
        // The deepest first: what is above may be closed to us once it has its own mode.
        for (number, entry) in self.entries.iter().enumerate().rev() {
            if entry.kind == Kind::Directory {
                self.flagged(number, self.root.dress_dir(path(entry), &dress(entry))?);
            }
        }
        let unkept = self.unkept.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Short { lost: lost.into_iter().collect(), unkept: unkept.into_iter().collect() })
    }

    fn flagged(&self, number: usize, flags: Flags) {
        if flags == Flags::Unknown {
            self.unkept.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        }
    }
}

/// Puts all of a source into an empty filesystem.
pub fn from_source(root: &Root, entries: &[Entry], source: &dyn Source, meter: &Meter<'_>) -> Result<Short> {
    let fill = Fill::begin(root, entries)?;
    for (number, entry) in entries.iter().enumerate() {
        let Kind::File(content) = &entry.kind else { continue };
        let filling = fill.file(number)?;
        // Its data comes without its holes.
        let mut pieces = content.data.iter().copied();
        let (mut at, mut left) = (0, 0);
        let each = &mut |mut bytes: &[u8]| {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            meter.add(bytes.len() as u64);
            while !bytes.is_empty() {
                if left == 0 {
                    (at, left) = pieces.next().context("it has more than its pieces")?;
                }
                let (now, later) = bytes.split_at(bytes.len().min(left as usize));
                filling.write(now, at)?;
                (at, left, bytes) = (at + now.len() as u64, left - now.len() as u64, later);
            }
            Ok(())
        };
        source.data(entry, content, each).with_context(|| format!("copying '{}'", path(entry).display()))?;
        filling.end()?;
    }
    fill.finish()
}

/// A file whose content is coming.
pub struct Filling<'a> {
    fill: &'a Fill<'a>,
    number: usize,
    entry: &'a Entry,
    content: &'a Content,
    file: NewFile,
}

impl Filling<'_> {
    /// Puts a piece in its place.
    pub fn write(&self, piece: &[u8], offset: u64) -> Result<()> {
        let what = || format!("writing '{}'", path(self.entry).display());
        let end = offset.checked_add(piece.len() as u64);
        ensure!(end.is_some_and(|end| end <= self.content.len), "{}: it has more than its length", what());
        self.file.write(piece, offset).with_context(what)
    }

    /// All of it was written.
    pub fn end(self) -> Result<()> {
        let what = || format!("setting the attributes of '{}'", path(self.entry).display());
        self.file.dress(self.content.len, &dress(self.entry)).with_context(what)?;
        if self.entry.flags & FORBID_NAMES == 0 {
            self.fill.flagged(self.number, self.file.flag(self.entry.flags).with_context(what)?);
        }
        Ok(())
    }

    /// It cannot be had: nothing of it stays.
    pub fn lose(self) -> Result<()> {
        self.fill.lose(self.number);
        self.fill.root.take_back(path(self.entry))
    }
}

fn path(entry: &Entry) -> &Path {
    Path::new(OsStr::from_bytes(&entry.path))
}

fn dress(entry: &Entry) -> Dress<'_> {
    Dress {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: (entry.modified.seconds, entry.modified.nanoseconds),
        attributes: &entry.attributes,
        flags: entry.flags,
    }
}

#[cfg(test)]
mod tests;

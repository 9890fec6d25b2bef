//! Where what is packed is read from: a directory that is open, such as a filesystem that is mounted, or any other form.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::entry::{Content, Entry, KEPT_FLAGS, Kind, Time};
use crate::host::root::Root;
use crate::host::root::seen::Seen;

mod walk;

/// A thing as a source tells it; its digest is still to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// All else of it. No entry is a hard link yet.
    pub entry: Entry,
    /// Which file it is, where that has several names.
    pub inode: Option<u64>,
    /// The first bytes of a file, which tell what it is; zeros if it has fewer, or a source does not tell.
    pub first: First,
}

/// See [`Surveyed::first`].
pub type First = [u8; 4];

/// Whom bytes are told to.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// What can be packed. Nothing may change it meanwhile; if something does, that is seen.
pub trait Source: Sync {
    /// Tells of every thing, in any order.
    fn survey(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()>;
    /// Tells the data of a file's pieces, one after another; also if only parts of them are asked for.
    fn data(&self, entry: &Entry, content: &Content, each: Sink<'_>) -> Result<()>;
    /// Whether private keys are looked for in it: not where that was done already, in a form that tells more.
    fn is_audited(&self, _entry: &Entry) -> bool {
        true
    }
}

/// How much is read at a time.
pub(super) const STEP: usize = 256 << 10;
pub(super) const CHANGED: &str =
    "it changed while it was being packed; hint: nothing may write to what is packed";

impl Source for Root {
    fn survey(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
        each(look(self, None, b"")?.0)?;
        walk::tree(self, each)
    }

    fn data(&self, entry: &Entry, content: &Content, each: Sink<'_>) -> Result<()> {
        let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        let Some((stat, file)) = self.regular(path)? else { bail!(CHANGED) };
        let modified = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        if stat.st_size as u64 != content.len || modified != entry.modified {
            bail!(CHANGED);
        }
        read_pieces(&file, content, each)
    }
}

/// Tells the data of a file that is open.
pub fn read_pieces(file: &File, content: &Content, each: Sink<'_>) -> Result<()> {
    let mut buffer = vec![0; STEP.min(content.len as usize)];
    for (offset, len) in &content.data {
        let (mut at, end) = (*offset, offset + len);
        while at < end {
            let piece = &mut buffer[..(end - at).min(STEP as u64) as usize];
            file.read_exact_at(piece, at)?;
            each(piece)?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}

fn time(seen: &Seen) -> Time {
    Time { seconds: seen.modified.0, nanoseconds: seen.modified.1 }
}

/// What is at a path; `dir` is its parent, if that is open.
fn look(root: &Root, dir: Option<BorrowedFd<'_>>, path: &[u8]) -> Result<(Surveyed, Option<File>)> {
    let shown = Path::new(std::ffi::OsStr::from_bytes(path));
    let found = match dir.map_or_else(|| root.seen(shown), |dir| root.seen_in(dir, shown)) {
        Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::XDEV) => {
            bail!("another filesystem is mounted on '{}'; hint: unmount it", path.escape_ascii())
        }
        found => found?,
    };
    let Some((seen, file)) = found else { bail!("'{}': {CHANGED}", path.escape_ascii()) };
    let (major, minor) = seen.device;
    let mut first = First::default();
    let kind = match seen.kind() {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => {
            let open = file.as_ref().with_context(|| format!("'{}': {CHANGED}", path.escape_ascii()))?;
            let data =
                pieces(open, seen.len).with_context(|| format!("looking at '{}'", path.escape_ascii()))?;
            if let Some((offset, len)) = data.first()
                && *len >= first.len() as u64
            {
                let read = open.read_exact_at(&mut first, *offset);
                read.with_context(|| format!("reading '{}'", path.escape_ascii()))?;
            }
            Kind::File(Content { len: seen.len, blake3: [0; 32], data })
        }
        FileType::Symlink => Kind::SymbolicLink(seen.target.clone()),
        FileType::CharacterDevice => Kind::CharacterDevice(major, minor),
        FileType::BlockDevice => Kind::BlockDevice(major, minor),
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => bail!("'{}' is of a type that is not known", path.escape_ascii()),
    };
    let inode = (kind != Kind::Directory && seen.names > 1).then_some(seen.inode.1);
    let entry = Entry {
        path: path.to_vec(),
        kind,
        mode: seen.mode & 0o7777,
        uid: seen.uid,
        gid: seen.gid,
        modified: time(&seen),
        attributes: seen.attributes,
        flags: seen.flags & KEPT_FLAGS,
    };
    Ok((Surveyed { entry, inode, first }, file))
}

/// Where the file has data (lseek(2), `SEEK_DATA`).
fn pieces(file: &File, len: u64) -> Result<Vec<(u64, u64)>> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < len {
        let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(from) if from < len => from,
            // No more data up to the end.
            Ok(_) | Err(Errno::NXIO) => break,
            // A filesystem that cannot tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![(0, len)]),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(from))?.min(len);
        match pieces.last_mut() {
            Some((before, long)) if *before + *long == from => *long = end - *before,
            _ => pieces.push((from, end - from)),
        }
        at = end;
    }
    Ok(pieces)
}

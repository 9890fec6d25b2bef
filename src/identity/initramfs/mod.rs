//! Ids in what the kernel unpacks before it has a disk: where to resume from, which root to wait for.
//!
//! ```text
//!   initrd:  archive (microcode), zeros | packed archive | ...      each part read, renamed in and packed as it was
//! ```
//!
//! New ids are as long as old ones, so that all else in it stays to the byte. It is a guest's file, and so hostile: it is unpacked as
//! a stream, with bounds on memory and on how much comes out of it.

mod cpio;
pub(super) mod lz4;
mod packed;
mod rename;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::root::{Change, Entry, Root};
use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::names::Bytes;
use packed::Packed;
use rename::Renames;

/// More than any distribution's has.
const LARGEST: u64 = 512 << 20;
const LARGEST_UNPACKED: u64 = 2 << 30;
/// One for each kernel, and one to rescue each.
const FILES_AT_MOST: usize = 32;

/// What is to be done in a filesystem.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// An edit for each that names an old id.
    pub edits: Vec<Edit>,
    /// Those that cannot be looked into.
    pub closed: Vec<Closed>,
}

/// One that cannot be looked into.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// Path inside the guest.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, why } = self;
        write!(f, "'{}' cannot be looked into, and may name old ids of disks: {why}", path.display())
    }
}

/// Looks for old ids in what is in the directory.
pub fn look(tree: &dyn Tree, dir: &Path, renamed: &[(String, String)]) -> Result<Found> {
    let mut found = Found::default();
    if renamed.is_empty() {
        return Ok(found);
    }
    for name in tree.list(dir)?.iter().filter(|name| is_initramfs(name)).take(FILES_AT_MOST) {
        let path = dir.join(name);
        let Some(Entry::File { len: 1.., .. }) = tree.entry(&path)? else { continue };
        let Some(root) = tree.as_root() else {
            found.closed.push(Closed { path, why: "this takes a mount".to_owned() });
            continue;
        };
        let renames = Renames::new(renamed)?;
        let count = root.open_file(&path).and_then(|file| rewrite(&file, None, &renames));
        match count {
            Ok(0) => {}
            Ok(_) => found.edits.push(Edit::Initramfs { path, renamed: renamed.to_vec() }),
            Err(error) => found.closed.push(Closed { path, why: format!("{error:#}") }),
        }
    }
    Ok(found)
}

/// Where the first part that is packed begins, behind archives that are not; `None` if there is none.
pub fn packed_at(file: &File) -> Result<Option<u64>> {
    let mut from = BufReader::with_capacity(128 << 10, file);
    let (mut nowhere, renames) = (io::sink(), Renames::new(&[])?);
    loop {
        let at = from.stream_position()?;
        match from.fill_buf().context("reading it")?.first_chunk::<6>() {
            None => return Ok(None),
            Some([0, ..]) => zeros(&mut from, &mut nowhere)?,
            Some(head) if cpio::begins(head) => drop(cpio::copy(&mut from, &mut nowhere, &renames)?),
            Some(_) => return Ok(Some(at)),
        }
    }
}

/// Whether a file is one by its name.
pub fn is_initramfs(name: &Path) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("initrd") || name.starts_with("initramfs")
}

/// Replaces the ids in one, which is replaced as a whole.
pub fn apply(root: &Root, path: &Path, renamed: &[(String, String)]) -> Result<Change> {
    let renames = Renames::new(renamed)?;
    root.replace(path, &mut |old, new| {
        let mut new = BufWriter::new(new);
        let count = rewrite(old, Some(&mut new), &renames)?;
        new.flush()?;
        Ok(if count == 0 { Change::Same } else { Change::Changed })
    })
}

/// Reads all of it, and writes it anew with other ids, if that is asked for; how many there were.
fn rewrite(old: &File, new: Option<&mut dyn Write>, renames: &Renames) -> Result<u64> {
    let len = old.metadata().context("looking at its length")?.len();
    ensure!(len <= LARGEST, "it has {}, more than {}", Bytes(len), Bytes(LARGEST));
    let is_look = new.is_none();
    let mut nowhere = io::sink();
    let mut to = Counted { to: new.unwrap_or(&mut nowhere), count: 0 };
    let mut from = BufReader::with_capacity(128 << 10, old.take(LARGEST));
    let (mut left, mut count) = (LARGEST_UNPACKED, 0);
    loop {
        let mut head = [0; 8];
        let at = (&*old).stream_position()? - from.buffer().len() as u64;
        match old.read_at(&mut head, at).context("reading it")? {
            0 => return Ok(count),
            _ if head[0] == 0 => zeros(&mut from, &mut to)?,
            _ if cpio::begins(&head) => {
                // An archive that is not packed begins at every fourth byte.
                while !to.count.is_multiple_of(4) {
                    to.write_all(&[0])?;
                }
                count += cpio::copy(&mut from, &mut to, renames)?;
            }
            _ => {
                let packed =
                    Packed::of(&head).context("a part of it is packed in a way that is not known here")?;
                let mut part = BufReader::new(packed.reader(&mut from).context("unpacking it")?).take(left);
                let done = match is_look {
                    // To pack takes ten times as long as to unpack.
                    true => archives(&mut part, &mut io::sink(), renames),
                    false => packed.write(&mut to, |to| archives(&mut part, to, renames)),
                };
                left = part.limit();
                ensure!(left > 0, "it unpacks to more than {}", Bytes(LARGEST_UNPACKED));
                count += done?;
            }
        }
    }
}

/// Archives one behind the other, and zeros between them.
fn archives(from: &mut dyn BufRead, to: &mut dyn Write, renames: &Renames) -> Result<u64> {
    let mut count = 0;
    loop {
        let head = from.fill_buf().context("unpacking it")?;
        match head.first() {
            None => return Ok(count),
            Some(0) => zeros(from, to)?,
            Some(_) => count += cpio::copy(from, to, renames)?,
        }
    }
}

fn zeros(from: &mut dyn BufRead, to: &mut dyn Write) -> Result<()> {
    loop {
        let bytes = from.fill_buf().context("reading it")?;
        let count = bytes.iter().take_while(|byte| **byte == 0).count();
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
        from.consume(count);
    }
}

/// How far a file has come.
struct Counted<'w> {
    to: &'w mut dyn Write,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests;

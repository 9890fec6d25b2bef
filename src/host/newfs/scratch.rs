//! A filesystem made in a sparse file of its own, from where it is brought to the target.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::{END, EXT4_BLOCK, NewFilesystem, zero};
use crate::host::programs::{Program, Programs};
use crate::host::temporary::{self, Maker};

/// What its directory is called.
const NAME: &str = "gridgate-filesystem";
const CHUNK: u64 = 1 << 20;
/// Held by the thread that makes or removes the directory which all of this process's are in.
static OUTER: Mutex<()> = Mutex::new(());

/// Removed when it is dropped.
pub(super) struct Scratch {
    dir: PathBuf,
    path: PathBuf,
    file: File,
}

/// On a disk, where there is more room than in memory.
fn place() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// What killed commands left.
pub fn leftovers() -> Vec<PathBuf> {
    temporary::left(&place(), NAME)
}

impl Scratch {
    /// A new, empty filesystem of that length; it takes up what its tables do.
    pub(super) fn make(host: &dyn Programs, new: &NewFilesystem, len: u64) -> Result<Self> {
        temporary::sweep(&place(), NAME);
        // Two threads of this process may each make one.
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let outer = place().join(Maker::this().name(NAME));
        let dir = outer.join(number.to_string());
        let what = || format!("making a filesystem in '{}'", dir.display());
        {
            let _turn = OUTER.lock();
            fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir).with_context(what)?;
        }
        let path = dir.join("disk");
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).with_context(what)?;
        let made = Self { dir: outer, path, file };
        made.file.set_len(len).with_context(what)?;
        host.run(&new.program(&made.path, len).killed_on_interrupt()).with_context(what)?;
        Ok(made)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the tables of an empty ext4 to the target, all but its first block. Blocks in use that are holes here are zeros
    /// there; of others it does not matter what they hold.
    pub(super) fn copy_tables(&self, host: &dyn Programs, target: &File, offset: u64) -> Result<()> {
        let ran = host.run(&Program::new("dumpe2fs").arg(&self.path))?;
        let blocks = super::end_of(&self.file)? / EXT4_BLOCK;
        for (first, end) in used(&ran.text(), blocks)? {
            let (from, end) = (first.max(1) * EXT4_BLOCK, end * EXT4_BLOCK);
            if from < end {
                zero(target, offset + from, end - from).context("clearing tables")?;
                self.copy_data(target, offset, from, end).context("copying tables")?;
            }
        }
        Ok(target.sync_data()?)
    }

    /// Brings everything to the target but the first MiB, which stays as zeros.
    pub(super) fn copy_all(&self, target: &File, offset: u64, len: u64) -> Result<()> {
        zero(target, offset, len)?;
        self.copy_data(target, offset, END, len)?;
        Ok(target.sync_data()?)
    }

    /// The first MiB, which makes a filesystem of the rest.
    pub(super) fn copy_head(&self, target: &File, offset: u64) -> Result<()> {
        self.copy_data(target, offset, 0, END)?;
        Ok(target.sync_data()?)
    }

    fn copy_data(&self, target: &File, offset: u64, from: u64, end: u64) -> Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        let mut at = from;
        while at < end {
            at = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(at))?.min(end);
            while at < hole {
                ensure!(!crate::progress::interrupted(), "interrupted");
                let piece = &mut buffer[..(hole - at).min(CHUNK) as usize];
                self.file.read_exact_at(piece, at)?;
                target.write_all_at(piece, offset + at)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is found by `leftovers`.
        let _ = fs::remove_dir_all(self.path.parent().unwrap_or(&self.dir));
        // Another thread may still have one in there.
        let _turn = OUTER.lock();
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Ranges of blocks in use, first and end, from what dumpe2fs(8) says is free.
fn used(text: &str, blocks: u64) -> Result<Vec<(u64, u64)>> {
    let mut free = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks:")) {
        for range in line.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let read =
                |text: &str| text.parse::<u64>().with_context(|| format!("reading free blocks '{range}'"));
            free.push((read(first)?, read(last)?));
        }
    }
    ensure!(!free.is_empty(), "dumpe2fs tells no free blocks of a new filesystem");
    free.sort_unstable();
    let mut used = Vec::new();
    let mut at = 0;
    for (first, last) in free {
        if first > at {
            used.push((at, first.min(blocks)));
        }
        at = at.max(last.saturating_add(1));
    }
    if at < blocks {
        used.push((at, blocks));
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_in_use_are_those_that_are_not_free() {
        let text = "Free blocks:              99\nGroup 0:\n  Free blocks: 10-20, 25\nGroup 1:\n  Free blocks: \n  Free blocks: 40-49\n";
        assert_eq!(used(text, 60).unwrap(), [(0, 10), (21, 25), (26, 40), (50, 60)]);
        assert!(used("", 60).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(ranges in "[0-9,\\- ]{0,40}", blocks in 0u64..100) {
            let _ = used(&format!("  Free blocks: {ranges}"), blocks);
        }
    }
}

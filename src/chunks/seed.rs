//! What this host has already: files whose blocks need not be sent.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::blocks::{GROUP, Hash, Scan, places, scan};
use crate::progress::Progress;

/// Files and where each block of them is found by its hash.
#[derive(Debug, Default)]
pub struct Seeds {
    files: Vec<(PathBuf, File)>,
    groups: HashMap<Hash, Place>,
    blocks: HashMap<Hash, Place>,
}

/// A place in one of the files.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    at: u64,
}

impl Seeds {
    /// Reads a file, and keeps it open. It is only a help: what it gives is checked again at the end.
    pub fn add(&mut self, path: PathBuf, progress: &Progress) -> Result<()> {
        let what = || format!("reading '{}'", path.display());
        let file = File::open(&path).with_context(what)?;
        // Of a device as well.
        let len = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).with_context(what)?;
        let meter = progress.meter(format!("reading '{}'", path.display()), Some(len));
        let mut tick = |done| meter.set(done);
        let scan = scan(&file, len, &mut tick).with_context(what)?;
        self.add_scan(path, file, &scan);
        Ok(())
    }

    /// A file that has been read.
    pub fn add_scan(&mut self, path: PathBuf, file: File, scan: &Scan) {
        let number = self.files.len() as u32;
        let mut blocks = scan.blocks.iter();
        for group in &scan.groups {
            let at = group.number * GROUP;
            self.groups.entry(group.hash).or_insert(Place { file: number, at });
            for (n, hash) in places(group.mask).zip(blocks.by_ref()) {
                let at = at + n * super::blocks::BLOCK as u64;
                self.blocks.entry(*hash).or_insert(Place { file: number, at });
            }
        }
        self.files.push((path, file));
    }

    /// Where a whole group lies.
    pub fn group(&self, hash: &Hash) -> Option<(&File, u64)> {
        self.at(self.groups.get(hash))
    }

    /// Where a block lies.
    pub fn block(&self, hash: &Hash) -> Option<(&File, u64)> {
        self.at(self.blocks.get(hash))
    }

    fn at(&self, place: Option<&Place>) -> Option<(&File, u64)> {
        let place = place?;
        self.files.get(place.file as usize).map(|(_, file)| (file, place.at))
    }
}

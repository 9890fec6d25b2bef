//! An image's files as one disk: each begins with a group of its own.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::blocks::{GROUP, Scan, scan};
use crate::image::manifest::{self, Part};
use crate::image::store::Golden;
use crate::progress::Progress;

/// Files of an image, open.
#[derive(Debug)]
pub struct Parts {
    files: Vec<(PathBuf, File, u64)>,
    firsts: Vec<u64>,
}

impl Parts {
    /// Opens each file; what lies beyond the length that is given with it does not count.
    pub fn open(files: &[(PathBuf, u64)]) -> Result<Self> {
        let open = |(path, len): &(PathBuf, u64)| {
            let file = File::open(path).with_context(|| format!("opening '{}'", path.display()))?;
            Ok((path.clone(), file, *len))
        };
        Ok(Self::of(files.iter().map(open).collect::<Result<_>>()?))
    }

    /// Files that are open already.
    pub fn of(files: Vec<(PathBuf, File, u64)>) -> Self {
        let mut next = 0;
        let first = |(_, _, len): &(PathBuf, File, u64)| {
            let first = next;
            next += len.div_ceil(GROUP);
            first
        };
        let firsts = files.iter().map(first).collect();
        Self { files, firsts }
    }

    /// Reads all of them.
    pub fn scan(&self, progress: &Progress) -> Result<Scan> {
        let mut all = Scan::default();
        for ((path, file, len), first) in self.files.iter().zip(&self.firsts) {
            let meter = progress.meter(format!("reading '{}'", path.display()), Some(*len));
            let mut tick = |done| meter.set(done);
            let found =
                scan(file, *len, &mut tick).with_context(|| format!("reading '{}'", path.display()))?;
            all.append(*first, found);
        }
        Ok(all)
    }

    /// The file that holds this group, where in it, and the file's length.
    pub fn at(&self, group: u64) -> (&File, u64, u64) {
        let n = self.firsts.partition_point(|first| *first <= group).saturating_sub(1);
        let (_, file, len) = &self.files[n];
        (file, (group - self.firsts[n]) * GROUP, *len)
    }
}

/// Files of an image of this host, each with its length; the manifest first.
pub fn of_image(dir: &Path, golden: &Golden) -> Result<Vec<(PathBuf, u64)>> {
    let manifest = &golden.manifest;
    let mut files = vec![dir.join(manifest::FILE), dir.join(manifest::SIGNATURES)];
    files.retain(|path| path.is_file());
    let parts = [&manifest.kernel, &manifest.initrd].into_iter().flatten();
    files.push(dir.join(&manifest.disk.file));
    files.extend(parts.map(|part: &Part| dir.join(&part.file)));
    let length = |path: PathBuf| {
        let len = path.metadata().with_context(|| format!("looking at '{}'", path.display()))?.len();
        Ok((path, len))
    };
    files.into_iter().map(length).collect()
}

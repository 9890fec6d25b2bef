//! The files of a site that are no disks: small ones one after the other in one file, large ones as files of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::manifest::{Entry, Tree, What};
use crate::host::Host;
use crate::progress::Progress;

/// From here on a file is one of its own: what has not changed of it is not sent again.
const LARGE: u64 = 1 << 20;

/// What was gathered so far.
#[derive(Debug)]
pub struct Gathered {
    /// Where large files are put.
    stage: PathBuf,
    /// Directories before what is in them.
    pub entries: Vec<Entry>,
    /// Small files, one after the other.
    pub small: Vec<u8>,
    /// Files of their own.
    pub parts: Vec<(PathBuf, u64)>,
}

/// How a large file gets into the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Large {
    /// As it is now: others write to it.
    Cloned,
    /// By a link: it never changes.
    Linked,
}

impl Gathered {
    /// Nothing yet; `stage` is a directory for large files.
    pub fn into_stage(stage: &Path) -> Self {
        Self { stage: stage.to_owned(), entries: Vec::new(), small: Vec::new(), parts: Vec::new() }
    }

    /// A directory with all regular files in it, and so on. What is not there any more when it is come to, what is hidden, and
    /// what is neither file nor directory is left out; so is what `skip` says, which is given paths in the tree.
    pub fn tree(
        &mut self,
        host: &dyn Host,
        (tree, at): (Tree, &Path),
        from: &Path,
        large: Large,
        skip: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        let Ok(meta) = fs::metadata(from) else { return Ok(()) };
        self.entries.push(Entry { tree, path: at.to_owned(), mode: mode_of(&meta), what: What::Dir });
        for name in host.list(from)?.iter().filter(|name| !name.starts_with('.')) {
            let (inside, path) = (at.join(name), from.join(name));
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if skip(&inside) {
                continue;
            }
            if meta.is_dir() {
                self.tree(host, (tree, &inside), &path, large, skip)?;
            } else if meta.is_file() {
                self.file(host, (tree, &inside), &path, large)?;
            }
        }
        Ok(())
    }

    /// One file.
    pub fn file(
        &mut self,
        host: &dyn Host,
        (tree, at): (Tree, &Path),
        from: &Path,
        large: Large,
    ) -> Result<()> {
        let what = || format!("reading '{}'", from.display());
        let meta = fs::metadata(from).with_context(what)?;
        let mode = mode_of(&meta);
        if meta.len() < LARGE {
            let Some(bytes) = host.read(from)? else { return Ok(()) };
            let what = What::Small { at: self.small.len() as u64, len: bytes.len() as u64 };
            self.entries.push(Entry { tree, path: at.to_owned(), mode, what });
            self.small.extend_from_slice(&bytes);
            return Ok(());
        }
        let part = format!("part-{}", self.parts.len());
        let staged = self.stage.join(&part);
        match large {
            Large::Linked => host.link(&staged, from)?,
            Large::Cloned => drop(host.clone_file(from, &staged, meta.len(), &Progress::silent())?),
        }
        self.part((tree, at), mode, staged)
    }

    /// A file that is in the stage already.
    pub fn part(&mut self, (tree, at): (Tree, &Path), mode: u32, staged: PathBuf) -> Result<()> {
        let what = || format!("looking at '{}'", staged.display());
        let len = fs::metadata(&staged).with_context(what)?.len();
        let part = staged.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.entries.push(Entry { tree, path: at.to_owned(), mode, what: What::Part { part } });
        self.parts.push((staged, len));
        Ok(())
    }
}

fn mode_of(meta: &fs::Metadata) -> u32 {
    meta.permissions().mode() & 0o777
}

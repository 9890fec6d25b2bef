//! A profile's directories and files, and what becomes of those that it had before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::accounts::Accounts;
use super::generation::TOP;
use super::step::{Owned, Step};
use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::profile::document::{Document, File};

/// Steps for directories and files, and what should be known about them.
pub(super) fn steps(
    tree: &dyn Tree,
    document: &Document,
    earlier: Option<&Document>,
    accounts: &Accounts,
) -> Result<(Vec<Step>, Vec<String>)> {
    let mut work = Work { tree, steps: Vec::new(), notes: Vec::new() };
    for directory in &document.directories {
        let (owned, missing) = accounts.owned(&directory.mode, &directory.owner, &directory.group);
        work.stands_in(&directory.path, missing);
        work.steps.push(Step::Dir { path: PathBuf::from(&directory.path), owned });
    }
    let before = |path: &str| earlier.and_then(|earlier| earlier.files.iter().find(|file| file.path == path));
    for file in &document.files {
        if before(&file.path).is_none() {
            work.keep_original(Path::new(&file.path), Some(file.content.as_bytes()))?;
        }
        let (owned, missing) = accounts.owned(&file.mode, &file.owner, &file.group);
        work.stands_in(&file.path, missing);
        let content = file.content.clone().into_bytes();
        work.steps.push(Step::File { path: PathBuf::from(&file.path), content, owned: Some(owned) });
    }
    for path in document.absent.iter().map(Path::new) {
        if before(&path.to_string_lossy()).is_none() {
            work.keep_original(path, None)?;
        }
        if !matches!(tree.entry(path)?, Some(Entry::Dir)) {
            work.steps.push(Step::Remove { path: path.to_owned() });
        }
    }
    if let Some(earlier) = earlier {
        let stays = |path: &str| {
            document.files.iter().any(|file| file.path == path)
                || document.absent.iter().any(|gone| gone == path)
        };
        for file in earlier.files.iter().filter(|file| !stays(&file.path)) {
            work.give_back(file)?;
        }
        for path in earlier.absent.iter().filter(|path| !stays(path)) {
            work.put_original_back(Path::new(path))?;
        }
    }
    Ok((work.steps, work.notes))
}

struct Work<'a> {
    tree: &'a dyn Tree,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Work<'_> {
    fn stands_in(&mut self, path: &str, missing: Option<String>) {
        if let Some(missing) = missing {
            self.notes
                .push(format!("{missing} is not in the guest yet; '{path}' belongs to root until it is"));
        }
    }

    /// What a profile replaces for the first time is kept, so that it can come back.
    fn keep_original(&mut self, path: &Path, new: Option<&[u8]>) -> Result<()> {
        let Some(Entry::File { mode, .. }) = self.tree.entry(path)? else { return Ok(()) };
        let kept = original(path);
        if self.tree.entry(&kept)?.is_some() {
            return Ok(());
        }
        let what = || format!("keeping what '{}' was before the profile", path.display());
        let content = self.tree.read(path).with_context(what)?.unwrap_or_default();
        if new == Some(content.as_slice()) {
            return Ok(());
        }
        let (uid, gid) = self.tree.owner(path)?.unwrap_or_default();
        // Nobody but root has any business there.
        let top = Path::new(TOP).join("originals");
        self.steps.push(Step::Dir { path: top, owned: Owned::root(0o700) });
        self.steps.push(Step::File { path: kept, content, owned: Some(Owned { mode, uid, gid }) });
        Ok(())
    }

    /// A file that the profile has no more: the original comes back, or nothing; unless somebody has changed it since.
    fn give_back(&mut self, file: &File) -> Result<()> {
        let path = Path::new(&file.path);
        match self.tree.entry(path)? {
            Some(Entry::File { .. }) => {}
            None => return Ok(()),
            Some(_) => {
                self.notes.push(format!("'{}' is not the profile's file any more and stays", file.path));
                return Ok(());
            }
        }
        if self.tree.read(path)?.as_deref() != Some(file.content.as_bytes()) {
            self.notes.push(format!("'{}' was changed in the guest and stays", file.path));
            return Ok(());
        }
        if !self.put_original_back(path)? {
            self.steps.push(Step::Remove { path: path.to_owned() });
        }
        Ok(())
    }

    fn put_original_back(&mut self, path: &Path) -> Result<bool> {
        let kept = original(path);
        let Some(Entry::File { mode, .. }) = self.tree.entry(&kept)? else { return Ok(false) };
        let (uid, gid) = self.tree.owner(&kept)?.unwrap_or_default();
        let content = self.tree.read(&kept)?.unwrap_or_default();
        let owned = Some(Owned { mode, uid, gid });
        self.steps.push(Step::File { path: path.to_owned(), content, owned });
        self.steps.push(Step::Remove { path: kept });
        Ok(true)
    }
}

/// Where the original of a path is kept.
fn original(path: &Path) -> PathBuf {
    Path::new(TOP).join("originals").join(path.strip_prefix("/").unwrap_or(path))
}

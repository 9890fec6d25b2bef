//! What can be done to an overlay: each edit says what is to be at a path, and a look sees those that were made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Node, Overlay};
use crate::host::offline::reading::Own;
use crate::host::root::{Change, Entry, FileMode, Kind, LARGEST_READ};
use crate::host::tree::Tree;

impl Tree for Overlay {
    fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        self.at(&self.resolved(path, false)?)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let at = self.resolved(path, true)?;
        if let Some(Node::File { content, .. }) = self.nodes.borrow().get(&at) {
            return Ok(Some(content.clone()));
        }
        match self.at(&at)? {
            None => Ok(None),
            Some(Entry::File { len, .. }) if len <= LARGEST_READ => self.reading.content(&at).map(Some),
            Some(Entry::File { len, .. }) => {
                bail!(
                    "{}: it has {len} bytes, which is more than is ever read from a guest",
                    self.what("reading", path)
                )
            }
            Some(_) => bail!("{}: it is not a regular file", self.what("reading", path)),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let at = self.resolved(path, true)?;
        if self.at(&at)? != Some(Entry::Dir) {
            return Ok(Vec::new());
        }
        let mut names = std::collections::BTreeSet::new();
        if matches!(self.reading.entry(&at)?, Some(Own { entry: Entry::Dir, .. })) && !self.below_gone(&at) {
            self.reading.each_entry(&at, &mut |name, _| {
                names.insert(PathBuf::from(name));
                Ok(true)
            })?;
        }
        for (edited, node) in self.nodes.borrow().iter() {
            if edited.parent() == Some(&at)
                && let Some(name) = edited.file_name().map(PathBuf::from)
            {
                match node {
                    Node::Gone => names.remove(&name),
                    _ => names.insert(name),
                };
            }
        }
        Ok(names.into_iter().collect())
    }

    fn names(&self, path: &Path, each: &mut dyn FnMut(&OsStr, Kind) -> bool) -> Result<()> {
        let at = self.resolved(path, true)?;
        if self.at(&at)? != Some(Entry::Dir) {
            return Ok(());
        }
        let is_edited = |path: &Path| self.nodes.borrow().contains_key(path);
        if self.is_dir(&at)? && !self.below_gone(&at) {
            let mut more = true;
            self.reading.each_entry(&at, &mut |name, kind| {
                if is_edited(&at.join(name)) {
                    return Ok(true);
                }
                more = each(name, kind);
                Ok(more)
            })?;
            if !more {
                return Ok(());
            }
        }
        let edited: Vec<PathBuf> =
            self.nodes.borrow().keys().filter(|path| path.parent() == Some(&at)).cloned().collect();
        for path in edited {
            let (Some(name), Some(entry)) = (path.file_name(), self.at(&path)?) else { continue };
            let kind = match entry {
                Entry::File { .. } => Kind::File,
                Entry::Dir => Kind::Dir,
                Entry::Link(_) => Kind::Link,
                Entry::Special => Kind::Special,
            };
            if !each(name, kind) {
                break;
            }
        }
        Ok(())
    }

    fn make_dir(&self, path: &Path, mode: u32) -> Result<Change> {
        self.make_dirs(&self.resolved(path, true)?, mode)
    }

    fn write(&self, path: &Path, content: &[u8], mode: FileMode) -> Result<Change> {
        let at = self.prepared(path)?;
        let now = self.at(&at)?;
        let bits = match (mode, &now) {
            (FileMode::KeepOr(_), Some(Entry::File { mode, .. })) => *mode,
            (FileMode::KeepOr(bits) | FileMode::Exactly(bits), _) => bits,
        };
        match now {
            Some(Entry::Dir) => bail!("{}: a directory is in the way", self.what("writing", path)),
            Some(Entry::File { mode, len }) => {
                let same = mode == bits
                    && len == content.len() as u64
                    && self.read(&at)?.as_deref() == Some(content);
                if same {
                    return Ok(Change::Same);
                }
            }
            _ => {}
        }
        let own = if self.below_gone(&at) { None } else { self.reading.entry(&at)? };
        let replaces = matches!(own, Some(Own { entry: Entry::File { .. }, .. }));
        let own_owner = own.filter(|_| replaces).map_or((0, 0), |own| own.owner);
        let owner = match self.nodes.borrow().get(&at) {
            Some(Node::File { owner, .. } | Node::Kept { owner, .. }) => *owner,
            _ => own_owner,
        };
        let node = Node::File { content: content.to_vec(), mode: bits, owner, replaces };
        self.nodes.borrow_mut().insert(at, node);
        Ok(Change::Changed)
    }

    fn link(&self, path: &Path, target: &Path) -> Result<Change> {
        let at = self.prepared(path)?;
        match self.at(&at)? {
            Some(Entry::Link(now)) if now == target => return Ok(Change::Same),
            Some(Entry::Dir) => bail!("{}: a directory is in the way", self.what("linking", path)),
            _ => {}
        }
        self.nodes.borrow_mut().insert(at, Node::Link(target.to_owned()));
        Ok(Change::Changed)
    }

    fn remove(&self, path: &Path) -> Result<Change> {
        let at = self.resolved(path, false)?;
        match self.at(&at)? {
            None => Ok(Change::Same),
            Some(Entry::Dir) => bail!("{}: it is a directory", self.what("removing", path)),
            Some(_) => self.take(&at).map(|()| Change::Changed),
        }
    }

    fn owner(&self, path: &Path) -> Result<Option<(u32, u32)>> {
        let at = self.resolved(path, false)?;
        if self.at(&at)?.is_none() {
            return Ok(None);
        }
        match self.nodes.borrow().get(&at) {
            Some(Node::File { owner, .. } | Node::Dir { owner, .. } | Node::Kept { owner, .. }) => {
                Ok(Some(*owner))
            }
            Some(Node::Link(_)) => Ok(Some((0, 0))),
            _ => Ok(self.reading.entry(&at)?.map(|own| own.owner)),
        }
    }

    fn own(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Result<Change> {
        let what = || self.what("changing the owner of", path);
        let at = self.resolved(path, false)?;
        if !matches!(self.at(&at)?, Some(Entry::File { .. } | Entry::Dir)) {
            bail!("{}: it is neither a file nor a directory", what());
        }
        let mut nodes = self.nodes.borrow_mut();
        let asked = (mode, (uid, gid));
        match nodes.get_mut(&at) {
            Some(Node::File { mode, owner, .. } | Node::Dir { mode, owner } | Node::Kept { mode, owner }) => {
                let change = if (*mode, *owner) == asked { Change::Same } else { Change::Changed };
                (*mode, *owner) = asked;
                Ok(change)
            }
            _ => {
                let own = self.reading.entry(&at)?.with_context(what)?;
                if (own.mode, own.owner) == asked {
                    return Ok(Change::Same);
                }
                nodes.insert(at, Node::Kept { mode, owner: (uid, gid) });
                Ok(Change::Changed)
            }
        }
    }

    /// Attributes cannot be read here: a guest with a policy is taken to have labels.
    fn is_labelled(&self) -> Result<bool> {
        Ok(true)
    }

    fn set_label(&self, path: &Path, label: &str) -> Result<()> {
        let at = self.resolved(path, false)?;
        self.labels.borrow_mut().insert(at, label.to_owned());
        Ok(())
    }

    fn volume_label(&self) -> Result<Option<String>> {
        let label = self.new_volume_label().unwrap_or_else(|| self.reading.volume_label().to_owned());
        Ok(Some(label).filter(|label| !label.is_empty()))
    }

    fn set_volume_label(&self, label: &str) -> Result<Change> {
        /// `s_volume_name` (Linux's fs/ext4/ext4.h).
        const LONGEST: usize = 16;
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
        if label.len() > LONGEST || !label.bytes().all(plain) {
            bail!("'{label}' cannot be the label of an ext4 filesystem without a mount");
        }
        if self.volume_label()?.as_deref() == Some(label) {
            return Ok(Change::Same);
        }
        *self.volume_label.borrow_mut() = Some(label.to_owned());
        Ok(Change::Changed)
    }

    fn switch(&self, path: &Path, target: &Path) -> Result<Change> {
        // All edits become true at once, or none of them.
        self.link(path, target)
    }

    fn remove_tree(&self, path: &Path) -> Result<Change> {
        let at = self.resolved(path, false)?;
        match self.at(&at)? {
            None => Ok(Change::Same),
            Some(_) => self.take(&at).map(|()| Change::Changed),
        }
    }
}

//! A filesystem in a file as it would be with some edits made, which are in memory until they are written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::names::{Stands, resolve};
use super::reading::{Own, Reading};
use crate::host::root::{Change, Entry};

mod tree;

/// What is to be at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A regular file.
    File {
        content: Vec<u8>,
        mode: u32,
        /// User and group.
        owner: (u32, u32),
        /// Whether a regular file of the filesystem itself is replaced, which hands on its extended attributes.
        replaces: bool,
    },
    /// A symbolic link.
    Link(PathBuf),
    /// A new directory.
    Dir {
        mode: u32,
        /// User and group.
        owner: (u32, u32),
    },
    /// The file or directory that is there, with these permission bits and this owner.
    Kept {
        mode: u32,
        /// User and group.
        owner: (u32, u32),
    },
    /// Nothing, where something was.
    Gone,
}

/// See the module.
pub struct Overlay {
    reading: Reading,
    label: PathBuf,
    nodes: RefCell<BTreeMap<PathBuf, Node>>,
    /// SELinux labels of what is new.
    labels: RefCell<BTreeMap<PathBuf, String>>,
    /// The label that the filesystem is to have, if another one.
    volume_label: RefCell<Option<String>>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Overlay {
    /// Opens the filesystem in a file, read-only.
    pub fn open(disk: &Path) -> Result<Self> {
        Ok(Self {
            reading: Reading::open(disk)?,
            label: disk.to_owned(),
            nodes: RefCell::default(),
            labels: RefCell::default(),
            volume_label: RefCell::default(),
        })
    }

    /// What is to be different, parents before what is in them.
    pub(super) fn changes(&self) -> BTreeMap<PathBuf, Node> {
        self.nodes.borrow().clone()
    }

    /// SELinux labels of what is new.
    pub(super) fn labels(&self) -> BTreeMap<PathBuf, String> {
        self.labels.borrow().clone()
    }

    /// The label that the filesystem is to have, if another one.
    pub(super) fn new_volume_label(&self) -> Option<String> {
        self.volume_label.borrow().clone()
    }

    /// The first path that is not as the other one has it to be.
    pub(super) fn differs_from(&self, wanted: &Self) -> Result<Option<PathBuf>> {
        if wanted.new_volume_label().is_some_and(|label| self.reading.volume_label() != label) {
            return Ok(Some(PathBuf::from("/")));
        }
        for (path, node) in wanted.nodes.borrow().iter() {
            let now = self.reading.entry(path)?;
            let as_wanted = match (node, now) {
                (Node::Gone, None) => true,
                (Node::Link(target), Some(Own { entry: Entry::Link(now), .. })) => now == *target,
                (Node::Dir { mode, owner }, Some(Own { entry: Entry::Dir, mode: has, owner: is })) => {
                    has == *mode && is == *owner
                }
                (Node::Kept { mode, owner }, Some(own)) => own.mode == *mode && own.owner == *owner,
                (
                    Node::File { content, mode, owner, .. },
                    Some(Own { entry: Entry::File { mode: now, len }, owner: is, .. }),
                ) => {
                    let is_like = now == *mode && is == *owner && len == content.len() as u64;
                    is_like && self.reading.content(path)? == *content
                }
                _ => false,
            };
            if !as_wanted {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    fn what(&self, doing: &str, path: &Path) -> String {
        self.reading.what(doing, path)
    }

    /// Whether the filesystem's own entry at a path is a directory.
    pub(super) fn is_dir(&self, path: &Path) -> Result<bool> {
        self.reading.is_dir(path)
    }

    /// Whether the filesystem's own file at a path is known to have no extended attributes.
    pub(super) fn has_no_attributes(&self, path: &Path) -> bool {
        self.reading.has_no_attributes(path)
    }

    /// Whether what the filesystem itself has at a path is known to have no extended attributes in a block beside it.
    pub(super) fn has_no_attribute_block(&self, path: &Path) -> bool {
        self.reading.has_no_attribute_block(path)
    }

    /// What of the filesystem's own is at the path and in it, what is in a directory before the directory itself, each with
    /// whether it is one: nothing if the directory that is there is wanted.
    pub(super) fn in_the_way(&self, path: &Path, node: &Node) -> Result<Vec<(PathBuf, bool)>> {
        /// More than any list of files to remove has; a directory without end is left to the other engine.
        const MOST: usize = 100_000;
        let mut found = Vec::new();
        let mut open = match (self.reading.entry(path)?, node) {
            (None, _) | (Some(Own { entry: Entry::Dir, .. }), Node::Dir { .. }) | (_, Node::Kept { .. }) => {
                Vec::new()
            }
            (Some(own), _) => vec![(path.to_owned(), own.entry == Entry::Dir)],
        };
        while let Some((path, is_dir)) = open.pop() {
            if is_dir {
                self.reading.each_entry(&path, &mut |name, _| {
                    let at = path.join(name);
                    let is_dir = self.is_dir(&at)?;
                    open.push((at, is_dir));
                    Ok(found.len() + open.len() <= MOST)
                })?;
            }
            if found.len() + open.len() > MOST {
                bail!("{}: there is too much in it", self.what("removing", &path));
            }
            found.push((path, is_dir));
        }
        found.reverse();
        Ok(found)
    }

    /// Whether something above the path is to go, and what is in it with it.
    fn below_gone(&self, path: &Path) -> bool {
        let nodes = self.nodes.borrow();
        path.ancestors().skip(1).any(|above| matches!(nodes.get(above), Some(Node::Gone)))
    }

    /// What is at a path without links on the way, edits included.
    fn at(&self, path: &Path) -> Result<Option<Entry>> {
        match self.nodes.borrow().get(path) {
            Some(Node::File { content, mode, .. }) => {
                return Ok(Some(Entry::File { mode: *mode, len: content.len() as u64 }));
            }
            Some(Node::Link(target)) => return Ok(Some(Entry::Link(target.clone()))),
            Some(Node::Dir { .. }) => return Ok(Some(Entry::Dir)),
            Some(Node::Gone) => return Ok(None),
            Some(Node::Kept { mode, .. }) => {
                return Ok(self.reading.entry(path)?.map(|own| match own.entry {
                    Entry::File { len, .. } => Entry::File { mode: *mode, len },
                    other => other,
                }));
            }
            None => {}
        }
        if self.below_gone(path) { Ok(None) } else { Ok(self.reading.entry(path)?.map(|own| own.entry)) }
    }

    fn resolved(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        let stands = |at: &Path| {
            Ok(match self.at(at)? {
                Some(Entry::Link(target)) => Stands::Link(target),
                Some(_) => Stands::Thing,
                None => Stands::Nothing,
            })
        };
        resolve(path, follow_last, &stands).with_context(|| self.what("looking at", path))
    }

    /// The path, links to its directory followed; every directory on the way is made.
    fn prepared(&self, path: &Path) -> Result<PathBuf> {
        let at = self.resolved(path, false)?;
        if let Some(parent) = at.parent() {
            self.make_dirs(parent, 0o755)?;
        }
        Ok(at)
    }

    fn make_dirs(&self, dir: &Path, mode: u32) -> Result<Change> {
        let mut change = Change::Same;
        let above: Vec<&Path> = dir.ancestors().collect();
        for dir in above.into_iter().rev() {
            match self.at(dir)? {
                Some(Entry::Dir) => {}
                Some(_) => bail!("{}: a link or file is in the way", self.what("making directory", dir)),
                None => {
                    self.nodes.borrow_mut().insert(dir.to_owned(), Node::Dir { mode, owner: (0, 0) });
                    change = Change::Changed;
                }
            }
        }
        Ok(change)
    }

    /// Takes away what the edits have put at a path, and notes that what the filesystem has there goes.
    fn take(&self, at: &Path) -> Result<()> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.retain(|path, _| !path.starts_with(at));
        drop(nodes);
        if self.reading.entry(at)?.is_some() && !self.below_gone(at) {
            self.nodes.borrow_mut().insert(at.to_owned(), Node::Gone);
        }
        Ok(())
    }
}

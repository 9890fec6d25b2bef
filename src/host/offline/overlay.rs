//! A filesystem in a file as it would be with some edits made, which are in memory until they are written.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use ext4_view::{Ext4, Ext4Error, FileType};

use super::names::{Stands, resolve};
use crate::host::root::{Change, Entry, FileMode, Kind, LARGEST_READ};
use crate::host::tree::Tree;

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
    ext4: Ext4,
    label: PathBuf,
    nodes: RefCell<BTreeMap<PathBuf, Node>>,
    /// SELinux labels of what is new.
    labels: RefCell<BTreeMap<PathBuf, String>>,
    /// What was looked at already: a look walks from the filesystem's root, and nobody changes it meanwhile.
    seen: RefCell<HashMap<PathBuf, Option<Own>>>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("label", &self.label).finish_non_exhaustive()
    }
}

/// The filesystem's own record of what is at a path.
#[derive(Clone)]
struct Own {
    entry: Entry,
    /// Permission bits, of directories too.
    mode: u32,
    owner: (u32, u32),
}

impl Overlay {
    /// Opens the filesystem in a file, read-only.
    pub fn open(disk: &Path) -> Result<Self> {
        let ext4 = Ext4::load_from_path(disk).map_err(told);
        let ext4 = ext4.with_context(|| format!("opening the filesystem in '{}'", disk.display()))?;
        Ok(Self {
            ext4,
            label: disk.to_owned(),
            nodes: RefCell::default(),
            labels: RefCell::default(),
            seen: RefCell::default(),
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

    /// The first path that is not as the other one has it to be.
    pub(super) fn differs_from(&self, wanted: &Self) -> Result<Option<PathBuf>> {
        for (path, node) in wanted.nodes.borrow().iter() {
            let now = self.own_entry(path)?;
            let as_wanted = match (node, now) {
                (Node::Gone, None) => true,
                (Node::Link(target), Some(Own { entry: Entry::Link(now), .. })) => now == *target,
                (Node::Dir { mode, owner }, Some(Own { entry: Entry::Dir, mode: has, owner: is })) => {
                    has == *mode && is == *owner
                }
                (Node::Kept { mode, owner }, Some(own)) => own.mode == *mode && own.owner == *owner,
                (
                    Node::File { content, mode, owner, .. },
                    Some(Own { entry: Entry::File { mode: now, .. }, owner: is, .. }),
                ) => now == *mode && is == *owner && self.content(path)? == *content,
                _ => false,
            };
            if !as_wanted {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    fn what(&self, doing: &str, path: &Path) -> String {
        format!("{doing} '{}' in '{}'", path.display(), self.label.display())
    }

    /// The filesystem's own entry at a path without links on the way.
    fn own_entry(&self, path: &Path) -> Result<Option<Own>> {
        if let Some(seen) = self.seen.borrow().get(path) {
            return Ok(seen.clone());
        }
        // What is in nothing is nothing, and most of what is looked for is not there.
        let nowhere =
            path.parent().is_some_and(|parent| matches!(self.seen.borrow().get(parent), Some(None)));
        let found = if nowhere { None } else { self.look(path)? };
        self.seen.borrow_mut().insert(path.to_owned(), found.clone());
        Ok(found)
    }

    fn look(&self, path: &Path) -> Result<Option<Own>> {
        let bytes = path.as_os_str().as_bytes();
        let found = match self.ext4.symlink_metadata(bytes) {
            Ok(found) => found,
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(None),
            Err(error) => return Err(told(error)).with_context(|| self.what("looking at", path)),
        };
        let entry = match found.file_type() {
            FileType::Regular => Entry::File { mode: u32::from(found.mode()) & 0o7777, len: found.len() },
            FileType::Directory => Entry::Dir,
            FileType::Symlink => {
                let target = self.ext4.read_link(bytes).map_err(told);
                let target = target.with_context(|| self.what("looking at", path))?;
                Entry::Link(PathBuf::from(OsStr::from_bytes(target.as_ref())))
            }
            _ => Entry::Special,
        };
        let mode = u32::from(found.mode()) & 0o7777;
        Ok(Some(Own { entry, mode, owner: (found.uid(), found.gid()) }))
    }

    fn content(&self, path: &Path) -> Result<Vec<u8>> {
        self.ext4.read(path.as_os_str().as_bytes()).map_err(told).with_context(|| self.what("reading", path))
    }

    /// Whether the filesystem's own entry at a path is a directory.
    pub(super) fn is_dir(&self, path: &Path) -> Result<bool> {
        Ok(matches!(self.own_entry(path)?, Some(Own { entry: Entry::Dir, .. })))
    }

    /// What of the filesystem's own is at the path and in it, what is in a directory before the directory itself, each with
    /// whether it is one: nothing if the directory that is there is wanted.
    pub(super) fn in_the_way(&self, path: &Path, node: &Node) -> Result<Vec<(PathBuf, bool)>> {
        /// More than any list of files to remove has; a directory without end is left to the other engine.
        const MOST: usize = 100_000;
        let mut found = Vec::new();
        let mut open = match (self.own_entry(path)?, node) {
            (None, _) | (Some(Own { entry: Entry::Dir, .. }), Node::Dir { .. }) | (_, Node::Kept { .. }) => {
                Vec::new()
            }
            (Some(own), _) => vec![(path.to_owned(), own.entry == Entry::Dir)],
        };
        while let Some((path, is_dir)) = open.pop() {
            if is_dir {
                let entries = self.ext4.read_dir(path.as_os_str().as_bytes()).map_err(told);
                for entry in entries.with_context(|| self.what("listing", &path))? {
                    let entry = entry.map_err(told).with_context(|| self.what("listing", &path))?;
                    let name = entry.file_name();
                    let name: &[u8] = name.as_ref();
                    if name != b"." && name != b".." {
                        let at = path.join(OsStr::from_bytes(name));
                        let is_dir = matches!(self.own_entry(&at)?, Some(Own { entry: Entry::Dir, .. }));
                        open.push((at, is_dir));
                    }
                }
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
                return Ok(self.own_entry(path)?.map(|own| match own.entry {
                    Entry::File { len, .. } => Entry::File { mode: *mode, len },
                    other => other,
                }));
            }
            None => {}
        }
        if self.below_gone(path) { Ok(None) } else { Ok(self.own_entry(path)?.map(|own| own.entry)) }
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
        if self.own_entry(at)?.is_some() && !self.below_gone(at) {
            self.nodes.borrow_mut().insert(at.to_owned(), Node::Gone);
        }
        Ok(())
    }
}

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
            Some(Entry::File { len, .. }) if len <= LARGEST_READ => self.content(&at).map(Some),
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
        if matches!(self.own_entry(&at)?, Some(Own { entry: Entry::Dir, .. })) && !self.below_gone(&at) {
            let entries = self.ext4.read_dir(at.as_os_str().as_bytes()).map_err(told);
            for entry in entries.with_context(|| self.what("listing", path))? {
                let entry = entry.map_err(told).with_context(|| self.what("listing", path))?;
                let name = entry.file_name();
                let name: &[u8] = name.as_ref();
                if name != b"." && name != b".." {
                    names.insert(PathBuf::from(OsStr::from_bytes(name)));
                }
            }
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
            let entries = self.ext4.read_dir(at.as_os_str().as_bytes()).map_err(told);
            for entry in entries.with_context(|| self.what("listing", path))? {
                let entry = entry.map_err(told).with_context(|| self.what("listing", path))?;
                let name = entry.file_name();
                let name = OsStr::from_bytes(name.as_ref());
                if name == "." || name == ".." || is_edited(&at.join(name)) {
                    continue;
                }
                let kind = entry.file_type().map_err(told).with_context(|| self.what("listing", path))?;
                let kind = match kind {
                    FileType::Regular => Kind::File,
                    FileType::Directory => Kind::Dir,
                    FileType::Symlink => Kind::Link,
                    _ => Kind::Special,
                };
                if !each(name, kind) {
                    return Ok(());
                }
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
        let own = if self.below_gone(&at) { None } else { self.own_entry(&at)? };
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
            _ => Ok(self.own_entry(&at)?.map(|own| own.owner)),
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
                let own = self.own_entry(&at)?.with_context(what)?;
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

fn told(error: Ext4Error) -> anyhow::Error {
    anyhow!("{error}")
}

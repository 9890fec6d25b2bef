//! One change that a profile makes to a guest's filesystem, as data.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::root::{Change, Entry, FileMode};
use crate::host::tree::Tree;

/// What is to be true of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A directory that belongs to somebody.
    Dir {
        /// Where.
        path: PathBuf,
        /// Its permission bits, user and group.
        owned: Owned,
    },
    /// A file with this content.
    File {
        /// Where.
        path: PathBuf,
        /// All of it.
        content: Vec<u8>,
        /// Whose it is; left to a file that is there, else root's and readable by all, if `None`.
        owned: Option<Owned>,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A symbolic link that changes what it says by one rename.
    Switch {
        /// Where.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// No file or link.
    Remove {
        /// Where.
        path: PathBuf,
    },
    /// Nothing; a directory goes with all that is in it.
    RemoveTree {
        /// Where.
        path: PathBuf,
    },
}

/// Permission bits, user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// Permission bits.
    pub mode: u32,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owned {
    /// Root's.
    pub(super) fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

impl Step {
    /// The path that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Dir { path, .. }
            | Self::File { path, .. }
            | Self::Link { path, .. }
            | Self::Switch { path, .. }
            | Self::Remove { path }
            | Self::RemoveTree { path } => path,
        }
    }

    /// Makes it so. The second time nothing changes.
    pub fn apply(&self, tree: &dyn Tree) -> Result<Change> {
        match self {
            Self::Dir { path, owned } => {
                let made = tree.make_dir(path, owned.mode)?;
                // A link to a directory is the guest's own affair, such as /var/log on another filesystem.
                if !matches!(tree.entry(path)?, Some(Entry::Dir)) {
                    return Ok(made);
                }
                either(made, tree.own(path, owned.uid, owned.gid, owned.mode)?)
            }
            Self::File { path, content, owned: None } => tree.write(path, content, FileMode::KeepOr(0o644)),
            Self::File { path, content, owned: Some(owned) } => {
                // Until it has its owner, nobody else can read it.
                let private = match tree.entry(path)? {
                    Some(Entry::File { .. }) => FileMode::KeepOr(owned.mode),
                    _ => FileMode::Exactly(owned.mode & 0o600),
                };
                let written = tree.write(path, content, private)?;
                either(written, tree.own(path, owned.uid, owned.gid, owned.mode)?)
            }
            Self::Link { path, target } => tree.link(path, target),
            Self::Switch { path, target } => tree.switch(path, target),
            Self::Remove { path } => tree.remove(path),
            Self::RemoveTree { path } => tree.remove_tree(path),
        }
    }
}

fn either(first: Change, second: Change) -> Result<Change> {
    Ok(if first == Change::Changed { first } else { second })
}

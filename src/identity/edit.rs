//! One change to a guest's filesystem, as data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::root::{Change, Entry, FileMode};
use crate::host::tree::Tree;
use crate::identity::initramfs;

/// What is to be true of one path of the guest.
#[derive(Clone, PartialEq, Eq)]
pub enum Edit {
    /// A regular file with this content.
    Write {
        /// Path inside the guest.
        path: PathBuf,
        /// The whole content.
        content: Vec<u8>,
        /// Its mode.
        mode: FileMode,
        /// The numbers of the user and group that it is given to; `None`: whoever owned what was there, else root.
        owner: Option<(u32, u32)>,
        /// Whether the content must not be shown.
        secret: bool,
    },
    /// A symbolic link.
    Link {
        /// Path inside the guest.
        path: PathBuf,
        /// Where it points, as the guest sees it.
        target: PathBuf,
    },
    /// A directory with this mode, made if it is missing.
    Dir {
        /// Path inside the guest.
        path: PathBuf,
        /// Mode of a new one.
        mode: u32,
    },
    /// Nothing (a file or link is removed).
    Remove {
        /// Path inside the guest.
        path: PathBuf,
    },
    /// Nothing (whatever is there is removed, a directory with all that is in it).
    RemoveTree {
        /// Path inside the guest.
        path: PathBuf,
    },
    /// Nothing in the directory, which stays itself.
    Clear {
        /// Path inside the guest.
        path: PathBuf,
    },
    /// The filesystem itself has this label.
    VolumeLabel {
        /// The label.
        label: String,
    },
    /// New ids for old ones in what the kernel unpacks before it has a disk.
    Initramfs {
        /// Path inside the guest.
        path: PathBuf,
        /// Old and new ids.
        renamed: Vec<(String, String)>,
    },
    /// Nothing in the file, which keeps its owner and mode; where there is no file, none is made.
    Empty {
        /// Path inside the guest.
        path: PathBuf,
    },
}

impl Edit {
    /// A text file that anybody may read; one that is there keeps its mode.
    pub fn text(path: &str, content: impl Into<String>) -> Self {
        let content = content.into().into_bytes();
        Self::Write { path: path.into(), content, mode: FileMode::KeepOr(0o644), owner: None, secret: false }
    }

    /// A file that only root may read.
    pub fn secret(path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        Self::Write { path: path.into(), content, mode: FileMode::Exactly(0o600), owner: None, secret: true }
    }

    /// A symbolic link.
    pub fn link(path: &str, target: &str) -> Self {
        Self::Link { path: path.into(), target: target.into() }
    }

    /// A file or link that must not be there.
    pub fn remove(path: impl Into<PathBuf>) -> Self {
        Self::Remove { path: path.into() }
    }

    /// The path that it is about; the top for what is about the filesystem itself.
    pub fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. }
            | Self::Link { path, .. }
            | Self::Dir { path, .. }
            | Self::Remove { path }
            | Self::RemoveTree { path }
            | Self::Clear { path }
            | Self::Initramfs { path, .. }
            | Self::Empty { path } => path,
            Self::VolumeLabel { .. } => Path::new("/"),
        }
    }

    /// Makes it so. Twice is fine: the second time nothing changes.
    pub fn apply(&self, root: &dyn Tree) -> Result<Change> {
        match self {
            Self::Write { path, content, mode, owner, .. } => {
                let written = root.write(path, content, *mode)?;
                let Some((uid, gid)) = *owner else { return Ok(written) };
                let (FileMode::KeepOr(bits) | FileMode::Exactly(bits)) = *mode;
                let owned = root.own(path, uid, gid, bits)?;
                Ok(if owned == Change::Changed { owned } else { written })
            }
            Self::Link { path, target } => root.link(path, target),
            Self::Dir { path, mode } => root.make_dir(path, *mode),
            Self::Remove { path } => root.remove(path),
            Self::RemoveTree { path } => root.remove_tree(path),
            Self::Clear { path } => root.clear(path),
            Self::VolumeLabel { label } => root.set_volume_label(label),
            Self::Initramfs { path, renamed } => {
                let root = root.as_root().context("an initramfs is written anew only where it is mounted")?;
                initramfs::apply(root, path, renamed)
            }
            // A new file takes the old one's place: the old one may have another name, under which it is something else.
            Self::Empty { path } => match root.entry(path)? {
                Some(Entry::File { len: 1.., mode }) => root.write(path, b"", FileMode::KeepOr(mode)),
                _ => Ok(Change::Same),
            },
        }
    }
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { path, secret: true, content, .. } => {
                write!(f, "write {} ({} bytes, secret)", path.display(), content.len())
            }
            Self::Write { path, content, .. } => {
                write!(f, "write {}: {:?}", path.display(), String::from_utf8_lossy(content))
            }
            Self::Link { path, target } => write!(f, "link {} -> {}", path.display(), target.display()),
            Self::Dir { path, mode } => write!(f, "directory {} ({mode:o})", path.display()),
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::RemoveTree { path } => write!(f, "remove {} and all that is in it", path.display()),
            Self::Clear { path } => write!(f, "clear {}", path.display()),
            Self::Initramfs { path, .. } => write!(f, "new ids in {}", path.display()),
            Self::Empty { path } => write!(f, "empty {}", path.display()),
            Self::VolumeLabel { label } => write!(f, "label the filesystem {label:?}"),
        }
    }
}

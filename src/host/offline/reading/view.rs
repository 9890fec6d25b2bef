//! What `ext4-view` tells, by paths.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, anyhow};
use ext4_view::{Ext4, Ext4Error, FileType, Metadata};

use super::{At, Known, LONGEST, Listing, Own};
use crate::host::root::{Entry, Kind};

/// What a path that the view has metadata of is.
pub(super) fn entry(view: &Ext4, path: &[u8], found: &Metadata) -> Result<Own> {
    let mode = u32::from(found.mode()) & 0o7777;
    let entry = match found.file_type() {
        FileType::Regular => Entry::File { mode, len: found.len() },
        FileType::Directory => Entry::Dir,
        FileType::Symlink => {
            let target = view.read_link(path).map_err(told)?;
            Entry::Link(PathBuf::from(OsStr::from_bytes(target.as_ref())))
        }
        _ => Entry::Special,
    };
    Ok(Own { entry, mode, owner: (found.uid(), found.gid()) })
}

/// What is in a directory.
pub(super) fn list(view: &Ext4, dir: &Path) -> Result<Listing, Ext4Error> {
    let entries = match view.read_dir(dir.as_os_str().as_bytes()) {
        Ok(entries) => entries,
        Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(Listing::None),
        Err(error) => return Err(error),
    };
    let mut found = HashMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().as_ref().to_vec();
        if name != b"." && name != b".." {
            found.insert(name, Known { kind: kind(entry.file_type()?), at: At::View(Rc::new(entry)) });
        }
        if found.len() > LONGEST {
            return Ok(Listing::TooLong);
        }
    }
    Ok(Listing::Whole(Rc::new(found)))
}

/// What the view says that something is.
pub(super) fn kind(found: FileType) -> Kind {
    match found {
        FileType::Regular => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Link,
        _ => Kind::Special,
    }
}

/// The view's error as one of ours.
pub(super) fn told(error: Ext4Error) -> anyhow::Error {
    anyhow!("{error}")
}

//! What our own reader tells, by numbers of inodes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use rustix::fs::FileType;

use super::{At, Known, LONGEST, Listing, Own};
use crate::host::ext4::{Ext4, Inode};
use crate::host::root::{Entry, Kind};

/// Whom names, what they are and their numbers are told to, until he has enough and gives `false`.
pub(super) type Each<'e> = &'e mut dyn FnMut(&[u8], Kind, u32) -> Result<bool>;

/// What a name is: directories of old filesystems leave it to the inode.
fn kind_of(filesystem: &Ext4, said: FileType, number: u32) -> Result<Kind> {
    Ok(match said {
        FileType::Unknown => filesystem.inode(number)?.kind().into(),
        said => said.into(),
    })
}

/// Looks for one name in a directory that has too many to keep.
pub(super) fn find(filesystem: &Ext4, dir: &Inode, name: &[u8]) -> Result<Option<u32>> {
    let mut number = None;
    filesystem.each_name(dir, &mut |found| {
        if found.name != name {
            return ControlFlow::Continue(());
        }
        number = Some(found.number);
        ControlFlow::Break(())
    })?;
    Ok(number)
}

/// Tells all that a directory names.
pub(super) fn each_name(filesystem: &Ext4, dir: &Inode, each: Each<'_>) -> Result<()> {
    let mut ended = Ok(true);
    filesystem.each_name(dir, &mut |name| {
        ended =
            kind_of(filesystem, name.kind, name.number).and_then(|kind| each(name.name, kind, name.number));
        if matches!(ended, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    ended.map(|_| ())
}

/// What is in a directory.
pub(super) fn list(filesystem: &Ext4, dir: &Inode) -> Result<Listing> {
    let mut found = HashMap::new();
    each_name(filesystem, dir, &mut |name, kind, number| {
        found.insert(name.to_vec(), Known { kind, at: At::Number(number) });
        Ok(found.len() <= LONGEST)
    })?;
    Ok(if found.len() > LONGEST { Listing::TooLong } else { Listing::Whole(Rc::new(found)) })
}

/// What an inode is.
pub(super) fn entry(filesystem: &Ext4, inode: &Inode) -> Result<Own> {
    let mode = inode.mode & 0o7777;
    let entry = match Kind::from(inode.kind()) {
        Kind::File => Entry::File { mode, len: inode.len },
        Kind::Dir => Entry::Dir,
        Kind::Link => Entry::Link(PathBuf::from(OsStr::from_bytes(&inode.target(filesystem)?))),
        Kind::Special => Entry::Special,
    };
    Ok(Own { entry, mode, owner: (inode.uid, inode.gid) })
}

//! A filesystem that is read without a mount, as a source.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::entry::{Content, Entry, KEPT_FLAGS, Kind, Time};
use super::limits::Limits;
use super::source::{CHANGED, First, STEP, Sink, Source, Surveyed};
use crate::host::ext4::{Ext4, Inode, TOP};

/// See the module. It remembers which inode each file was.
#[derive(Debug)]
pub struct Offline {
    filesystem: Ext4,
    inodes: std::sync::Mutex<std::collections::HashMap<Vec<u8>, u32>>,
}

impl Offline {
    /// All of that filesystem.
    pub fn new(filesystem: Ext4) -> Self {
        Self { filesystem, inodes: std::sync::Mutex::default() }
    }

    fn look(&self, path: Vec<u8>, inode: &Inode) -> Result<Surveyed> {
        let (major, minor) = inode.device;
        let mut first = First::default();
        let kind = match inode.kind() {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => {
                let data = self.filesystem.data(inode)?;
                let pieces = self.filesystem.pieces(&data, inode.len);
                if let Some((offset, len)) = pieces.first()
                    && *len >= first.len() as u64
                {
                    self.filesystem.read_at(&data, &mut first, *offset)?;
                }
                Kind::File(Content { len: inode.len, blake3: [0; 32], data: pieces })
            }
            FileType::Symlink => Kind::SymbolicLink(inode.target(&self.filesystem)?),
            FileType::CharacterDevice => Kind::CharacterDevice(major, minor),
            FileType::BlockDevice => Kind::BlockDevice(major, minor),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => bail!("it is of a type that is not known"),
        };
        let has_flags = matches!(kind, Kind::Directory | Kind::File(_));
        let entry = Entry {
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            modified: Time { seconds: inode.modified.0, nanoseconds: inode.modified.1 },
            attributes: inode.attributes.clone(),
            flags: if has_flags { inode.flags & KEPT_FLAGS } else { 0 },
            path,
            kind,
        };
        let has_more_names = entry.kind != Kind::Directory && inode.names > 1;
        Ok(Surveyed { entry, inode: has_more_names.then_some(inode.number.into()), first })
    }
}

impl Source for Offline {
    fn survey(&self, each: &mut dyn FnMut(Surveyed) -> Result<()>) -> Result<()> {
        let top = self.filesystem.inode(TOP)?;
        if top.kind() != FileType::Directory {
            bail!("its top is no directory");
        }
        each(self.look(Vec::new(), &top)?)?;
        let mut seen = HashSet::from([TOP]);
        let mut dirs = vec![(Vec::new(), top)];
        let mut count = 0;
        while let Some((dir, inode)) = dirs.pop() {
            let what = || format!("reading the directory '{}'", dir.escape_ascii());
            for (name, number) in self.filesystem.names(&inode).with_context(what)? {
                count += 1;
                if count > Limits::default().entries || crate::progress::interrupted() {
                    bail!("interrupted, or more than {} entries", Limits::default().entries);
                }
                let path = if dir.is_empty() { name } else { [&dir[..], b"/", &name].concat() };
                let what = || format!("looking at '{}'", path.escape_ascii());
                let found = self.filesystem.inode(number).with_context(what)?;
                let surveyed = self.look(path.clone(), &found).with_context(what)?;
                match surveyed.entry.kind {
                    Kind::Directory if !seen.insert(number) => {
                        bail!("{}: it is there under another name", what())
                    }
                    Kind::Directory => dirs.push((path, found)),
                    Kind::File(_) => {
                        if let Ok(mut inodes) = self.inodes.lock() {
                            inodes.insert(path, number);
                        }
                    }
                    _ => {}
                }
                each(surveyed)?;
            }
        }
        Ok(())
    }

    fn data(&self, entry: &Entry, content: &Content, each: Sink<'_>) -> Result<()> {
        let number =
            self.inodes.lock().ok().and_then(|inodes| inodes.get(&entry.path).copied()).context(CHANGED)?;
        let inode = self.filesystem.inode(number)?;
        let data = self.filesystem.data(&inode)?;
        let there = self.filesystem.pieces(&data, inode.len);
        let is_there = |(offset, len): &(u64, u64)| {
            let before = there.partition_point(|(from, _)| from <= offset).checked_sub(1);
            before.is_some_and(|piece| offset + len <= there[piece].0 + there[piece].1)
        };
        if inode.len != content.len || !content.data.iter().all(is_there) {
            bail!(CHANGED);
        }
        let mut buffer = vec![0; STEP.min(content.len as usize)];
        for (offset, len) in &content.data {
            let (mut at, end) = (*offset, offset + len);
            while at < end {
                let piece = &mut buffer[..(end - at).min(STEP as u64) as usize];
                self.filesystem.read_at(&data, piece, at)?;
                each(piece)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }
}

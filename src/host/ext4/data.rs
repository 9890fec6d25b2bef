//! What a file holds, in whichever of the forms that it may have.

use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::{Ext4, Inode, extents, indirect};

/// Blocks of a file that lie side by side, and have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first of them in the file.
    pub logical: u64,
    /// How many.
    pub blocks: u64,
    /// The first of them in the filesystem.
    pub physical: u64,
}

/// Where a file's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'i> {
    /// In blocks, ascending.
    Blocks(Vec<Extent>),
    /// In its inode, from its first byte on.
    Inline(&'i [u8]),
}

impl Ext4 {
    /// Where the data of a file or link is.
    pub fn data<'i>(&self, inode: &'i Inode) -> Result<Data<'i>> {
        Ok(match &inode.inline {
            Some(inline) => Data::Inline(&inline[..inline.len().min(inode.len as usize)]),
            None => Data::Blocks(self.extents(inode)?),
        })
    }

    /// Its extents, ascending. What is no data is left out: holes, and space that was set aside and never written.
    pub(super) fn extents(&self, inode: &Inode) -> Result<Vec<Extent>> {
        if inode.has_extents { extents::all(self, inode) } else { indirect::all(self, inode) }
    }

    /// Offset and length of each piece of a file's data, as `SEEK_DATA` and `SEEK_HOLE` tell them.
    pub fn pieces(&self, data: &Data<'_>, len: u64) -> Vec<(u64, u64)> {
        let extents = match data {
            Data::Blocks(extents) => extents,
            Data::Inline([]) => return Vec::new(),
            Data::Inline(bytes) => return vec![(0, (bytes.len() as u64).min(len))],
        };
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        for extent in extents {
            let (from, end) =
                (extent.logical * self.block, ((extent.logical + extent.blocks) * self.block).min(len));
            match pieces.last_mut() {
                _ if from >= end => {}
                Some((before, long)) if *before + *long == from => *long = end - *before,
                _ => pieces.push((from, end - from)),
            }
        }
        pieces
    }

    /// All that a regular file holds, holes as zeros. The caller has looked at its length.
    pub fn content(&self, file: &Inode) -> Result<Vec<u8>> {
        let what = || format!("reading inode {} of '{}'", file.number, self.path.display());
        if file.kind() != FileType::RegularFile {
            bail!("{}: it is no regular file", what());
        }
        let mut content = vec![0; usize::try_from(file.len).with_context(what)?];
        let data = self.data(file).with_context(what)?;
        for (offset, len) in self.pieces(&data, file.len) {
            let piece = &mut content[offset as usize..(offset + len) as usize];
            self.read_at(&data, piece, offset).with_context(what)?;
        }
        Ok(content)
    }

    /// Bytes of a file, out of its data.
    pub fn read_at(&self, data: &Data<'_>, bytes: &mut [u8], offset: u64) -> Result<()> {
        let extents = match data {
            Data::Blocks(extents) => extents,
            Data::Inline(inline) => {
                let from = usize::try_from(offset)?;
                let there = from.checked_add(bytes.len()).and_then(|end| inline.get(from..end));
                bytes.copy_from_slice(there.with_context(|| format!("byte {offset} is in a hole"))?);
                return Ok(());
            }
        };
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let block = at / self.block;
            // The last one that begins before it.
            let before = extents.partition_point(|extent| extent.logical <= block);
            let extent = before.checked_sub(1).and_then(|number| extents.get(number));
            let extent = extent.filter(|extent| block < extent.logical + extent.blocks);
            let Some(extent) = extent else { bail!("byte {at} is in a hole") };
            let inside = at - extent.logical * self.block;
            let now = (extent.blocks * self.block - inside).min((bytes.len() - done) as u64) as usize;
            let from = self.place(extent.physical, extent.blocks)? + inside;
            self.file.read_exact_at(&mut bytes[done..done + now], from)?;
            done += now;
        }
        Ok(())
    }
}

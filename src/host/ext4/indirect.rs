//! Where the data of a file is, as ext2 and ext3 have it: the numbers of its first blocks, then that of a block of numbers, of a block
//! of such blocks, and of one of those (`Documentation/filesystems/ext4/blockmap.rst` of Linux). 0 is a hole, of all that would be
//! below. None of these blocks has a checksum.

use std::collections::HashSet;

use anyhow::{Result, bail};

use super::{Ext4, Extent, Fields, Inode};

/// Numbers of blocks of data in the inode (EXT4_NDIR_BLOCKS).
const DIRECT: usize = 12;
/// How deep the deepest of its trees is.
const DEEPEST: u32 = 3;
const NUMBER: usize = 4;
/// Where the last of them stands.
#[cfg(test)]
pub(super) const TRIPLE: usize = (DIRECT + 2) * NUMBER;

/// The extents of an inode that has lists of blocks: what lies side by side is one.
pub(super) fn all(filesystem: &Ext4, inode: &Inode) -> Result<Vec<Extent>> {
    let end = inode.len.div_ceil(filesystem.block);
    let mut walk = Walk { filesystem, end, next: 0, told: 0, nodes: HashSet::new(), found: Vec::new() };
    let depths = std::iter::repeat_n(0, DIRECT).chain(1..=DEEPEST);
    for (at, depth) in depths.enumerate() {
        walk.number(Fields(&inode.block).u32(at * NUMBER), depth)?;
    }
    if walk.next < end {
        bail!("it is longer than its lists of blocks can be");
    }
    Ok(walk.found)
}

struct Walk<'f> {
    filesystem: &'f Ext4,
    /// So many blocks the file's length takes; nobody looks behind it.
    end: u64,
    /// The block of the file that comes next.
    next: u64,
    told: u64,
    nodes: HashSet<u32>,
    found: Vec<Extent>,
}

impl Walk<'_> {
    fn number(&mut self, number: u32, depth: u32) -> Result<()> {
        if self.next >= self.end {
            return Ok(());
        }
        if number == 0 {
            let per_block = self.filesystem.block / NUMBER as u64;
            self.next += per_block.pow(depth);
            return Ok(());
        }
        if depth == 0 {
            return self.data(number.into());
        }
        // One that stands in two places would make a short list as long as somebody likes.
        if !self.nodes.insert(number) {
            bail!("its lists of blocks go in circles");
        }
        let block = self.filesystem.read_block(number.into())?;
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        for at in (0..block.len()).step_by(NUMBER) {
            self.number(Fields(&block).u32(at), depth - 1)?;
        }
        Ok(())
    }

    fn data(&mut self, physical: u64) -> Result<()> {
        self.filesystem.place(physical, 1)?;
        self.told += 1;
        // No two of them are one block, unless somebody made it so.
        if self.told > self.filesystem.blocks {
            bail!("it has more blocks than the filesystem");
        }
        let logical = self.next;
        self.next += 1;
        match self.found.last_mut() {
            Some(last)
                if last.logical + last.blocks == logical && last.physical + last.blocks == physical =>
            {
                last.blocks += 1;
            }
            _ => self.found.push(Extent { logical, blocks: 1, physical }),
        }
        Ok(())
    }
}

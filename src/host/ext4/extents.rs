//! Where the data of a file is, as ext4 has it: pieces, and trees of them.

use anyhow::{Result, bail};

use super::checksum::Sum;
use super::{Ext4, Extent, Fields, Inode};

const MAGIC: u16 = 0xf30a;
/// Deeper trees are never made (EXT4_MAX_EXTENT_DEPTH).
const DEEPEST: u16 = 5;
/// An extent that is longer is so much shorter and reads as zeros: it is a hole to whoever asks (`SEEK_DATA`).
const UNWRITTEN: u64 = 0x8000;

/// The extents of an inode that has a list of them. Space that was set aside and never written is left out.
pub(super) fn all(filesystem: &Ext4, inode: &Inode) -> Result<Vec<Extent>> {
    let mut walk = Walk { filesystem, sum: inode.sum, found: Vec::new(), end: 0, nodes: 0 };
    walk.node(&inode.block, None)?;
    Ok(walk.found)
}

struct Walk<'f> {
    filesystem: &'f Ext4,
    sum: Option<Sum>,
    found: Vec<Extent>,
    /// Blocks of the file up to this one have been told.
    end: u64,
    nodes: u64,
}

impl Walk<'_> {
    fn node(&mut self, bytes: &[u8], depth: Option<u16>) -> Result<()> {
        let at = Fields(bytes);
        let (entries, found) = (usize::from(at.u16(2)), at.u16(6));
        let fits = entries < bytes.len() / 12;
        if at.u16(0) != MAGIC || !fits || depth.map_or(found > DEEPEST, |depth| depth != found) {
            bail!("its list of extents is damaged");
        }
        self.nodes += 1;
        // No two of them are one block, unless somebody made it so.
        if self.nodes > self.filesystem.blocks {
            bail!("its list of extents goes in circles");
        }
        for number in 0..entries {
            let entry = Fields(&bytes[12 + number * 12..]);
            if found > 0 {
                let below = u64::from(entry.u32(4)) | u64::from(entry.u16(8)) << 32;
                let block = self.filesystem.read_block(below)?;
                if let Some(sum) = self.sum {
                    sum.check_extents(&block)?;
                }
                self.node(&block, Some(found - 1))?;
                continue;
            }
            let (logical, len) = (u64::from(entry.u32(0)), u64::from(entry.u16(4)));
            let physical = u64::from(entry.u32(8)) | u64::from(entry.u16(6)) << 32;
            let (blocks, is_written) = if len > UNWRITTEN { (len - UNWRITTEN, false) } else { (len, true) };
            if blocks == 0 || logical < self.end {
                bail!("its list of extents is damaged");
            }
            self.filesystem.place(physical, blocks)?;
            self.end = logical + blocks;
            if is_written {
                self.found.push(Extent { logical, blocks, physical });
            }
        }
        Ok(())
    }
}

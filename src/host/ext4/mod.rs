//! An ext4 filesystem in a file, or its elders ext2 and ext3, read without the kernel: all that it holds, and nothing is written.
//!
//! What `ext4-view` leaves out is what a packed image must not lose: attributes, flags, inode numbers, device numbers, holes. The
//! filesystem is hostile: every number in it is checked before it is used, no structure is walked through twice, checksums are held against
//! what they are of, and what this does not know is refused, never passed over. Places in structures are those of the kernel's `Documentation/filesystems/ext4/`.

mod attributes;
mod checksum;
mod data;
mod extents;
mod indirect;
mod inode;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use checksum::Sum;
use rustix::fs::FileType;

pub use data::{Data, Extent};
pub use inode::Inode;

/// The number of the top directory (EXT4_ROOT_INO).
pub const TOP: u32 = 2;

/// Features that change what is where, and that this knows: file types in directories, extents, 64 bit, flexible groups, seed of
/// checksums, large directories, data in inodes.
const KNOWN: u32 = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000 | 0x8000;
/// What was written last is in the journal only.
const NEEDS_RECOVERY: u32 = 0x4;
const IS_64_BIT: u32 = 0x80;
const HAS_LARGE_DIRS: u32 = 0x4000;
const HAS_INLINE: u32 = 0x8000;
/// How inodes are where the superblock does not say it (`EXT4_GOOD_OLD_REV`).
const OLD_INODE: u64 = 128;

/// A filesystem that is open for reading. Nothing may write to it meanwhile.
#[derive(Debug)]
pub struct Ext4 {
    file: File,
    path: PathBuf,
    block: u64,
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u64,
    descriptors: u64,
    descriptor_size: u64,
    has_large_dirs: bool,
    has_inline: bool,
    sum: Option<Sum>,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Name<'b> {
    /// The name; neither `.` nor `..`.
    pub name: &'b [u8],
    /// Its inode's number.
    pub number: u32,
    /// What the directory says that it is.
    pub kind: FileType,
}

impl Ext4 {
    /// Opens it; what this cannot read in full is told here.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("reading the filesystem in '{}'", path.display());
        let file = File::open(path).with_context(what)?;
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, 1024).with_context(what)?;
        let at = Fields(&bytes);
        if at.u16(0x38) != 0xef53 {
            bail!("{}: it is not ext4", what());
        }
        let incompatible = at.u32(0x60);
        if incompatible & NEEDS_RECOVERY != 0 {
            bail!("{}: it was not unmounted, and what was written last is in its journal only", what());
        }
        let revision = at.u32(0x4c);
        if incompatible & !KNOWN != 0 || revision > 1 {
            bail!(
                "{}: it has features that are not read without a mount ({:#x}); hint: run it as root, without --offline",
                what(),
                incompatible & !KNOWN
            );
        }
        let (log, is_64) = (at.u32(0x18), incompatible & IS_64_BIT != 0);
        let blocks = u64::from(at.u32(4)) | if is_64 { u64::from(at.u32(0x150)) << 32 } else { 0 };
        let descriptor_size = if is_64 { u64::from(at.u16(0xfe)) } else { 32 };
        let inode_size = if revision == 0 { OLD_INODE } else { u64::from(at.u16(0x58)) };
        let (inodes, inodes_per_group) = (at.u32(0), at.u32(0x28));
        let is_sound = log <= 6
            && (32..=1024).contains(&descriptor_size)
            && inode_size.is_power_of_two()
            && (128..=(1024 << log)).contains(&inode_size)
            && inodes_per_group > 0;
        if !is_sound {
            bail!("{}: its superblock is damaged", what());
        }
        let block = 1024 << log;
        let descriptors = (u64::from(at.u32(0x14)) + 1) * block;
        let sum = Sum::of_filesystem(at).with_context(what)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            block,
            blocks,
            inodes,
            inodes_per_group,
            inode_size,
            descriptors,
            descriptor_size,
            has_large_dirs: incompatible & HAS_LARGE_DIRS != 0,
            has_inline: incompatible & HAS_INLINE != 0,
            sum,
        })
    }

    /// What stands in the inode of that number.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let what = || format!("reading inode {number} of '{}'", self.path.display());
        if number == 0 || number > self.inodes {
            bail!("{}: there is none of that number", what());
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let mut bytes = vec![0; self.descriptor_size as usize];
        let at = self.descriptors + u64::from(group) * self.descriptor_size;
        self.file.read_exact_at(&mut bytes, at).with_context(what)?;
        if let Some(sum) = self.sum {
            sum.check_group(group, &bytes).with_context(what)?;
        }
        let descriptor = Fields(&bytes);
        let high = if self.descriptor_size >= 64 { u64::from(descriptor.u32(0x28)) << 32 } else { 0 };
        let table = self.place(u64::from(descriptor.u32(8)) | high, 1).with_context(what)?;
        let mut bytes = vec![0; self.inode_size as usize];
        self.file.read_exact_at(&mut bytes, table + u64::from(index) * self.inode_size).with_context(what)?;
        Inode::parse(self, number, &bytes).with_context(what)
    }

    /// Names in a directory, with the numbers of their inodes, in no order.
    pub fn names(&self, dir: &Inode) -> Result<Vec<(Vec<u8>, u32)>> {
        let mut names = Vec::new();
        self.each_name(dir, &mut |name| {
            names.push((name.name.to_vec(), name.number));
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Tells the names in a directory, in no order, until that is enough.
    pub fn each_name(&self, dir: &Inode, each: EachName<'_>) -> Result<()> {
        let what = || format!("reading the directory of inode {} of '{}'", dir.number, self.path.display());
        if dir.kind() != FileType::Directory {
            bail!("{}: it is none", what());
        }
        if let Some(inline) = &dir.inline {
            // The number of the directory above comes first. The inode's sum is over all of them.
            for names in [&inline[4..inode::IN_BLOCK], &inline[inode::IN_BLOCK..]] {
                if names_in(names, each).with_context(what)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let mut block = vec![0; self.block as usize];
        let extents = self.extents(dir).with_context(what)?;
        // No two of a directory's blocks are one, unless somebody made it so.
        if extents.iter().map(|extent| extent.blocks).sum::<u64>() > self.blocks {
            bail!("{}: it is larger than the filesystem", what());
        }
        for extent in extents {
            for number in 0..extent.blocks {
                let at = self.place(extent.physical + number, 1).with_context(what)?;
                self.file.read_exact_at(&mut block, at).with_context(what)?;
                if let Some(sum) = dir.sum {
                    let is_first = extent.logical + number == 0;
                    sum.check_names(&block, dir.is_indexed, is_first).with_context(what)?;
                }
                if names_in(&block, each).with_context(what)?.is_break() {
                    return Ok(());
                }
                if crate::progress::interrupted() {
                    bail!("interrupted");
                }
            }
        }
        Ok(())
    }

    /// Length of a block.
    pub fn block_len(&self) -> u64 {
        self.block
    }

    /// Where so many blocks are in the file.
    fn place(&self, block: u64, count: u64) -> Result<u64> {
        let end = block.checked_add(count).filter(|end| *end <= self.blocks);
        let Some(at) = end.and_then(|_| block.checked_mul(self.block)).filter(|_| block > 0) else {
            bail!("block {block} is not in the filesystem")
        };
        Ok(at)
    }

    fn read_block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.block as usize];
        self.file.read_exact_at(&mut bytes, self.place(block, 1)?)?;
        Ok(bytes)
    }
}

/// Whom names are told to, one after the other, until that is enough.
pub type EachName<'e> = &'e mut dyn FnMut(Name<'_>) -> ControlFlow<()>;

/// Entries of one block; inner nodes of large directories, and checksums, look like ones without an inode.
fn names_in(block: &[u8], each: EachName<'_>) -> Result<ControlFlow<()>> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let entry = Fields(&block[at..]);
        let len = match usize::from(entry.u16(4)) {
            // In blocks of 64 KiB all of it cannot be said otherwise.
            0 | 0xffff if block.len() == 64 << 10 => block.len() - at,
            len => len,
        };
        let name_len = usize::from(block[at + 6]);
        if len < 8 || len > block.len() - at || name_len > len - 8 {
            bail!("it is damaged");
        }
        let number = entry.u32(0);
        let name = &block[at + 8..at + 8 + name_len];
        if number != 0 && !matches!(name, b"." | b"..") {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                bail!("it has a name that is none: '{}'", name.escape_ascii());
            }
            let kind = kind_in_directory(block[at + 7]);
            if each(Name { name, number, kind }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        at += len;
    }
    Ok(ControlFlow::Continue(()))
}

/// `EXT4_FT_...` of fs/ext4/ext4.h.
fn kind_in_directory(number: u8) -> FileType {
    match number {
        1 => FileType::RegularFile,
        2 => FileType::Directory,
        3 => FileType::CharacterDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => FileType::Unknown,
    }
}

/// Numbers in a structure, least byte first; what is not there is 0.
#[derive(Clone, Copy)]
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn u16(self, at: usize) -> u16 {
        self.0.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
    }

    fn u32(self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;

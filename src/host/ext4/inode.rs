//! What an inode says.

use anyhow::{Context, Result, bail};
use rustix::fs::FileType;

use super::checksum::Sum;
use super::{Ext4, Fields, attributes};

/// One thing of the filesystem, as lstat(2) and its companions would tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length.
    pub len: u64,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// How many names it has.
    pub names: u32,
    /// Flags that `FS_IOC_GETFLAGS` shows.
    pub flags: u32,
    /// Extended attributes as the kernel gives them, sorted.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether some of them are in a block beside it, which other inodes may share.
    pub has_attribute_block: bool,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// `i_block`: extents, blocks, or what is short enough to stand there.
    pub(super) block: [u8; IN_BLOCK],
    /// Whether that is a list of extents; otherwise it is one of blocks, if the inode has any.
    pub(super) has_extents: bool,
    /// All that there is of a small file or directory, or of a link, that has no blocks (`inline_data`).
    pub(super) inline: Option<Vec<u8>>,
    /// Of a directory: whether it has an index.
    pub(super) is_indexed: bool,
    /// What checksums of its blocks begin with, if it has any.
    pub(super) sum: Option<Sum>,
}

/// Length of `i_block`.
pub(super) const IN_BLOCK: usize = 60;
const EXTENTS: u32 = 0x8_0000;
/// `EXT4_INLINE_DATA_FL`.
const INLINE: u32 = 0x1000_0000;
/// `EXT4_INDEX_FL`.
const INDEX: u32 = 0x1000;
/// Flags of what is in other inodes, encrypted, of a directory regardless of case.
const UNREADABLE: u32 = 0x20_0000 | 0x800 | 0x4000_0000;
/// `EXT4_FL_USER_VISIBLE` of fs/ext4/ext4.h.
const VISIBLE: u32 = 0x725b_dfff;

impl Inode {
    pub(super) fn parse(filesystem: &Ext4, number: u32, bytes: &[u8]) -> Result<Self> {
        let at = Fields(bytes);
        let sum = filesystem.sum.map(|sum| sum.of_inode(number, bytes));
        if let Some(sum) = sum {
            sum.check_inode(bytes)?;
        }
        let flags = at.u32(0x20);
        if flags & UNREADABLE != 0 {
            bail!(
                "it is of a form that is not read without a mount; hint: run it as root, without --offline"
            );
        }
        let extra = if bytes.len() > 128 { usize::from(at.u16(0x80)) } else { 0 };
        if extra > bytes.len() - 128 || extra % 4 != 0 {
            bail!("it is damaged");
        }
        // Counted from 1901 to 2038; two more bits count how often that is over.
        let mtime_extra = if extra >= 12 { at.u32(0x88) } else { 0 };
        let seconds = i64::from(at.u32(0x10) as i32) + (i64::from(mtime_extra & 3) << 32);
        let nanoseconds = mtime_extra >> 2;
        if nanoseconds > 999_999_999 {
            bail!("its time is damaged");
        }
        let mut block = [0; IN_BLOCK];
        block.copy_from_slice(bytes.get(0x28..0x28 + IN_BLOCK).context("it is too short")?);
        let mode = u32::from(at.u16(0));
        let kind = FileType::from_raw_mode(mode);
        let list = u64::from(at.u32(0x68)) | u64::from(at.u16(0x76)) << 32;
        let found = attributes::all(filesystem, bytes.get(128 + extra..).unwrap_or_default(), list)?;
        let inline = match (flags & INLINE != 0, found.data) {
            (false, None) => None,
            (true, Some(behind)) if filesystem.has_inline && flags & EXTENTS == 0 => {
                Some([&block[..], &behind].concat())
            }
            _ => bail!("what it has of its data in itself is damaged"),
        };
        let len = match kind {
            FileType::RegularFile => u64::from(at.u32(4)) | u64::from(at.u32(0x6c)) << 32,
            // Where the length of a file has its upper half, ext2 and ext3 kept something else of a directory.
            FileType::Directory if !filesystem.has_large_dirs => at.u32(4).into(),
            FileType::Directory => u64::from(at.u32(4)) | u64::from(at.u32(0x6c)) << 32,
            FileType::Symlink => at.u32(4).into(),
            _ => 0,
        };
        Ok(Self {
            number,
            mode,
            uid: u32::from(at.u16(2)) | u32::from(at.u16(0x78)) << 16,
            gid: u32::from(at.u16(0x18)) | u32::from(at.u16(0x7a)) << 16,
            len,
            modified: (seconds, nanoseconds),
            names: at.u16(0x1a).into(),
            flags: flags & VISIBLE,
            attributes: found.attributes,
            has_attribute_block: list != 0,
            device: device(&block),
            block,
            has_extents: flags & EXTENTS != 0,
            inline,
            is_indexed: flags & INDEX != 0,
            sum,
        })
    }

    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Where a symbolic link leads.
    pub fn target(&self, filesystem: &Ext4) -> Result<Vec<u8>> {
        const DAMAGED: &str = "the link is damaged";
        let len = self.len as usize;
        if let Some(inline) = &self.inline {
            return Ok(inline.get(..len).context(DAMAGED)?.to_vec());
        }
        // What fits beside the zero behind it stands where a longer one has its list (`ext2fs_is_fast_symlink`).
        if !self.has_extents && len < self.block.len() {
            return Ok(self.block[..len].to_vec());
        }
        if self.len >= filesystem.block_len() {
            bail!(DAMAGED);
        }
        let mut target = vec![0; len];
        filesystem.read_at(&filesystem.data(self)?, &mut target, 0)?;
        Ok(target)
    }
}

/// Both forms of the kernel's numbers (`old_decode_dev` and `new_decode_dev` of linux/kdev_t.h).
fn device(block: &[u8; IN_BLOCK]) -> (u32, u32) {
    let at = Fields(block);
    match (at.u32(0), at.u32(4)) {
        (0, new) => ((new & 0xf_ff00) >> 8, new & 0xff | (new >> 12) & 0xf_ff00),
        (old, _) => ((old >> 8) & 0xff, old & 0xff),
    }
}

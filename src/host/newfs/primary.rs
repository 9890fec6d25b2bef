//! The first superblock of ext4, written when all else is there.
//!
//! ext4 keeps copies of its superblock and group descriptors. Mounted by the copy in its second group (ext4(5), `sb=`), the kernel
//! keeps that copy up to date and never writes the first; without the first, neither the kernel nor blkid(8) sees a filesystem.
//! Offsets and flags are those of `fs/ext4/ext4.h`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};

use super::EXT4_BLOCK;
use crate::host::superblock::FilesystemKind;

const LEN: usize = 1024;
const MAGIC: (usize, [u8; 2]) = (0x38, [0x53, 0xef]);
const BLOCKS_LOW: usize = 0x04;
const LOG_BLOCK_SIZE: usize = 0x18;
const BLOCKS_PER_GROUP: usize = 0x20;
const GROUP_NUMBER: usize = 0x5a;
const INCOMPAT: usize = 0x60;
const RO_COMPAT: usize = 0x64;
const DESCRIPTOR_SIZE: usize = 0xfe;
const BLOCKS_HIGH: usize = 0x150;
const CHECKSUM: usize = 0x3fc;

const INCOMPAT_META_GROUPS: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_CHECKSUM: u32 = 0x400;

/// Blocks of a group: as many as one block of bitmap has bits.
const GROUP: u64 = EXT4_BLOCK * 8;

/// Where the second superblock is, in the unit of the mount option `sb=` (1 KiB); `None` if there is none, or it is no ext4.
pub(super) fn backup_of(made: &File, kind: FilesystemKind) -> Result<Option<u64>> {
    if kind != FilesystemKind::Ext4 {
        return Ok(None);
    }
    Ok(read(made, GROUP * EXT4_BLOCK).is_ok_and(|found| usable(&found)).then_some(GROUP * EXT4_BLOCK / 1024))
}

/// Makes the second superblock and its descriptors the first ones, the superblock last.
pub(super) fn write(target: &File, offset: u64) -> Result<()> {
    let second = offset + GROUP * EXT4_BLOCK;
    // All else is there before it.
    target.sync_data()?;
    let mut block = read(target, second)?;
    ensure!(usable(&block), "its copy is damaged");
    let blocks = u64::from(number(&block, BLOCKS_LOW)) | u64::from(number(&block, BLOCKS_HIGH)) << 32;
    let descriptor = match number(&block, INCOMPAT) & INCOMPAT_64BIT {
        0 => 32,
        _ => u64::from(u16::from_le_bytes([block[DESCRIPTOR_SIZE], block[DESCRIPTOR_SIZE + 1]])),
    };
    ensure!((32..=1024).contains(&descriptor), "its copy has descriptors of {descriptor} bytes");
    let table = (blocks.div_ceil(GROUP) * descriptor).div_ceil(EXT4_BLOCK) * EXT4_BLOCK;
    let mut piece = vec![0; EXT4_BLOCK as usize];
    for at in (EXT4_BLOCK..=table).step_by(EXT4_BLOCK as usize) {
        target.read_exact_at(&mut piece, second + at)?;
        target.write_all_at(&piece, offset + at)?;
    }
    target.sync_data()?;
    block[GROUP_NUMBER..GROUP_NUMBER + 2].fill(0);
    if number(&block, RO_COMPAT) & RO_COMPAT_CHECKSUM != 0 {
        let sum = crc32c(&block[..CHECKSUM]);
        block[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    }
    target.write_all_at(&block, offset + 1024)?;
    Ok(target.sync_data()?)
}

fn read(file: &File, at: u64) -> Result<[u8; LEN]> {
    let mut block = [0; LEN];
    file.read_exact_at(&mut block, at)?;
    Ok(block)
}

/// Whether it is a superblock, of the shape that [`super::NewFilesystem`] asks for.
fn usable(block: &[u8; LEN]) -> bool {
    let log = number(block, LOG_BLOCK_SIZE);
    block[MAGIC.0..MAGIC.0 + 2] == MAGIC.1
        && log == EXT4_BLOCK.ilog2() - 10
        && u64::from(number(block, BLOCKS_PER_GROUP)) == GROUP
        && number(block, INCOMPAT) & INCOMPAT_META_GROUPS == 0
}

fn number(block: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// CRC-32C as ext4 has it: begun with all ones, and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(sum & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros; there it is inverted.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn what_is_no_superblock_is_not_made_the_first_one() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("d")).unwrap();
        file.set_len(200 << 20).unwrap();
        assert_eq!(write(&file, 0).unwrap_err().to_string(), "its copy is damaged");
        assert_eq!(backup_of(&file, FilesystemKind::Ext4).unwrap(), None);
    }
}

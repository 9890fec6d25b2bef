//! How small a filesystem may be that everything still fits into.
//!
//! Counted in blocks as the filesystems allot them; numbers of formats are those of their makers (mke2fs, mkfs.xfs, mkfs.btrfs) and
//! of the kernel, allowances were found by restoring trees into filesystems that were made smaller until they did not fit.

use std::collections::HashMap;

use super::entry::{Content, Entry, Kind};
use crate::host::newfs::{EXT4_BLOCK, EXT4_BYTES_PER_INODE, EXT4_INODE};
use crate::host::superblock::FilesystemKind;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = EXT4_BLOCK;
/// Blocks of a group of ext4.
const GROUP: u64 = BLOCK * 8;
/// Inodes that ext4 keeps for itself, and `lost+found`.
const OWN_INODES: u64 = 11;

/// What a tree takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Length of the smallest filesystem.
    pub bytes: u64,
    /// Inodes that it has to have.
    pub inodes: u64,
}

/// The smallest filesystem of that kind, with every file's place and a journal of the size that is usual for it.
pub fn minimum(kind: FilesystemKind, entries: &[Entry]) -> Room {
    let sums = Sums::of(entries);
    // Some more files than there are.
    let inodes = sums.inodes.saturating_add(sums.inodes / 8 + 64 + OWN_INODES);
    let bytes = match kind {
        FilesystemKind::Ext4 => ext4(&sums, inodes),
        FilesystemKind::Xfs => xfs(&sums),
        FilesystemKind::Btrfs => btrfs(&sums),
    };
    Room { bytes: bytes.saturating_add(MIB - 1) / MIB * MIB, inodes }
}

/// Sums of what entries take; too large ones stay at the end of the numbers, which fits nowhere.
#[derive(Debug, Default)]
struct Sums {
    inodes: u64,
    /// Blocks of files' data.
    data: u64,
    /// Bytes of data of files that are at most half a block.
    small: u64,
    /// Blocks of directories.
    directories: u64,
    /// Blocks of lists of extents, long links and attributes.
    tables: u64,
    /// Bytes of names, attributes and links.
    text: u64,
}

impl Sums {
    fn of(entries: &[Entry]) -> Self {
        let mut sums = Self::default();
        let mut directories: HashMap<&[u8], u64> = HashMap::new();
        for entry in entries {
            let parent = entry.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            let name = (entry.path.len() - parent) as u64;
            // A name, its length, type and inode (`struct ext4_dir_entry_2`).
            *directories.entry(&entry.path[..parent]).or_default() += 8 + name.next_multiple_of(4);
            sums.text = sums.text.saturating_add(name);
            if matches!(entry.kind, Kind::HardLink(_)) {
                continue;
            }
            sums.inodes += 1;
            let attributes: u64 =
                entry.attributes.iter().map(|(name, value)| 24 + (name.len() + value.len()) as u64).sum();
            sums.text = sums.text.saturating_add(attributes);
            // What an inode of 256 bytes has left.
            sums.tables += u64::from(attributes > 88) + attributes / BLOCK;
            match &entry.kind {
                Kind::Directory => {
                    directories.entry(&entry.path).or_default();
                }
                Kind::File(content) => sums.add_content(content),
                Kind::SymbolicLink(target) => {
                    sums.text = sums.text.saturating_add(target.len() as u64);
                    // Shorter ones are in the inode.
                    sums.tables += u64::from(target.len() >= 60);
                }
                _ => {}
            }
        }
        for bytes in directories.into_values() {
            // Blocks of a directory that grew by splitting are about two thirds full.
            sums.directories += if bytes <= BLOCK - 40 { 1 } else { bytes * 8 / 5 / BLOCK + 2 };
        }
        sums
    }

    fn add_content(&mut self, content: &Content) {
        let mut blocks = 0u64;
        let mut extents = 0u64;
        let mut end_before = 0;
        for (offset, len) in &content.data {
            let first = (offset / BLOCK).max(end_before);
            let end = offset.saturating_add(*len).div_ceil(BLOCK);
            blocks = blocks.saturating_add(end.saturating_sub(first));
            extents += 1 + end.saturating_sub(first) / GROUP;
            end_before = end;
        }
        self.data = self.data.saturating_add(blocks);
        if content.len <= BLOCK / 2 {
            self.small += content.data.iter().map(|(_, len)| len).sum::<u64>();
        }
        // Four are in the inode, 340 in a block (`struct ext4_extent`).
        if extents > 4 {
            self.tables += extents.div_ceil(300) + 1;
        }
    }
}

fn ext4(sums: &Sums, inodes: u64) -> u64 {
    // lost+found has four blocks of its own.
    let payload = sums.data.saturating_add(sums.directories + sums.tables + 4);
    let mut blocks: u64 = 2048;
    loop {
        let groups = blocks.div_ceil(GROUP);
        let descriptors = (groups * 64).div_ceil(BLOCK);
        // Descriptors are kept for a filesystem of 1024 times the size, or as many as one block can point to.
        let grown = blocks.saturating_mul(1024).min(u64::from(u32::MAX)).div_ceil(GROUP);
        let reserved = (grown * 64).div_ceil(BLOCK).saturating_sub(descriptors).min(BLOCK / 4);
        let copies = superblocks(groups);
        let inodes = inodes.max(blocks.saturating_mul(BLOCK) / EXT4_BYTES_PER_INODE);
        let tables = (inodes.div_ceil(groups).next_multiple_of(16) * EXT4_INODE).div_ceil(BLOCK) * groups;
        // What the kernel holds back so that it can always write what it has promised to (ext4_set_resv_clusters).
        let held_back = (blocks / 50).min(4096);
        let own = copies * (1 + descriptors + reserved) + groups * 2 + tables + journal(blocks) + held_back;
        let wanted = payload.saturating_add(own).saturating_add(payload / 200 + 64);
        if wanted <= blocks {
            return blocks.saturating_mul(BLOCK);
        }
        blocks = wanted;
    }
}

/// How many of so many groups have a superblock: 0, 1 and powers of 3, 5 and 7 (`sparse_super`). A manifest may tell of more
/// groups than can be gone through.
fn superblocks(groups: u64) -> u64 {
    let powers = |base: u64| {
        let mut at = base;
        let mut count = 0;
        while at < groups {
            count += 1;
            at = at.saturating_mul(base);
        }
        count
    };
    groups.min(2) + powers(3) + powers(5) + powers(7)
}

/// Blocks of the journal (`ext2fs_default_journal_size`).
fn journal(blocks: u64) -> u64 {
    match blocks {
        0..2048 => 0,
        2048..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16_384,
        4_194_304..8_388_608 => 32_768,
        8_388_608..16_777_216 => 65_536,
        16_777_216..33_554_432 => 131_072,
        _ => 262_144,
    }
}

/// mkfs.xfs makes none that is smaller.
const XFS_LEAST: u64 = 300 * MIB;

fn xfs(sums: &Sums) -> u64 {
    let blocks = sums.data.saturating_add(sums.directories + sums.tables);
    // Inodes of 512 bytes in chunks of 64, of which a directory's may be half empty.
    let payload = blocks.saturating_mul(BLOCK).saturating_add(sums.inodes * 560);
    // A log of 64 MiB, what is held back for the kernel itself (xfs_default_resblks: 32 MiB or a twentieth), and trees of free
    // space and inodes in each group.
    payload.saturating_add(64 * MIB + 36 * MIB + payload / 40).max(XFS_LEAST)
}

/// Smaller ones have data and tables in the same places, which nothing else here does.
const BTRFS_LEAST: u64 = 256 * MIB;

fn btrfs(sums: &Sums) -> u64 {
    let data = sums.data.saturating_mul(BLOCK);
    // An inode, its name in two directions and in itself, an extent and checksums, in nodes that are two thirds full.
    let tree = (sums.inodes * 700 + sums.text * 5 + sums.small * 2).saturating_add(data / 500);
    // Twice, as a disk of one has them; reserves, and space that is taken in pieces of a tenth.
    data.saturating_add(tree * 2 + 64 * MIB).saturating_add(data / 8).max(BTRFS_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry::Time;
    use proptest::prelude::*;

    fn file(len: u64, data: Vec<(u64, u64)>) -> Entry {
        Entry {
            path: b"f".to_vec(),
            kind: Kind::File(Content { len, blake3: [0; 32], data }),
            mode: 0,
            uid: 0,
            gid: 0,
            modified: Time { seconds: 0, nanoseconds: 0 },
            attributes: Vec::new(),
            flags: 0,
        }
    }

    const KINDS: [FilesystemKind; 3] = [FilesystemKind::Ext4, FilesystemKind::Xfs, FilesystemKind::Btrfs];

    #[test]
    fn holes_take_no_room_and_data_does() {
        for kind in KINDS {
            let bytes = |data: Vec<(u64, u64)>| minimum(kind, &[file(1 << 40, data)]).bytes;
            assert!(bytes(Vec::new()) <= XFS_LEAST);
            assert!(bytes(vec![(0, 2 << 30)]) > 2 << 30);
            assert_eq!(bytes(vec![(0, 10)]), bytes(vec![(0, 5), (7, 3)]));
        }
    }

    #[test]
    fn groups_with_a_superblock_are_those_of_ext4() {
        let with: Vec<u64> = (0..130).filter(|group| superblocks(group + 1) > superblocks(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    proptest! {
        #[test]
        fn any_lengths_have_a_room(pieces in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..4), len in any::<u64>()) {
            for kind in KINDS {
                minimum(kind, &[file(len, pieces.clone())]);
            }
        }
    }
}

//! Checksums of metadata (`metadata_csum`): CRC32C over a structure, begun with what makes it one of this filesystem and this inode
//! (`Documentation/filesystems/ext4/checksums.rst` of Linux; the details are those of fs/ext4).

use anyhow::{Context, Result, ensure};
use crc::{CRC_32_ISCSI, Crc, Table};

use super::Fields;

/// `EXT4_FEATURE_RO_COMPAT_METADATA_CSUM`, `EXT4_FEATURE_INCOMPAT_CSUM_SEED`.
const HAS_CHECKSUMS: u32 = 0x400;
const HAS_SEED: u32 = 0x2000;
/// Behind the entries of a directory's block: something that looks like one without an inode, with the sum in it.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// Length of an entry of an index, of an extent, and of what is before the extents.
const OF_INDEX: usize = 8;
const OF_EXTENT: usize = 12;

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What a checksum begins with, or is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum(u32);

impl Sum {
    /// The filesystem's; `None` if it keeps no checksums. An error if its superblock has a wrong one.
    pub(super) fn of_filesystem(superblock: Fields<'_>) -> Result<Option<Self>> {
        const AT: usize = 0x3fc;
        if superblock.u32(0x64) & HAS_CHECKSUMS == 0 {
            return Ok(None);
        }
        let is_right = Self(u32::MAX).and(&superblock.0[..AT]).0 == superblock.u32(AT);
        ensure!(is_right, "the checksum of its superblock is wrong");
        Ok(Some(match superblock.u32(0x60) & HAS_SEED {
            0 => Self(u32::MAX).and(&superblock.0[0x68..0x78]),
            _ => Self(superblock.u32(0x270)),
        }))
    }

    /// That of an inode, which what belongs to it begins with; `bytes` are the inode's own.
    pub(super) fn of_inode(self, number: u32, bytes: &[u8]) -> Self {
        self.and(&number.to_le_bytes()).and(&Fields(bytes).u32(0x64).to_le_bytes())
    }

    /// An error if the inode, whose sum this is, has another one.
    pub(super) fn check_inode(self, bytes: &[u8]) -> Result<()> {
        const LOW: usize = 0x7c;
        const HIGH: usize = 0x82;
        let at = Fields(bytes);
        let has_high = bytes.len() > 128 && at.u16(0x80) >= 4;
        let sum = self.and(&bytes[..LOW]).and(&[0; 2]);
        let (found, noted) = match has_high {
            true => {
                let sum = sum.and(&bytes[LOW + 2..HIGH]).and(&[0; 2]).and(&bytes[HIGH + 2..]);
                (sum.0, u32::from(at.u16(LOW)) | u32::from(at.u16(HIGH)) << 16)
            }
            false => (sum.and(&bytes[LOW + 2..]).0 & 0xffff, u32::from(at.u16(LOW))),
        };
        ensure!(found == noted, "its checksum is wrong");
        Ok(())
    }

    /// A group's descriptor.
    pub(super) fn check_group(self, number: u32, bytes: &[u8]) -> Result<()> {
        const AT: usize = 0x1e;
        let sum = self.and(&number.to_le_bytes()).and(&bytes[..AT]).and(&[0; 2]).and(&bytes[AT + 2..]);
        ensure!(sum.0 & 0xffff == u32::from(Fields(bytes).u16(AT)), "its group's checksum is wrong");
        Ok(())
    }

    /// A block of the directory whose sum this is: the first one of an index has its root, others may be nodes of it.
    pub(super) fn check_names(self, block: &[u8], is_indexed: bool, is_first: bool) -> Result<()> {
        const DAMAGED: &str = "the checksum of its names is wrong";
        let at = Fields(block);
        let is_root = is_indexed && is_first;
        let is_node = is_indexed && !is_first && usize::from(at.u16(4)) == block.len();
        if !(is_root || is_node) {
            let names = block.len() - TAIL;
            let is_tail = at.u32(names) == 0 && usize::from(at.u16(names + 4)) == TAIL;
            ensure!(is_tail && block[names + 7] == TAIL_TYPE, DAMAGED);
            ensure!(self.and(&block[..names]).0 == at.u32(block.len() - 4), DAMAGED);
            return Ok(());
        }
        let counts = if is_node { 0x8 } else { 0x20 };
        let (limit, count) = (usize::from(at.u16(counts)), usize::from(at.u16(counts + 2)));
        let tail = block.get(counts + limit * OF_INDEX..).and_then(|rest| rest.first_chunk::<8>());
        let used = block.get(..counts + count * OF_INDEX).filter(|_| count <= limit).context(DAMAGED)?;
        let tail = tail.context(DAMAGED)?;
        let sum = self.and(used).and(&tail[..4]).and(&[0; 4]);
        ensure!(sum.0 == Fields(tail).u32(4), DAMAGED);
        Ok(())
    }

    /// A block of the list of extents of the inode whose sum this is.
    pub(super) fn check_extents(self, block: &[u8]) -> Result<()> {
        let most = usize::from(Fields(block).u16(4));
        let used = block.get(..OF_EXTENT + most * OF_EXTENT).filter(|used| used.len() + 4 <= block.len());
        let is_right = used.is_some_and(|used| self.and(used).0 == Fields(block).u32(used.len()));
        ensure!(is_right, "the checksum of its list of extents is wrong");
        Ok(())
    }

    /// A block of attributes, which several inodes may share: this is the filesystem's sum.
    pub(super) fn check_attributes(self, number: u64, block: &[u8]) -> Result<()> {
        const AT: usize = 0x10;
        let sum = self.and(&number.to_le_bytes()).and(&block[..AT]).and(&[0; 4]).and(&block[AT + 4..]);
        ensure!(sum.0 == Fields(block).u32(AT), "the checksum of its attributes is wrong");
        Ok(())
    }

    /// With more bytes. The kernel neither begins nor ends it with an inversion, as the catalogue's CRC32C does.
    fn and(self, bytes: &[u8]) -> Self {
        let mut digest = CRC32C.digest_with_initial(self.0.reverse_bits());
        digest.update(bytes);
        Self(!digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::super::{Ext4, Inode, TOP};

    fn run(name: &str, words: &[&str], disk: &Path) {
        let mut command = Command::new(name);
        let ran = command.args(words).arg(disk).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(ran.unwrap().success(), "{name} {words:?}");
    }

    /// A filesystem with an index of several levels in a directory, a file in more pieces than fit into its inode, and attributes in a
    /// block of their own. Small blocks make all of that with little.
    fn disk(dir: &Path, features: &str) -> std::path::PathBuf {
        let tree = dir.join("tree");
        std::fs::create_dir_all(tree.join("many")).unwrap();
        for n in 0..2500 {
            std::fs::write(tree.join(format!("many/{n:060}")), "").unwrap();
        }
        let pieces = std::fs::File::create(tree.join("pieces")).unwrap();
        for n in 0..40 {
            pieces.write_all_at(b"x", n * 4096).unwrap();
        }
        let disk = dir.join("disk");
        std::fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
        let tree = tree.display().to_string();
        run("mke2fs", &["-q", "-t", "ext4", "-b", "1024", "-O", features, "-d", &tree], &disk);
        // -D makes indexes.
        let mut check = Command::new("e2fsck");
        check.args(["-fyD"]).arg(&disk).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(check.status().unwrap().code().is_some_and(|code| code <= 1));
        let long = format!("ea_set pieces user.long {}", "v".repeat(600));
        run("debugfs", &["-w", "-R", &long], &disk);
        disk
    }

    fn named(filesystem: &Ext4, name: &str) -> anyhow::Result<Inode> {
        let top = filesystem.inode(TOP)?;
        let found = filesystem.names(&top)?.into_iter().find(|(found, _)| found == name.as_bytes());
        filesystem.inode(found.unwrap().1)
    }

    fn all(disk: &Path) -> anyhow::Result<()> {
        let filesystem = Ext4::open(disk)?;
        assert_eq!(filesystem.names(&named(&filesystem, "many")?)?.len(), 2500);
        let pieces = named(&filesystem, "pieces")?;
        assert_eq!(pieces.attributes.len(), 1);
        let content = filesystem.content(&pieces)?;
        assert!(content.iter().enumerate().all(|(at, byte)| (*byte == b'x') == (at % 4096 == 0)));
        Ok(())
    }

    #[test]
    fn what_others_wrote_has_the_checksums_that_it_must_have() {
        for features in ["metadata_csum_seed", "^metadata_csum_seed", "^metadata_csum", "^64bit"] {
            let dir = tempfile::tempdir().unwrap();
            all(&disk(dir.path(), features)).unwrap_or_else(|error| panic!("{features}: {error:#}"));
        }
    }

    #[test]
    fn a_bit_that_flipped_in_what_is_looked_at_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), "metadata_csum_seed");
        let filesystem = Ext4::open(&disk).unwrap();
        let (many, pieces) = (named(&filesystem, "many").unwrap(), named(&filesystem, "pieces").unwrap());
        let bytes = std::fs::read(&disk).unwrap();
        let inode = |number: u32| {
            // mke2fs lays the inodes of a group one behind the other.
            let len = filesystem.inode_size as usize;
            let is_it = |at: &usize| {
                let sum = filesystem.sum.unwrap().of_inode(number, &bytes[*at..at + len]);
                bytes[*at..at + 128].iter().any(|byte| *byte != 0)
                    && sum.check_inode(&bytes[*at..at + len]).is_ok()
            };
            (0..bytes.len()).step_by(len).find(is_it).unwrap()
        };
        let block = |extent: &super::super::Extent, number: u64| ((extent.physical + number) * 1024) as usize;
        let extents = filesystem.extents(&many).unwrap();
        let list = u32::from_le_bytes(pieces.block[16..20].try_into().unwrap()) as usize * 1024;
        let attributes =
            bytes.chunks(1024).position(|block| block.starts_with(&[0, 0, 2, 0xea])).unwrap() * 1024;
        let descriptor = filesystem.descriptors as usize;
        let places = [
            ("the superblock", 1024 + 0x88),
            ("an inode", inode(many.number) + 0x10),
            ("the root of an index", block(&extents[0], 0) + 0x28),
            ("a directory's block", block(extents.last().unwrap(), extents.last().unwrap().blocks - 1) + 10),
            ("a list of extents", list + 20),
            ("attributes", attributes + 40),
            ("a group's descriptor", descriptor + 0xc),
        ];
        for (what, at) in places {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&disk, damaged).unwrap();
            let error = all(&disk).expect_err(what);
            assert!(format!("{error:#}").contains("checksum"), "{what}: {error:#}");
        }
    }
}

//! What a filesystem says about itself in its superblock: read as data, before the kernel is asked to mount anything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Filesystems that gridgate opens. The type is always named to the kernel: letting it guess would let a guest choose which of
/// the kernel's parsers reads its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesystemKind {
    /// ext2, ext3 and ext4, which the kernel's ext4 reads all.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
}

impl FilesystemKind {
    /// As mount(8) and the kernel call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs, Self::Btrfs].into_iter().find(|kind| kind.name() == name)
    }

    /// The mount option that keeps the kernel from replaying the journal, which would change a disk that is only looked at
    /// (ext4(5), xfs(5), btrfs(5)).
    pub(super) fn without_replay(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Ext4 => ("noload", None),
            Self::Xfs => ("norecovery", None),
            Self::Btrfs => ("rescue", Some("nologreplay")),
        }
    }
}

/// A filesystem, as its superblock has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Whose format it is.
    pub kind: FilesystemKind,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Whether what was written last is in its journal only: it was not unmounted (told of ext4 alone).
    pub needs_recovery: bool,
}

/// Offset and value of the magic, offset of the UUID: `fs/ext4/ext4.h` (superblock at 1024), `fs/xfs/libxfs/xfs_format.h`,
/// `include/uapi/linux/btrfs_tree.h` (superblock at 64 KiB) of Linux.
const FORMATS: [(FilesystemKind, u64, &[u8], u64); 3] = [
    (FilesystemKind::Ext4, 1024 + 0x38, &[0x53, 0xef], 1024 + 0x68),
    (FilesystemKind::Xfs, 0, b"XFSB", 32),
    (FilesystemKind::Btrfs, 0x1_0040, b"_BHRfS_M", 0x1_0020),
];
/// `s_feature_incompat` of ext4, and its `EXT4_FEATURE_INCOMPAT_RECOVER`.
const EXT4_INCOMPAT: (u64, u32) = (1024 + 0x60, 4);

/// The filesystem that begins `offset` bytes into the file; `None` if there is none that gridgate knows.
pub fn probe(file: &Path, offset: u64) -> Result<Option<Superblock>> {
    let what = || format!("looking for a filesystem in '{}'", file.display());
    let opened = File::open(file).with_context(what)?;
    // A file that ends early holds no filesystem.
    let there = |at: u64, bytes: &mut [u8]| match opened.read_exact_at(bytes, offset + at) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    };
    for (kind, magic_at, magic, uuid_at) in FORMATS {
        let (mut found, mut uuid, mut incompat) = ([0u8; 8], [0u8; 16], [0u8; 4]);
        let found = &mut found[..magic.len()];
        if !there(magic_at, found).with_context(what)? || found != magic {
            continue;
        }
        if there(uuid_at, &mut uuid).with_context(what)? {
            let is_ext4 = kind == FilesystemKind::Ext4;
            let read = is_ext4 && there(EXT4_INCOMPAT.0, &mut incompat).with_context(what)?;
            let needs_recovery = read && u32::from_le_bytes(incompat) & EXT4_INCOMPAT.1 != 0;
            return Ok(Some(Superblock { kind, uuid, needs_recovery }));
        }
    }
    Ok(None)
}

/// The filesystem's label, without the zeros behind it; places as in [`FORMATS`].
pub fn label(file: &Path, offset: u64, kind: FilesystemKind) -> Result<Vec<u8>> {
    let (at, len) = match kind {
        FilesystemKind::Ext4 => (1024 + 0x78, 16),
        FilesystemKind::Xfs => (108, 12),
        FilesystemKind::Btrfs => (0x1_012b, 256),
    };
    let mut label = vec![0; len];
    let read = File::open(file).and_then(|file| file.read_exact_at(&mut label, offset + at));
    read.with_context(|| format!("reading the label of the filesystem in '{}'", file.display()))?;
    let end = label.iter().position(|byte| *byte == 0).unwrap_or(len);
    label.truncate(end);
    Ok(label)
}

/// As [`probe`]; none is an error.
pub fn expect(file: &Path, offset: u64) -> Result<Superblock> {
    match probe(file, offset)? {
        Some(found) => Ok(found),
        None => bail!(
            "there is no filesystem in '{}' that gridgate can open (ext2, ext3, ext4, XFS, Btrfs)",
            file.display()
        ),
    }
}

/// As [`expect`]; one that was not unmounted is an error, too: to look at it is not to see all of it.
pub fn expect_clean(file: &Path, offset: u64) -> Result<Superblock> {
    let found = expect(file, offset)?;
    if found.needs_recovery {
        bail!(
            "'{0}' was not unmounted: what was written last is in its journal only\nhint: end what uses it; if nothing does, \
             'e2fsck -E journal_only {0}' writes it out",
            file.display()
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_without_a_filesystem_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("zeros");
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let error = format!("{:#}", expect(&disk, 0).unwrap_err());
        assert!(error.contains("zeros") && error.contains("no filesystem"), "{error}");
    }

    #[test]
    fn a_filesystem_that_was_not_unmounted_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let file = File::create(&disk).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[0x53, 0xef], 4096 + 1024 + 0x38).unwrap();
        file.write_all_at(&[4, 0, 0, 0], 4096 + 1024 + 0x60).unwrap();
        file.write_all_at(&[7; 16], 4096 + 1024 + 0x68).unwrap();
        let found = Superblock { kind: FilesystemKind::Ext4, uuid: [7; 16], needs_recovery: true };
        assert_eq!(expect(&disk, 4096).unwrap(), found);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048), offset in 0u64..4096) {
            let dir = tempfile::tempdir().unwrap();
            let disk = dir.path().join("disk");
            std::fs::write(&disk, &bytes).unwrap();
            probe(&disk, offset).unwrap();
        }
    }
}

//! One thing of a filesystem, with all that the filesystem says about it.

/// A file, directory, link or special file and what is kept of it. Change and birth times are not: no program can set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top, without a leading slash, any bytes but NUL; empty for the top itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits, `07777` at most.
    pub mode: u32,
    /// Number of the user it belongs to.
    pub uid: u32,
    /// Number of the group it belongs to.
    pub gid: u32,
    /// When its content was last written.
    pub modified: Time,
    /// Extended attributes by full name (`user.`, `trusted.`, `security.`, and `system.posix_acl_access` and `_default` as the
    /// kernel gives them, xattr(7)), sorted.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Flags of chattr(1) that [`KEPT_FLAGS`] names, as `FS_IOC_GETFLAGS` has them (ioctl_iflags(2)).
    pub flags: u32,
}

/// What an [`Entry`] is. Further names of a file that has several are [`Kind::HardLink`]s to the first in the order of paths,
/// and say nothing else of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and what it says.
    SymbolicLink(Vec<u8>),
    /// Another name of the file with that path, which comes before it.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    CharacterDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket; only its name is kept, as no program can answer behind it.
    Socket,
}

/// What a regular file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes, holes included.
    pub len: u64,
    /// BLAKE3 of the data, piece after piece, without holes: that of the file where there are none. A hole of terabytes takes no
    /// time.
    pub blake3: [u8; 32],
    /// Where there is data: offset and length of each piece, ascending, not touching, none empty. All of it is one piece in a file
    /// without holes, and none in an empty file. Only these pieces are in the archive.
    pub data: Vec<(u64, u64)>,
}

/// A moment: seconds since 1970, negative before, and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// Flags that a restored file gets: `S`ynchronous, `i`mmutable, `a`ppend-only, no `d`ump, no `A`time, `j`ournalled data, no
/// `t`ail-merging, `D`irectory synchronous, `T`op of hierarchies, no `C`opy on write, `P`roject inherited. Others tell how a
/// filesystem has laid a file out, or take a feature of it (compression, encryption, verity). Values of linux/fs.h.
pub const KEPT_FLAGS: u32 =
    0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x80_0000 | 0x2000_0000;

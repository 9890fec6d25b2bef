//! Golden images over slow lines: a store of plain files that any web server can serve, and that sends what is new alone.
//!
//! ```text
//!   image --blocks::scan--> Scan --push--> STORE/  --pull (with what is here already as seed)--> image
//!
//!   STORE/images/NAME/latest           head of the newest version, signed; replaced by one rename
//!   STORE/images/NAME/VERSION.head     the same of every version that is kept
//!   STORE/indexes/VERSION.index        which groups of 64 KiB hold data, a hash of each, and where their blocks lie
//!   STORE/indexes/VERSION.hashes       a hash of each block of 4 KiB; read in the parts that are needed
//!   STORE/packs/DIGEST.pack            blocks that no version before had: frames of zstd, 64 blocks each, in the disk's order
//! ```
//!
//! Trust goes down from the head: a signature is over the head, the head has the digest of the index, a group's hash in the
//! index is one over the hashes of its blocks, and those are over the blocks. So every byte that comes is checked by itself, from
//! whichever mirror it came, and the files as a whole at the end. But for `latest` no file ever changes, so caches and
//! interrupted transfers can keep what they have.
//!
//! Blocks are aligned, not cut by content: filesystems of 4 KiB blocks move data by whole blocks, and a group that has not
//! changed costs 16 bytes.

pub mod blocks;
mod varint;
pub mod index;
pub mod head;
pub mod pack;
pub mod ranges;
pub mod place;
pub mod mirrors;
mod parts;
pub mod push;
pub mod seed;
pub mod pull;
pub mod keep;
pub mod casync;

/// What a file that is sent costs nothing but a look: it is refused if it is longer than that.
const LONGEST_HEAD: u64 = 2 << 20;
/// Index of an image of a TiB, all of it in use.
const LONGEST_INDEX: u64 = 1 << 30;

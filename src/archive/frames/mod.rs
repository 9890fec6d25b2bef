//! An archive is a row of frames, each compressed by itself: some are decompressed while others are fetched, and one that is
//! damaged takes none with it.
//!
//! ```text
//!   zstd:  empty frame | label frame | label frame | ... | seek table
//!   gzip:  member (label in its header) | member | ...
//! ```
//!
//! A [`Label`] tells how long its frame is, packed and unpacked, and which part of the tar it holds. To other programs it is a
//! skippable frame (RFC 8878, 3.1.2) or an extra field (RFC 1952, 2.3.1.1), which they pass over. It could be done without,
//! by walking through a frame's blocks; but then whatever follows a damaged frame could not be placed, which a stream cannot seek
//! for, and gzip has nothing of that kind. Labels are not believed further than the limits go.
//!
//! The empty frame is there for programs that tell compression by a file's first bytes, tar(1) among them; the seek table for those
//! that read zstd's seekable format (facebook/zstd, `contrib/seekable_format`).

mod codec;
mod label;
mod read;
mod replace;
mod seek;
mod write;

pub use codec::{Compression, Packing};
pub(super) use codec::{Packer, Unpacker};
pub use label::{Label, Section};
pub use read::{Fetched, FrameReader};
pub use replace::replace;
pub(super) use seek::filler;
pub(super) use write::Sink;
pub use write::{FrameWriter, Written};

/// Where an archive of zstd frames begins: a frame of one empty block.
pub(super) const ZSTD_START: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

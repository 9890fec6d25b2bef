//! A filesystem in one file: packed as a tar that plain tar(1) reads, with a manifest in front that tells all of it.
//!
//! ```text
//!   tree or volume --walk--> Entry, Entry, ...  --manifest first, contents after--> frames --> FILE
//!   FILE or stream --frames--> manifest (checked, signed) --> Entry + content --> an empty filesystem
//! ```
//!
//! What a restore makes of an archive comes from the manifest alone; headers of the tar are there for other programs, and have
//! to agree with it. So one digest, that of the manifest, stands for the whole, and is what a signature signs.

pub mod entry;
mod buffers;
pub mod fill;
pub mod compare;
pub mod frames;
pub mod header;
pub mod limits;
pub mod manifest;
pub mod offline;
pub mod order;
mod view;
pub mod pack;
mod pool;
mod ahead;
pub mod reader;
pub mod sign;
pub mod source;
pub mod stream;
mod judge;
mod share;
pub mod text;
pub mod writer;
pub mod once;
pub mod room;
pub mod restore;

#[cfg(test)]
mod tests;

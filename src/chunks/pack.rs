//! Packs: blocks in frames of zstd, each frame on its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::blocks::{BLOCK, Hash};
use super::index::Pack;

/// Blocks of a frame; only the last one of a pack has fewer. Larger ones compress better and send more that is not asked for.
pub const IN_FRAME: usize = 64;
/// A pack holds so many at most: 1 GiB before compression, so that the smallest filesystems take it.
pub const IN_PACK: u64 = 1 << 18;
/// A frame of noise is a little longer than what is in it.
pub const LONGEST_FRAME: u64 = (IN_FRAME * BLOCK + IN_FRAME * BLOCK / 128 + 1024) as u64;
/// Frames that are compressed side by side.
const SIDE_BY_SIDE: usize = 8;

/// Blocks up to here are compressed harder: an update is sent to many, over slow lines.
const FEW: usize = 8192;
const LEVEL_OF_FEW: i32 = 17;
const LEVEL: i32 = 9;

/// The level for so many new blocks.
pub fn level(blocks: usize) -> i32 {
    if blocks <= FEW { LEVEL_OF_FEW } else { LEVEL }
}

/// Writes a pack as blocks come.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    level: i32,
    raw: Vec<u8>,
    blocks: u64,
    frames: Vec<u32>,
}

impl Writer {
    /// A new file.
    pub fn create(path: &Path, level: i32) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("making '{}'", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            level,
            raw: Vec::new(),
            blocks: 0,
            frames: Vec::new(),
        })
    }

    /// One more block.
    pub fn add(&mut self, block: &[u8]) -> Result<()> {
        self.raw.extend_from_slice(block);
        self.blocks += 1;
        if self.raw.len() == SIDE_BY_SIDE * IN_FRAME * BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let frames: Vec<&[u8]> = self.raw.chunks(IN_FRAME * BLOCK).collect();
        let level = self.level;
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(frames.len().max(1));
        let compress = |worker: usize| -> std::io::Result<Vec<Vec<u8>>> {
            let mut compressor = zstd::bulk::Compressor::new(level)?;
            frames.iter().skip(worker).step_by(workers).map(|frame| compressor.compress(frame)).collect()
        };
        let compress = &compress;
        let mut done: Vec<std::vec::IntoIter<Vec<u8>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || compress(worker))).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(frames) => frames.map(Vec::into_iter).context("compressing"),
                Err(_) => bail!("compressing failed"),
            });
            joined.collect::<Result<_>>()
        })?;
        for n in 0..frames.len() {
            let frame = done[n % workers].next().context("a frame is missing")?;
            self.hasher.update(&frame);
            self.file.write_all(&frame).context("writing a pack")?;
            self.frames.push(u32::try_from(frame.len())?);
        }
        self.raw.clear();
        Ok(())
    }

    /// Ends the file; the pack is called by the digest of what is in it.
    pub fn finish(mut self) -> Result<Pack> {
        self.flush()?;
        self.file.flush().context("writing a pack")?;
        let mut name = Hash::default();
        name.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        Ok(Pack { name, blocks: self.blocks, frames: self.frames })
    }
}

/// What is in a frame of so many blocks; anything else than exactly that is refused, and nothing beyond it is unpacked.
pub fn unpack(frame: &[u8], blocks: usize) -> Result<Vec<u8>> {
    let raw = zstd::bulk::decompress(frame, blocks * BLOCK).context("unpacking a frame")?;
    if raw.len() != blocks * BLOCK {
        bail!("a frame holds {} bytes instead of {}", raw.len(), blocks * BLOCK);
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_added_is_in_the_frames_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pack");
        let mut writer = Writer::create(&path, 3).unwrap();
        let count = SIDE_BY_SIDE * IN_FRAME + IN_FRAME + 3;
        for n in 0..count {
            writer.add(&vec![n as u8; BLOCK]).unwrap();
        }
        let pack = writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(pack.name[..], blake3::hash(&bytes).as_bytes()[..16]);
        assert_eq!(pack.frames.len(), SIDE_BY_SIDE + 2);
        let mut all = Vec::new();
        for (n, range) in pack.ranges().enumerate() {
            all.extend(
                unpack(&bytes[range.start as usize..range.end as usize], pack.in_frame(n as u64)).unwrap(),
            );
        }
        assert_eq!(all.len(), count * BLOCK);
        assert!(all.chunks(BLOCK).enumerate().all(|(n, block)| block.iter().all(|b| *b == n as u8)));
    }

    #[test]
    fn a_frame_that_holds_more_than_it_should_is_refused_and_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 26], 3).unwrap();
        assert!(unpack(&bomb, IN_FRAME).is_err());
        let short = zstd::bulk::compress(&[0; BLOCK], 3).unwrap();
        assert!(unpack(&short, 2).is_err());
        assert!(unpack(&short, 1).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes, 2);
        }
    }
}

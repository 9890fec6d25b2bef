//! Files that were packed: what they hold, as a stream. The unpackers of what a guest packed are bounded in memory, and those of them
//! that are not written in Rust take what zstd's own fuzzers feed it.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::{LzmaReader, XzReader};

use crate::identity::initramfs::lz4;

/// What an unpacker may hold: enough for what xz and zstd make unless they are told to use more.
const MEMORY_LOG: u32 = 24;
const MEMORY_KIB: u32 = (1 << MEMORY_LOG >> 10) + 1024;

/// How a file was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    /// In frames, as lz4(1) writes it.
    Lz4,
    /// As kernels read it.
    OldLz4,
    Lzma,
}

impl Packed {
    /// By its first bytes.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Some(Self::Bzip2),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            _ if head.starts_with(&lz4::MARK) => Some(Self::OldLz4),
            _ => is_lzma(head).then_some(Self::Lzma),
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 | Self::OldLz4 => "lz4",
            Self::Lzma => "lzma",
        }
    }

    /// What was packed. A file that takes more memory than it may is an error, at the latest when it is read.
    pub(super) fn reader(self, file: &File) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Xz => Box::new(XzReader::new_mem_limit(file, true, MEMORY_KIB)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(file)?;
                decoder.window_log_max(MEMORY_LOG)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Self::Lz4 => Box::new(Frames(FrameDecoder::new(BufReader::new(file)))),
            Self::OldLz4 => Box::new(Old(lz4::Reader::new(BufReader::new(file))?)),
            Self::Lzma => {
                Box::new(Alone(Some(LzmaReader::new_mem_limit(BufReader::new(file), MEMORY_KIB, None)?)))
            }
        })
    }
}

/// It has no mark. How lzma(1) packs, a dictionary of a size that it makes, and a length that is not known or not beyond reason: what
/// xz's `src/liblzma/common/alone_decoder.c` goes by.
fn is_lzma(head: &[u8]) -> bool {
    let Some([0x5d, a, b, c, d, length @ ..]) = head.first_chunk::<13>() else { return false };
    let (dictionary, length) = (u32::from_le_bytes([*a, *b, *c, *d]), u64::from_le_bytes(*length));
    let is_made = |top: u32| top >= 12 && (dictionary == 1 << top || dictionary == 3 << (top - 1));
    dictionary.checked_ilog2().is_some_and(is_made) && (length == u64::MAX || length < 1 << 38)
}

/// One frame after the other, to the end of the file.
struct Frames<R: BufRead>(FrameDecoder<R>);

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        loop {
            let read = self.0.read(bytes)?;
            if read > 0 || self.0.get_mut().fill_buf()?.is_empty() {
                return Ok(read);
            }
        }
    }
}

/// Kernels' lz4, and nothing behind it.
struct Old<R>(lz4::Reader<R>);

impl<R: BufRead> Read for Old<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        match self.0.read(bytes)? {
            0 => nothing_in(self.0.rest()),
            read => Ok(read),
        }
    }
}

/// One stream of lzma, and nothing behind it.
struct Alone<R>(Option<LzmaReader<R>>);

impl<R: BufRead> Read for Alone<R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let read = self.0.as_mut().map_or(Ok(0), |reader| reader.read(bytes))?;
        match self.0.take_if(|_| read == 0).map(LzmaReader::into_parts) {
            Some((rest, ahead)) => nothing_in(ahead.as_slice().chain(rest)),
            None => Ok(read),
        }
    }
}

/// What stands behind a stream is not looked into, but for zeros that fill it up.
fn nothing_in(mut rest: impl BufRead) -> Result<usize> {
    loop {
        let bytes = rest.fill_buf()?;
        match bytes.len() {
            0 => return Ok(0),
            _ if bytes.iter().any(|byte| *byte != 0) => {
                return Err(Error::new(ErrorKind::InvalidData, "something else follows it"));
            }
            length => rest.consume(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lzma_is_told_by_what_its_header_may_say() {
        let header = |dictionary: u32, length: u64| {
            [&[0x5d][..], &dictionary.to_le_bytes(), &length.to_le_bytes()].concat()
        };
        for dictionary in [1 << 12, 3 << 11, 1 << 23, 3 << 25] {
            assert!(is_lzma(&header(dictionary, u64::MAX)), "{dictionary}");
            assert!(is_lzma(&header(dictionary, 7)), "{dictionary}");
        }
        for (dictionary, length) in [(0, 7), (1, 7), (5 << 20, 7), (u32::MAX, 7), (1 << 23, 1 << 38)] {
            assert!(!is_lzma(&header(dictionary, length)), "{dictionary} {length}");
        }
        assert!(!is_lzma(b"]"));
    }
}

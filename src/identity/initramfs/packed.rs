//! How the parts of an initramfs are compressed, and how they are again. What unpacks is bounded in memory; what is packed, a kernel
//! of any age that knew the form before can read.

use std::io::{self, BufRead, Read, Write};

use bzip2::bufread::BzDecoder;
use bzip2::write::BzEncoder;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lzma_rust2::{CheckType, LzmaOptions, LzmaReader, LzmaWriter, XzOptions, XzReader, XzWriter};

use super::lz4;

/// A compression of which both ways are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Gzip,
    Zstd,
    Xz,
    Lz4,
    Bzip2,
    Lzma,
}

/// 128 MiB, what the kernel itself takes for a zstd window in an initramfs (`lib/decompress_unzstd.c`).
const LARGEST_WINDOW: u32 = 27;
/// As much for xz and lzma, in KiB.
const XZ_MEMORY: u32 = 132 << 10;
/// Near what mkinitramfs(8) takes, at a tenth of its time.
const ZSTD_LEVEL: i32 = 12;

impl Packed {
    /// By its first bytes; `None` for one that is not known, or none.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [first, ..] if *first == lz4::MARK[0] && head.starts_with(&lz4::MARK) => Some(Self::Lz4),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            // It has no mark: how it was made, and a size of the dictionary that is a whole number of 64 KiB.
            [0x5d, 0, 0, ..] => Some(Self::Lzma),
            _ => None,
        }
    }

    /// One stream of it, unpacked; what follows it is left in `from`. lz4 has no end: nothing but more of it can follow.
    pub(super) fn reader<'r>(self, from: &'r mut dyn BufRead) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(from)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?.single_frame();
                decoder.window_log_max(LARGEST_WINDOW)?;
                Box::new(decoder)
            }
            Self::Xz => Box::new(XzReader::new_mem_limit(from, false, XZ_MEMORY)),
            Self::Lz4 => Box::new(lz4::Reader::new(from)?),
            Self::Bzip2 => Box::new(BzDecoder::new(from)),
            Self::Lzma => Box::new(LzmaReader::new_mem_limit(OneByOne(from), XZ_MEMORY, None)?),
        })
    }

    /// Packs what `work` writes.
    pub(super) fn write<T>(
        self,
        to: &mut dyn Write,
        work: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(to, flate2::Compression::best());
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
            Self::Xz => {
                // The kernel knows no other check (Documentation/staging/xz.rst).
                let mut options = XzOptions::with_preset(6);
                options.set_check_sum_type(CheckType::Crc32);
                let mut encoder = XzWriter::new(to, options)?;
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
            Self::Lz4 => {
                let mut encoder = lz4::Writer::new(to)?;
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
            Self::Bzip2 => {
                let mut encoder = BzEncoder::new(to, bzip2::Compression::best());
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
            Self::Lzma => {
                let mut encoder = LzmaWriter::new_use_header(to, &LzmaOptions::with_preset(6), None)?;
                let done = work(&mut encoder)?;
                encoder.finish()?;
                Ok(done)
            }
        }
    }
}

/// For what would read on behind its own end.
struct OneByOne<'r>(&'r mut dyn BufRead);

impl Read for OneByOne<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = bytes.len().min(1);
        self.0.read(&mut bytes[..len])
    }
}

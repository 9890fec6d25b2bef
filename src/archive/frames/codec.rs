//! One frame, packed and unpacked.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use flate2::bufread::GzDecoder;
use flate2::write::DeflateEncoder;
use zstd::zstd_safe::CParameter;

use super::label::{LEN, Label, Section};
use super::seek::{self, SKIPPABLE};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd (RFC 8878).
    Zstd,
    /// gzip (RFC 1952), which every old tar reads.
    Gzip,
}

/// What packing is to aim for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Small, in less time than zstd -9 takes.
    Usual,
    /// Soon done.
    Fast,
    /// For old programs.
    Gzip,
}

impl Packing {
    /// The format that it gives.
    pub fn compression(self) -> Compression {
        match self {
            Self::Gzip => Compression::Gzip,
            Self::Usual | Self::Fast => Compression::Zstd,
        }
    }

    /// How much of the tar a frame holds at most. It ends where a file does, unless the file is longer.
    pub fn frame_bytes(self) -> usize {
        match self {
            Self::Usual => 24 << 20,
            // What is found over a longer distance at this level is half a hundredth, and the last frames keep one thread waiting.
            Self::Fast => 8 << 20,
            // Deflate looks back no further than 32 KiB.
            Self::Gzip => 4 << 20,
        }
    }
}

/// Bytes of a gzip member's header: RFC 1952, with an extra field of one subfield.
const GZIP_HEADER: usize = 10 + 2 + 4 + LEN;
/// ID1, ID2, deflate, FEXTRA, no time, no hint of effort, unknown system; length of the extra field; its id and length.
const GZIP_START: [u8; GZIP_HEADER - LEN] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, (LEN + 4) as u8, 0, b'g', b'g', LEN as u8, 0];
/// Bytes of a label in front of a zstd frame.
const ZSTD_LABEL: usize = 8 + LEN;

impl Compression {
    /// Length of what comes before a frame's own bytes.
    pub(in crate::archive) fn label_len(self) -> usize {
        match self {
            Self::Zstd => ZSTD_LABEL,
            Self::Gzip => GZIP_HEADER,
        }
    }

    /// What comes before the label's own bytes.
    pub(super) fn label_start(self) -> Vec<u8> {
        match self {
            Self::Zstd => seek::skippable(SKIPPABLE, LEN as u32).to_vec(),
            Self::Gzip => GZIP_START.to_vec(),
        }
    }
}

/// Packs frames; each thread has its own.
pub(in crate::archive) enum Packer {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Gzip,
}

impl Packer {
    pub(in crate::archive) fn new(packing: Packing) -> Result<Self> {
        // Measured on a Debian of 300 MB: each level's own window is far shorter than a frame, and a longer one finds more. Matches
        // over long distances take a twentieth more time, and save as much as the next level. Level 8 takes a third more time than
        // level 7 and saves a sixtieth; level 6 takes a fifth less and is no smaller than what tar and zstd -9 make. Level 3 with
        // tables that stay in a core's own cache takes an eighth less time and gives a sixtieth more.
        let (level, window, long) = match packing {
            Packing::Usual => (7, 25, true),
            Packing::Fast => (3, 23, false),
            Packing::Gzip => return Ok(Self::Gzip),
        };
        let what = "setting zstd up";
        let mut zstd = zstd::bulk::Compressor::new(level).context(what)?;
        for parameter in [
            CParameter::WindowLog(window),
            CParameter::EnableLongDistanceMatching(long),
            CParameter::ChecksumFlag(true),
            CParameter::ContentSizeFlag(true),
        ] {
            zstd.set_parameter(parameter).context(what)?;
        }
        if packing == Packing::Fast {
            for table in [CParameter::HashLog(16), CParameter::ChainLog(15)] {
                zstd.set_parameter(table).context(what)?;
            }
        }
        Ok(Self::Zstd(Box::new(zstd)))
    }

    /// A label and the frame behind it.
    pub(in crate::archive) fn pack(
        &mut self,
        section: Section,
        offset: u64,
        plain: &[u8],
    ) -> Result<(Label, Vec<u8>)> {
        let what = "compressing";
        let packed = match self {
            Self::Zstd(zstd) => zstd.compress(plain).context(what)?,
            Self::Gzip => {
                let level = flate2::Compression::new(6);
                let mut deflate = DeflateEncoder::new(Vec::new(), level);
                deflate.write_all(plain).context(what)?;
                let mut packed = deflate.finish().context(what)?;
                let mut crc = flate2::Crc::new();
                crc.update(plain);
                packed.extend(crc.sum().to_le_bytes());
                packed.extend((plain.len() as u32).to_le_bytes());
                packed
            }
        };
        let lengths = (u32::try_from(plain.len()), u32::try_from(packed.len()));
        let (Ok(plain), Ok(len)) = lengths else { bail!("{what}: a frame of {} bytes", plain.len()) };
        Ok((Label { section, offset, plain, packed: len }, packed))
    }
}

/// Unpacks frames; each thread has its own.
pub(in crate::archive) enum Unpacker {
    Zstd(Box<zstd::bulk::Decompressor<'static>>),
    Gzip,
}

impl Unpacker {
    pub(in crate::archive) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::Zstd => {
                Self::Zstd(Box::new(zstd::bulk::Decompressor::new().context("setting zstd up")?))
            }
            Compression::Gzip => Self::Gzip,
        })
    }

    /// What a frame holds: as much as its label says, and never more memory than that.
    pub(in crate::archive) fn unpack(&mut self, label: &Label, packed: &[u8]) -> Result<Vec<u8>> {
        let mut unpacked = vec![0; label.plain as usize];
        self.unpack_into(label, packed, &mut unpacked)?;
        Ok(unpacked)
    }

    /// As [`Unpacker::unpack`], where there is room for exactly as much as the label says. After an error anything may be in there.
    pub(in crate::archive) fn unpack_into(
        &mut self,
        label: &Label,
        packed: &[u8],
        room: &mut [u8],
    ) -> Result<()> {
        let plain = label.plain as usize;
        if room.len() != plain {
            bail!("decompressing: there is room for {} bytes, not for {plain}", room.len());
        }
        let len = match self {
            // All at once: the result is the window, whatever the frame asks for.
            Self::Zstd(zstd) => zstd.decompress_to_buffer(packed, room).context("decompressing")?,
            Self::Gzip => {
                let mut member = GZIP_START.to_vec();
                member.extend(label.print());
                let mut decoder = GzDecoder::new(member.chain(packed));
                let mut len = 0;
                while len < plain {
                    match decoder.read(&mut room[len..]).context("decompressing")? {
                        0 => break,
                        read => len += read,
                    }
                }
                // The sums are looked at when the end is met.
                let more = decoder.read(&mut [0]).context("decompressing")?;
                if more != 0 || !decoder.into_inner().into_inner().1.is_empty() {
                    bail!("decompressing: there is more than its label says");
                }
                len
            }
        };
        if len != plain {
            bail!("decompressing: {len} bytes instead of {plain}");
        }
        Ok(())
    }
}

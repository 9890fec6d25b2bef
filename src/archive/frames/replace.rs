//! One part of an archive anew, and all else as it was.

use std::io::{Read, Write};

use anyhow::{Result, bail};

use super::codec::{Compression, Packer, Packing};
use super::label::Section;
use super::read::{Fetched, FrameReader};
use super::write::{Sink, Written};
use crate::archive::limits::Limits;

/// Writes the archive again with that content of a part in place of what there was of it; frames of all others are copied, not
/// unpacked. Whoever calls has read the archive and knows that it is sound so far.
pub fn replace<W: Write>(
    input: Box<dyn Read + Send>,
    limits: Limits,
    out: W,
    section: Section,
    content: &[u8],
) -> Result<(W, Written)> {
    let mut frames = FrameReader::open(input, limits)?;
    let compression = frames.compression();
    let packing = if compression == Compression::Gzip { Packing::Gzip } else { Packing::Usual };
    let mut packer = Packer::new(packing)?;
    let mut sink = Sink::new(out, compression)?;
    let mut insert = |sink: &mut Sink<W>| -> Result<()> {
        for (n, piece) in content.chunks(packing.frame_bytes()).enumerate() {
            let (label, frame) = packer.pack(section, (n * packing.frame_bytes()) as u64, piece)?;
            sink.frame(&label, &frame)?;
        }
        Ok(())
    };
    let mut inserted = false;
    while let Some(fetched) = frames.fetch()? {
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        let Fetched::Frame(label, packed) = fetched else { bail!("it is damaged") };
        if !inserted && label.section >= section {
            insert(&mut sink)?;
            inserted = true;
        }
        if label.section != section {
            sink.frame(&label, &packed)?;
        }
    }
    if !inserted {
        insert(&mut sink)?;
    }
    sink.finish()
}

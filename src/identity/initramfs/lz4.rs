//! lz4 as kernels unpack it, which `lz4 -l` writes: a mark, then blocks, each behind its length, and no end but that of the file
//! (`lib/decompress_unlz4.c` of Linux, "Legacy frame" of lz4's own format description).

use std::io::{self, BufRead, Read, Write};

/// What it begins with.
pub(in crate::identity) const MARK: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Every block but the last unpacks to this.
const BLOCK: usize = 8 << 20;

/// Unpacks it up to the end of the file, or to zeros that fill it up.
pub(in crate::identity) struct Reader<R> {
    from: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// How much of the block has been given out.
    given: usize,
}

impl<R: BufRead> Reader<R> {
    /// `from` begins with the mark.
    pub(in crate::identity) fn new(mut from: R) -> io::Result<Self> {
        from.read_exact(&mut [0; MARK.len()])?;
        Ok(Self { from, packed: Vec::new(), block: Vec::new(), given: 0 })
    }

    /// What follows it, once it has come to its end.
    pub(in crate::identity) fn rest(&mut self) -> &mut R {
        &mut self.from
    }

    /// Whether there was another block.
    fn next(&mut self) -> io::Result<bool> {
        let len = loop {
            let mut len = Vec::with_capacity(4);
            self.from.by_ref().take(4).read_to_end(&mut len)?;
            match <[u8; 4]>::try_from(&len[..]) {
                // One file behind the other.
                Ok(MARK) => {}
                // Zeros that fill the file up.
                _ if len.iter().all(|byte| *byte == 0) => return Ok(false),
                Ok(len) => break u32::from_le_bytes(len) as usize,
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        if len > lz4_flex::block::get_maximum_output_size(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what follows an lz4 part is not known"));
        }
        self.packed.resize(len, 0);
        self.from.read_exact(&mut self.packed)?;
        self.block.resize(BLOCK, 0);
        let unpacked = lz4_flex::block::decompress_into(&self.packed, &mut self.block);
        self.block.truncate(unpacked.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
        self.given = 0;
        Ok(true)
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.given == self.block.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let now = bytes.len().min(self.block.len() - self.given);
        bytes[..now].copy_from_slice(&self.block[self.given..self.given + now]);
        self.given += now;
        Ok(now)
    }
}

/// Packs it; all is there only after [`Writer::finish`].
pub(super) struct Writer<'w> {
    to: &'w mut dyn Write,
    block: Vec<u8>,
}

impl<'w> Writer<'w> {
    /// Writes the mark.
    pub(super) fn new(to: &'w mut dyn Write) -> io::Result<Self> {
        to.write_all(&MARK)?;
        Ok(Self { to, block: Vec::new() })
    }

    /// Writes the last block.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.put()
    }

    fn put(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = lz4_flex::block::compress(&self.block);
        self.block.clear();
        self.to.write_all(&(packed.len() as u32).to_le_bytes())?;
        self.to.write_all(&packed)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..now]);
        if self.block.len() == BLOCK {
            self.put()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_block_comes_back_as_it_was_however_it_is_packed_and_read() {
        // Random bytes get longer when they are packed.
        let mut plain = vec![7; 2 * BLOCK + 100];
        let mut random = blake3::Hasher::new().finalize_xof();
        random.fill(&mut plain[BLOCK..2 * BLOCK]);
        let mut packed = Vec::new();
        let mut writer = Writer::new(&mut packed).unwrap();
        plain.chunks(300_001).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap();
        packed.extend([0; 9]);
        let mut from = io::BufReader::with_capacity(7, &packed[..]);
        let mut unpacked = Vec::new();
        Reader::new(&mut from).unwrap().read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain);
    }
}

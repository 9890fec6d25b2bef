//! Frames out of a file or a stream, one after another; nothing is decompressed here.

use std::io::Read;

use anyhow::{Result, bail};
use memchr::memmem;

use super::ZSTD_START;
use super::codec::Compression;
use super::label::{LEN, Label, Section};
use super::seek::{self, SeekTable, TABLE};
use crate::archive::limits::Limits;

/// What was met.
#[derive(Debug)]
pub enum Fetched {
    /// A frame, still compressed.
    Frame(Label, Vec<u8>),
    /// Bytes that are no frame, or only the beginning of one. Told only where the next frame is looked for nevertheless.
    Damage(String),
}

/// See the module. At most one frame is held.
pub struct FrameReader {
    input: Box<dyn Read + Send>,
    limits: Limits,
    compression: Compression,
    /// What the table at the end has to be.
    table: SeekTable,
    buffer: Vec<u8>,
    /// What the buffer after this one may be made of.
    spare: Vec<u8>,
    /// Where the buffer begins in the input.
    position: u64,
    ended: bool,
    /// Whether to look for the next frame where one is damaged.
    searches: bool,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("position", &self.position).finish_non_exhaustive()
    }
}

/// How much is read at a time while the next frame is looked for.
const STEP: usize = 1 << 20;

impl FrameReader {
    /// Begins to read an archive; what is none is told here.
    pub fn open(input: Box<dyn Read + Send>, limits: Limits) -> Result<Self> {
        let compression = Compression::Zstd;
        let table = SeekTable::default();
        let mut reader = Self {
            input,
            limits,
            compression,
            table,
            buffer: Vec::new(),
            spare: Vec::new(),
            position: 0,
            ended: false,
            searches: false,
        };
        let gzip = Compression::Gzip.label_start();
        reader.fill(ZSTD_START.len())?;
        if reader.buffer.starts_with(&ZSTD_START) {
            reader.table.add(ZSTD_START.len() as u32, 0);
            reader.drop_front(ZSTD_START.len());
        } else if reader.fill(gzip.len())? && reader.buffer.starts_with(&gzip) {
            reader.compression = Compression::Gzip;
        } else {
            bail!("it is not an archive that gridgate has packed");
        }
        Ok(reader)
    }

    /// Which format it has.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Gives back what a frame was in, as room for another one.
    pub fn reuse(&mut self, spare: Vec<u8>) {
        self.spare = spare;
    }

    /// From now on damage is no error: the next frame is looked for.
    pub fn search(&mut self) {
        self.searches = true;
    }

    /// The next frame; `None` at the end of the archive.
    pub fn fetch(&mut self) -> Result<Option<Fetched>> {
        if self.ended {
            return Ok(None);
        }
        match self.frame() {
            Err(error) if self.searches => {
                // What is after the broken one may be whole.
                self.drop_front(1);
                self.find()?;
                Ok(Some(Fetched::Damage(format!("{error:#}"))))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            other => other,
        }
    }

    /// Which part of the tar the next frame is of, before all of it has come; `None` at the end of the archive. What is wrong with it
    /// is told again by [`FrameReader::fetch`].
    pub fn next_section(&mut self) -> Result<Option<Section>> {
        if self.ended { Ok(None) } else { Ok(self.label()?.map(|label| label.section)) }
    }

    /// The label that stands here; `None` where frames end.
    fn label(&mut self) -> Result<Option<Label>> {
        let label_len = self.compression.label_len();
        let start = self.compression.label_start();
        let whole = self.fill(label_len)?;
        let is_end = match self.compression {
            Compression::Gzip => self.buffer.is_empty(),
            Compression::Zstd => self.buffer.starts_with(&TABLE.to_le_bytes()),
        };
        if is_end {
            return Ok(None);
        }
        if !whole {
            bail!("it ends at byte {}, in the middle", self.position + self.buffer.len() as u64);
        }
        let label = self.buffer.get(label_len - LEN..label_len).and_then(|bytes| bytes.try_into().ok());
        let label = label.filter(|_| self.buffer.starts_with(&start));
        match label.and_then(|bytes| Label::parse(bytes, &self.limits)) {
            Some(label) => Ok(Some(label)),
            None => bail!("it is damaged at byte {}: no frame begins there", self.position),
        }
    }

    fn frame(&mut self) -> Result<Option<Fetched>> {
        let Some(label) = self.label()? else {
            if self.compression == Compression::Zstd {
                self.end()?;
            }
            return Ok(None);
        };
        let label_len = self.compression.label_len();
        let len = label_len + label.packed as usize;
        if !self.fill(len)? {
            bail!("it ends at byte {}, in the middle", self.position + self.buffer.len() as u64);
        }
        self.table.add(label_len as u32, 0);
        self.table.add(label.packed, label.plain);
        let mut next = std::mem::take(&mut self.spare);
        next.clear();
        // There is more only where the next frame was looked for.
        next.extend_from_slice(&self.buffer[len..]);
        let mut packed = std::mem::replace(&mut self.buffer, next);
        packed.truncate(len);
        packed.drain(..label_len);
        self.position += len as u64;
        Ok(Some(Fetched::Frame(label, packed)))
    }

    /// The seek table is what follows from the frames, and nothing comes after it.
    fn end(&mut self) -> Result<()> {
        let at = self.position;
        let table = self.table.print();
        if self.searches {
            // It says nothing that matters any more.
            return Ok(());
        }
        let whole = self.fill(table.len())?;
        if !whole
            || self.buffer[..8] != seek::skippable(TABLE, table.len() as u32 - 8)
            || !self.buffer.starts_with(&table)
        {
            bail!("it is damaged at byte {at}: its table of frames is not that of its frames");
        }
        self.drop_front(table.len());
        if self.fill(1)? {
            bail!("there are more bytes after its end");
        }
        Ok(())
    }

    /// Goes on to where a frame may begin.
    fn find(&mut self) -> Result<()> {
        let start = self.compression.label_start();
        loop {
            if let Some(at) = memmem::find(&self.buffer, &start) {
                self.drop_front(at);
                return Ok(());
            }
            let keep = self.buffer.len().min(start.len() - 1);
            self.drop_front(self.buffer.len() - keep);
            if !self.fill(keep + STEP)? && memmem::find(&self.buffer, &start).is_none() {
                self.drop_front(self.buffer.len());
                self.ended = true;
                return Ok(());
            }
        }
    }

    /// Whether so many bytes are in the buffer; fewer are only where the input has ended.
    fn fill(&mut self, len: usize) -> Result<bool> {
        let missing = len.saturating_sub(self.buffer.len());
        if missing > 0 {
            // No more than the limits allow, and memory only as far as something comes.
            self.buffer.reserve_exact(missing);
            self.input.by_ref().take(missing as u64).read_to_end(&mut self.buffer)?;
        }
        Ok(self.buffer.len() >= len)
    }

    fn drop_front(&mut self, len: usize) {
        let len = len.min(self.buffer.len());
        self.buffer.drain(..len);
        self.position += len as u64;
    }
}

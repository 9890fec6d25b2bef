//! Bytes of a tar into frames, compressed by several threads.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

use super::ZSTD_START;
use super::codec::{Compression, Packer, Packing};
use super::label::{Label, Section};
use super::seek::SeekTable;
use crate::archive::pool::{self, Gone, Input};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Length of the archive.
    pub bytes: u64,
    /// How many frames it has.
    pub frames: u64,
}

type Packed = Result<(Label, Vec<u8>)>;
type Job = (Section, u64, Vec<u8>);
/// Fresh memory costs the kernel as much as a copy.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// See the module. What it writes depends on what it is given alone, not on the number of threads or their luck.
#[derive(Debug)]
pub struct FrameWriter<W> {
    packing: Packing,
    /// Frames that are not yet written; `None` when there will be no more.
    input: Option<Input<Job, Packed>>,
    writer: Option<JoinHandle<Result<Sink<W>>>>,
    /// Memory of frames that were packed.
    spare: Spare,
    section: Section,
    offset: u64,
    pending: Vec<u8>,
}

impl<W: Write + Send + 'static> FrameWriter<W> {
    /// Starts to write at the beginning of `out`, with that many threads.
    pub fn new(out: W, packing: Packing, workers: usize) -> Result<Self> {
        Self::into_sink(packing, workers, move || Sink::new(out, packing.compression()))
    }

    /// Frames alone: what comes before them and behind them is for somebody else to write. Where they go is found out by the
    /// thread that writes, while the first of them are packed.
    pub(in crate::archive) fn frames_alone(
        packing: Packing,
        workers: usize,
        open: impl FnOnce() -> Result<W> + Send + 'static,
    ) -> Result<Self> {
        Self::into_sink(packing, workers, move || Ok(Sink::headless(open()?, packing.compression())))
    }

    fn into_sink(
        packing: Packing,
        workers: usize,
        open: impl FnOnce() -> Result<Sink<W>> + Send + 'static,
    ) -> Result<Self> {
        // What can go wrong with the library is told here.
        Packer::new(packing)?;
        let spare = Spare::default();
        let work = || {
            let (mut packer, spare) = (Packer::new(packing), Arc::clone(&spare));
            move |(section, offset, mut plain): Job| {
                let packed = match &mut packer {
                    Ok(packer) => packer.pack(section, offset, &plain),
                    Err(error) => Err(anyhow!("{error:#}")),
                };
                plain.clear();
                if let Ok(mut spare) = spare.lock() {
                    spare.push(plain);
                }
                packed
            }
        };
        let (input, output) = pool::start(workers, workers, work);
        let writer = std::thread::spawn(move || {
            let mut sink = open()?;
            while let Some(packed) = output.take() {
                let (label, frame) = packed.map_err(|Gone| anyhow!("a thread has died"))??;
                sink.frame(&label, &frame)?;
            }
            Ok(sink)
        });
        let section = Section::Manifest;
        Ok(Self {
            packing,
            input: Some(input),
            writer: Some(writer),
            spare,
            section,
            offset: 0,
            pending: Vec::new(),
        })
    }

    /// More of the tar.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let full = self.packing.frame_bytes();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(full - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == full {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// A good place for a frame to end, with so many bytes to come before the next one.
    pub fn may_cut(&mut self, next: u64) -> Result<()> {
        let len = self.pending.len() as u64;
        if len + next.min(self.packing.frame_bytes() as u64) > self.packing.frame_bytes() as u64 && len > 0 {
            self.flush()?;
        }
        Ok(())
    }

    /// What comes now belongs to that part, and begins a frame.
    pub fn begin(&mut self, section: Section) -> Result<()> {
        self.flush()?;
        (self.section, self.offset) = (section, 0);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        let plain = std::mem::replace(&mut self.pending, spare);
        let (offset, len) = (self.offset, plain.len() as u64);
        self.offset += len;
        let put = self.input.as_ref().map(|input| input.put((self.section, offset, plain)));
        match put {
            Some(Ok(())) => Ok(()),
            _ => match self.end() {
                Err(error) => Err(error),
                Ok(_) => bail!("writing the archive: it ended early"),
            },
        }
    }

    fn end(&mut self) -> Result<Sink<W>> {
        self.input = None;
        let writer = self.writer.take().context("writing the archive: it has ended")?;
        writer.join().map_err(|_| anyhow!("a thread has died")).flatten().context("writing the archive")
    }

    /// Writes what is left, and gives back what it was written to.
    pub fn finish(self) -> Result<(W, Written)> {
        self.finish_frames()?.finish().context("writing the archive")
    }

    /// Writes what is left, but not what comes behind the frames.
    pub(in crate::archive) fn finish_frames(mut self) -> Result<Sink<W>> {
        self.flush()?;
        self.end()
    }
}

/// Frames into a file, and the table of them.
#[derive(Debug)]
pub(in crate::archive) struct Sink<W> {
    out: W,
    compression: Compression,
    table: SeekTable,
    written: Written,
}

impl<W: Write> Sink<W> {
    pub(in crate::archive) fn new(out: W, compression: Compression) -> Result<Self> {
        let mut sink = Self::headless(out, compression);
        if compression == Compression::Zstd {
            sink.table.add(ZSTD_START.len() as u32, 0);
            sink.put(&ZSTD_START)?;
        }
        Ok(sink)
    }

    /// Without what an archive begins with.
    pub(in crate::archive) fn headless(out: W, compression: Compression) -> Self {
        Self { out, compression, table: SeekTable::default(), written: Written::default() }
    }

    /// A frame, and its label in front.
    pub(in crate::archive) fn frame(&mut self, label: &Label, frame: &[u8]) -> Result<()> {
        self.table.add(self.compression.label_len() as u32, 0);
        self.table.add(label.packed, label.plain);
        self.written.frames += 1;
        let label = [&self.compression.label_start()[..], &label.print()].concat();
        self.put(&label)?;
        self.put(frame)
    }

    /// Goes on where the other sink has ended, as if all that went into it had come behind what is in this one.
    pub(in crate::archive) fn go_on(&mut self, other: Self) {
        self.table.append(&other.table);
        self.written.bytes += other.written.bytes;
        self.written.frames += other.written.frames;
        self.out = other.out;
    }

    /// Where the first of it is, if `place` tells where the next would be.
    pub(in crate::archive) fn begins(&self, place: impl Fn(&W) -> u64) -> u64 {
        place(&self.out) - self.written.bytes
    }

    /// How much was written.
    pub(in crate::archive) fn bytes(&self) -> u64 {
        self.written.bytes
    }

    pub(in crate::archive) fn finish(mut self) -> Result<(W, Written)> {
        if self.compression == Compression::Zstd {
            let table = self.table.print();
            self.put(&table)?;
        }
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.written.bytes += bytes.len() as u64;
        Ok(())
    }
}

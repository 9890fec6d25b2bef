//! An archive, read from its beginning to its end, once: from a file, a pipe, or whatever else gives bytes.
//!
//! ```text
//!   input --thread--> frames --threads--> tar --this thread--> pieces of files --threads--> each checked, and used
//! ```

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::ahead::{Ahead, Frame, READING};
use super::frames::{Compression, Fetched, FrameReader, Section, Unpacker};
use super::header::{self, BLOCK};
use super::judge::Judge;
use super::limits::Limits;
use super::manifest::{Manifest, OwnName};
use super::share::share;
use super::stream::{Each, Hear, Part, Piece, Stream};

/// Name of the manifest in `.gridgate/`.
pub const MANIFEST: &str = "manifest.jsonl";
/// Name of the signatures in `.gridgate/`.
pub const SIGNATURES: &str = "signatures";

/// What to do with an archive that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Refuse it.
    Refuse,
    /// Tell what is lost, and go on behind it. What is before the first file must be whole.
    Salvage,
}

/// See the module. When it is open, the manifest has been read, and nothing else.
#[derive(Debug)]
pub struct Reader {
    /// What is in it. Whether to believe it is for a signature to say.
    pub manifest: Manifest,
    /// The manifest's own bytes, which is what is signed.
    pub manifest_bytes: Vec<u8>,
    /// Signatures, as they are in the archive; `None` if there are none.
    pub signatures: Option<Vec<u8>>,
    frames: FrameReader,
    limits: Limits,
}

/// An archive whose frames are being unpacked, as far as there is room for them, while other things are got ready.
#[derive(Debug)]
pub struct Begun {
    manifest: Manifest,
    salvages: bool,
    ahead: Ahead,
}

impl Reader {
    /// Reads up to the first file. Memory is bounded by the limits, whatever the archive is.
    pub fn open(input: Box<dyn Read + Send>, limits: Limits) -> Result<Self> {
        let mut frames = FrameReader::open(input, limits).context(READING)?;
        frames.next_section().context(READING)?;
        let manifest_bytes = section(&mut frames, Section::Manifest, MANIFEST, limits.manifest_bytes);
        let manifest_bytes =
            manifest_bytes.context(READING)?.with_context(|| format!("{READING}: it has no manifest"))?;
        let manifest = Manifest::parse(&manifest_bytes, &limits)?;
        let signatures = section(&mut frames, Section::Signatures, SIGNATURES, limits.signature_bytes);
        let signatures = signatures.context(READING)?;
        Ok(Self { manifest, manifest_bytes, signatures, frames, limits })
    }

    /// Which format it is compressed with.
    pub fn compression(&self) -> Compression {
        self.frames.compression()
    }

    /// Begins to unpack. Nothing more can go wrong here: it is told by whoever takes what is unpacked.
    pub fn begin(mut self, damage: Damage) -> Begun {
        let salvages = damage == Damage::Salvage;
        if salvages {
            self.frames.search();
        }
        Begun { manifest: self.manifest, salvages, ahead: Ahead::start(self.frames) }
    }

    /// As [`Begun::each`], from the beginning.
    pub fn each(self, damage: Damage, each: Each<'_>) -> Result<()> {
        self.begin(damage).each(each)
    }

    /// The content of one of the archive's own files, which has to be no longer than that; nothing behind it is read.
    pub fn own(self, name: OwnName, most: u64) -> Result<Vec<u8>> {
        let at = self.manifest.head.own.iter().position(|own| own.name == name);
        let own = at.and_then(|at| self.manifest.head.own.get(at));
        let Some(own) = own.filter(|own| own.len <= most) else {
            bail!("{READING}: its '{}' is missing or longer than {most} bytes", name.name());
        };
        let (wanted, mut content, mut whole) =
            (at.map(Part::Own), Vec::with_capacity(own.len as usize), false);
        let read = self.each(Damage::Refuse, &mut |piece| match piece {
            Piece::Data { part, bytes, .. } if Some(part) == wanted => {
                content.extend_from_slice(bytes);
                Ok(())
            }
            Piece::End { part } if Some(part) == wanted => {
                whole = true;
                bail!("no more is wanted")
            }
            _ => Ok(()),
        });
        match (whole, read) {
            (true, _) => Ok(content),
            (false, Err(error)) => Err(error),
            (false, Ok(())) => bail!("{READING}: its '{}' is missing", name.name()),
        }
    }

    /// How much of it is believed.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Begun {
    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tells the content of every regular file. Everything is checked: headers, lengths, digests, and that nothing else is there.
    /// What was told of a file before its end counts for nothing if this fails. An interruption (Ctrl-C) is an error.
    pub fn each(self, each: Each<'_>) -> Result<()> {
        let mut judge = Judge::new(&self.manifest, self.salvages);
        tell(&self.manifest, self.salvages, &self.ahead, &mut |told| judge.hear(told, each))
    }

    /// As [`Begun::each`], to several at once: each of them hears a part of the files in a thread of its own, of a file all that
    /// there is, one file after the other. They hear on after an error of one of them, up to what had been unpacked by then.
    pub fn share<S>(self, sinks: &mut [S]) -> Result<()>
    where
        S: FnMut(Piece<'_>) -> Result<()> + Send,
    {
        let Self { manifest, salvages, ahead } = &self;
        share(manifest, *salvages, sinks, |hear| tell(manifest, *salvages, ahead, hear))
    }
}

/// How many threads it is worth to share an archive's files among.
pub fn sharers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

fn tell(manifest: &Manifest, salvages: bool, ahead: &Ahead, hear: Hear<'_>) -> Result<()> {
    let mut stream = Stream::new(manifest, salvages);
    let mut why = None;
    while let Some(frame) = ahead.next()? {
        let (label, unpacked) = match frame {
            Frame::Damage(told) => {
                why = Some(told);
                continue;
            }
            Frame::Unpacked(label, unpacked) => (label, unpacked),
        };
        let gap = label.offset.checked_sub(stream.position()).filter(|gap| *gap == 0 || salvages);
        let (Some(gap), Section::Body) = (gap, label.section) else {
            if salvages {
                continue;
            }
            bail!("{READING}: its frames are not in order");
        };
        let lost = why.take().unwrap_or_else(|| "the archive lacks it".to_owned());
        stream.skip(gap, &lost, hear)?;
        match unpacked {
            Ok(bytes) => stream.feed(&Arc::new(bytes), hear).context(READING)?,
            Err(error) if salvages => stream.skip(label.plain.into(), &format!("{error:#}"), hear)?,
            Err(error) => return Err(error).context(READING),
        }
    }
    stream.end(hear).context(READING)
}

/// Content of the one file that a part of the tar holds; `None` if there is no such part.
fn section(frames: &mut FrameReader, section: Section, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
    let mut unpacker = Unpacker::new(frames.compression())?;
    let mut tar = Vec::new();
    let mut wanted = None;
    loop {
        match frames.next_section() {
            Ok(next) if next == Some(section) => {}
            Err(error) if wanted.is_some_and(|wanted| (tar.len() as u64) < wanted) => return Err(error),
            // What is wrong behind it is met again by whoever goes on.
            _ => break,
        }
        let (label, packed) = match frames.fetch()? {
            Some(Fetched::Frame(label, packed)) => (label, packed),
            Some(Fetched::Damage(why)) => bail!("{why}"),
            None => break,
        };
        let end = label.offset + u64::from(label.plain);
        if label.offset != tar.len() as u64 || end > wanted.unwrap_or(most + 2 * BLOCK as u64) {
            bail!("its '{name}' is longer than {most} bytes, or than it says");
        }
        tar.extend(unpacker.unpack(&label, &packed).with_context(|| format!("its '{name}'"))?);
        if wanted.is_none() {
            let header = tar.first_chunk::<BLOCK>();
            let len = header.and_then(|header| header::own_len(name, header)).filter(|len| *len <= most);
            let len = len.with_context(|| format!("its '{name}' has another header than it must"))?;
            wanted = Some(BLOCK as u64 + len + header::padding(len) as u64);
            if tar.len() as u64 > wanted.unwrap_or_default() {
                bail!("its '{name}' is longer than it says");
            }
        }
    }
    let Some(wanted) = wanted else { return Ok(None) };
    if tar.len() as u64 != wanted {
        bail!("its '{name}' is shorter than it says");
    }
    let len = tar.first_chunk::<BLOCK>().and_then(|header| header::own_len(name, header)).unwrap_or_default()
        as usize;
    if tar[BLOCK + len..].iter().any(|byte| *byte != 0) {
        bail!("its '{name}' is not followed by zeros");
    }
    tar.drain(..BLOCK);
    tar.truncate(len);
    Ok(Some(tar))
}

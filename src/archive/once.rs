//! A source into an archive file in one reading: the body first, and the manifest, which comes before it, into room that was left.
//!
//! ```text
//!   start | room for manifest and signatures | body ... | seek table
//!           manifest | signatures | filler
//! ```
//!
//! How much room the front takes is known but for the digests, which do not get smaller when they are packed, whatever they are: a
//! manifest with others in their place tells it, and a little is added. What is left over is a skippable frame behind the last one
//! of the front, as a part of it. Should the front not fit, everything is read once more.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::entry::{Content, Entry, Kind};
use super::frames::{FrameWriter, Label, Packer, Packing, Sink, Written, ZSTD_START, filler};
use super::manifest::{Manifest, Own};
use super::pack::{self, About, FromSource, Keys};
use super::source::Source;
use super::writer::{self, Contents, WORKERS};
use super::{order, view};
use crate::host::disks::start_writing;
use crate::identity::audit::private;
use crate::progress::Progress;

/// Makes signatures of a manifest's bytes.
pub type Sign<'s> = &'s dyn Fn(&[u8]) -> Result<String>;

/// Where an archive goes that can be read and written anywhere, and is empty.
#[derive(Debug, Clone)]
pub struct Place(Arc<File>);

impl Place {
    /// That file.
    pub fn new(file: File) -> Self {
        Self(Arc::new(file))
    }
}

/// What signatures take.
const SIGNATURES: usize = 4096;

/// Writes an archive of zstd frames. The source is read once, but for files that might be the same as another one.
pub fn pack(
    source: &dyn Source,
    about: &About,
    sign: Option<Sign<'_>>,
    packing: Packing,
    place: &Place,
    progress: &Progress,
) -> Result<(Manifest, Written)> {
    let (mut entries, firsts) = order::survey(source, &about.name, progress)?;
    let identity = view::identity(source, &entries)?;
    arrange(source, &mut entries, &firsts)?;
    let own = pack::own(about)?;
    let rehearsed = pack::manifest(about, entries, own, Vec::new(), &identity)?;
    let data = rehearsed.head.data_bytes + rehearsed.head.own.iter().map(|own| own.len).sum::<u64>();

    let (start, bytes) = (At { file: place.clone(), at: 0 }, rehearsed.print()?);
    let (mut body, signs) = (start.clone(), sign.is_some());
    let open = move || {
        let front: u64 = frames(packing, &bytes, None)?.iter().map(|(label, _)| framed(packing, label)).sum();
        let more = if signs { SIGNATURES } else { 0 };
        body.at = ZSTD_START.len() as u64 + front + front / 64 + 512 + more as u64;
        Ok(body)
    };
    let mut tar = FrameWriter::frames_alone(packing, WORKERS, open)?;
    let meter = progress.meter(format!("packing '{}'", about.name), Some(data));
    let mut contents = Once { plain: FromSource { source, about, meter }, private_keys: Vec::new() };
    let Manifest { head, mut entries } = rehearsed;
    let mut digests = Vec::with_capacity(entries.len());
    let written = writer::body(&mut tar, &head.own, &entries, &mut contents, &mut |number, digest| {
        digests.push((number, digest));
        Ok(())
    });
    if about.keys == Keys::Refuse && !contents.private_keys.is_empty() {
        // It ended at the first; all of them are told.
        drop(tar);
        pack::survey(source, about, progress)?;
        bail!("there was a private key in '{}' a moment ago", contents.private_keys[0].escape_ascii());
    }
    written?;
    let body = tar.finish_frames()?;
    for (number, digest) in digests {
        if let Kind::File(content) = &mut entries[number].kind {
            content.blake3 = digest;
        }
    }
    let manifest = pack::manifest(about, entries, head.own, contents.private_keys, &identity)?;
    let bytes = manifest.print()?;
    let signatures = sign.map(|sign| sign(&bytes)).transpose()?;
    let signatures = signatures.as_ref().map(String::as_bytes);
    if let Some(written) = put_front(start.clone(), packing, frames(packing, &bytes, signatures)?, body)? {
        return Ok((manifest, written));
    }
    place.0.set_len(0).context("writing the archive")?;
    let (_, written) = pack::pack(source, about, &manifest, signatures, packing, start, progress)?;
    Ok((manifest, written))
}

/// Brings files into their order. Of those that have the length of another one, the digest is made; others get one that is nobody's.
fn arrange(source: &dyn Source, entries: &mut [Entry], firsts: &order::Firsts) -> Result<()> {
    let mut lengths: HashMap<u64, u32> = HashMap::new();
    for entry in entries.iter() {
        if let Kind::File(content) = &entry.kind {
            *lengths.entry(content.len).or_default() += 1;
        }
    }
    let digests = pack::each_file(entries, &|entry, content| {
        if content.len < order::LEAST_ALIKE || lengths.get(&content.len) == Some(&1) {
            return Ok(blake3::hash(&entry.path));
        }
        let mut hasher = blake3::Hasher::new();
        source.data(entry, content, &mut |bytes| {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(hasher.finalize())
    })?;
    for (number, digest) in digests {
        if let Kind::File(content) = &mut entries[number].kind {
            content.blake3 = digest.into();
        }
    }
    order::sort(entries, firsts);
    Ok(())
}

/// The front, packed.
fn frames(packing: Packing, manifest: &[u8], signatures: Option<&[u8]>) -> Result<Vec<(Label, Vec<u8>)>> {
    let mut packer = Packer::new(packing)?;
    let mut frames = Vec::new();
    for (section, content) in writer::front(manifest, signatures) {
        for (number, piece) in content.chunks(packing.frame_bytes()).enumerate() {
            frames.push(packer.pack(section, (number * packing.frame_bytes()) as u64, piece)?);
        }
    }
    Ok(frames)
}

/// Length of a frame with what stands before it.
fn framed(packing: Packing, label: &Label) -> u64 {
    packing.compression().label_len() as u64 + u64::from(label.packed)
}

/// Writes the front into its room, and what comes behind the body; `None` if there is not room enough.
fn put_front(
    start: At,
    packing: Packing,
    mut front: Vec<(Label, Vec<u8>)>,
    body: Sink<At>,
) -> Result<Option<Written>> {
    let what = "writing the archive";
    let taken: u64 = front.iter().map(|(label, _)| framed(packing, label)).sum();
    let begins = body.begins(|at| at.at);
    let Some(rest) = begins.checked_sub(ZSTD_START.len() as u64 + taken) else { return Ok(None) };
    if rest > 0 {
        let Some(filler) = filler(rest as usize) else { return Ok(None) };
        let (label, frame) = front.last_mut().context(what)?;
        label.packed += filler.len() as u32;
        frame.extend(filler);
    }
    let mut sink = Sink::new(start, packing.compression())?;
    for (label, frame) in &front {
        sink.frame(label, frame).context(what)?;
    }
    ensure!(sink.bytes() == begins, "{what}: its front has {} bytes and not {begins}", sink.bytes());
    sink.go_on(body);
    Ok(Some(sink.finish().context(what)?.1))
}

/// Writes from some place on.
#[derive(Debug, Clone)]
struct At {
    file: Place,
    at: u64,
}

impl Write for At {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.0.write_at(bytes, self.at)?;
        start_writing(&self.file.0, self.at, written);
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Once<'s> {
    plain: FromSource<'s>,
    private_keys: Vec<Vec<u8>>,
}

impl Contents for Once<'_> {
    fn own(&mut self, own: &Own) -> Result<Box<dyn Read>> {
        self.plain.own(own)
    }

    fn data(
        &mut self,
        entry: &Entry,
        content: &Content,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut scan = self.plain.source.is_audited(entry).then(|| private::Scan::of(&entry.path));
        self.plain.data(entry, content, &mut |bytes| {
            if let Some(scan) = &mut scan {
                scan.feed(bytes);
            }
            each(bytes)
        })?;
        if scan.is_some_and(|scan| scan.found()) {
            self.private_keys.push(entry.path.clone());
            if self.plain.about.keys == Keys::Refuse {
                bail!("there is a private key in it");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

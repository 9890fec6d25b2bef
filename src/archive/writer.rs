//! An archive, written from a manifest and the content of its files.

use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow, bail};

use super::entry::{Content, Entry, Kind};
use super::frames::{FrameWriter, Packing, Section, Written};
use super::header;
use super::manifest::{FurtherNames, Manifest, Own};
use super::reader::{MANIFEST, SIGNATURES};
use super::source::CHANGED;
use super::text::unhex;

/// Where the content of what is packed comes from, the second time: the manifest has it already.
pub trait Contents {
    /// One of the archive's own files.
    fn own(&mut self, own: &Own) -> Result<Box<dyn Read>>;
    /// Tells the data of the entry's pieces, one after another.
    fn data(
        &mut self,
        entry: &Entry,
        content: &Content,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()>;
}

/// Threads that compress.
pub(super) const WORKERS: usize = 2;
const STEP: usize = 256 << 10;

/// Writes the archive. What has changed since the manifest was made is an error, and what was written is of no use then.
pub fn write<W: Write + Send + 'static>(
    out: W,
    packing: Packing,
    manifest: &Manifest,
    signatures: Option<&[u8]>,
    contents: &mut dyn Contents,
) -> Result<(W, Written)> {
    let mut tar = FrameWriter::new(out, packing, WORKERS)?;
    for (section, content) in front(&manifest.print()?, signatures) {
        tar.begin(section)?;
        tar.write(&content)?;
    }
    let Manifest { head, entries } = manifest;
    body(&mut tar, &head.own, entries, contents, &mut |number, digest| match &entries[number].kind {
        Kind::File(content) if content.blake3 == digest => Ok(()),
        _ => bail!(CHANGED),
    })?;
    tar.finish()
}

/// What comes before the body, as it stands in the tar.
pub(super) fn front(manifest: &[u8], signatures: Option<&[u8]>) -> Vec<(Section, Vec<u8>)> {
    let manifest = (Section::Manifest, part(MANIFEST, manifest));
    let signatures = signatures.map(|signatures| (Section::Signatures, part(SIGNATURES, signatures)));
    [manifest].into_iter().chain(signatures).collect()
}

/// One of the archive's own files, as it stands in the tar.
pub(super) fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let mut part = header::own(name, content.len() as u64);
    part.extend(content);
    part.resize(part.len() + header::padding(content.len() as u64), 0);
    part
}

/// Writes all but the front. The digest of each file is told as it was read just now, by its number among the entries.
pub(super) fn body<W: Write + Send + 'static>(
    tar: &mut FrameWriter<W>,
    own: &[Own],
    entries: &[Entry],
    contents: &mut dyn Contents,
    digested: &mut dyn FnMut(usize, [u8; 32]) -> Result<()>,
) -> Result<()> {
    tar.begin(Section::Body)?;
    for own in own {
        let what = || format!("packing '{}'", own.name.name());
        let mut input = contents.own(own).with_context(what)?;
        tar.write(&header::own(own.name.name(), own.len))?;
        let mut file = File::new(tar, own.len);
        let mut buffer = vec![0; STEP];
        loop {
            match input.read(&mut buffer).with_context(what)? {
                0 => break,
                n => file.write(&buffer[..n]).with_context(what)?,
            }
        }
        let digest = file.end().with_context(what)?;
        if unhex(&own.blake3).as_deref() != Some(&digest[..]) {
            return Err(anyhow!(CHANGED)).with_context(what);
        }
    }
    let named = FurtherNames::of(entries);
    for (number, entry) in entries.iter().enumerate() {
        let of = named.file_of(entry);
        let head = header::of(entry, of);
        let Kind::File(content) = &entry.kind else {
            tar.may_cut(0)?;
            tar.write(&head)?;
            continue;
        };
        let what = || format!("packing '{}'", entry.path.escape_ascii());
        let len = header::data_len(&content.data);
        tar.may_cut(len)?;
        tar.write(&head)?;
        let mut file = File::new(tar, len);
        contents.data(entry, content, &mut |bytes| file.write(bytes)).with_context(what)?;
        file.end().and_then(|digest| digested(number, digest)).with_context(what)?;
    }
    tar.write(&[0; header::END])
}

/// The content of one file on its way into the tar.
struct File<'t, W> {
    tar: &'t mut FrameWriter<W>,
    len: u64,
    done: u64,
    hasher: blake3::Hasher,
}

impl<'t, W: Write + Send + 'static> File<'t, W> {
    fn new(tar: &'t mut FrameWriter<W>, len: u64) -> Self {
        Self { tar, len, done: 0, hasher: blake3::Hasher::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        self.done += bytes.len() as u64;
        if self.done > self.len {
            bail!(CHANGED);
        }
        self.hasher.update(bytes);
        self.tar.write(bytes)
    }

    fn end(self) -> Result<[u8; 32]> {
        if self.done != self.len {
            bail!(CHANGED);
        }
        self.tar.write(&[0; header::BLOCK][..header::padding(self.len)])?;
        Ok(self.hasher.finalize().into())
    }
}

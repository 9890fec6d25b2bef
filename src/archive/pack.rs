//! A source into an archive: looked over, read once for the manifest, read again for the frames.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};

use super::entry::{Content, Entry, Kind};
use super::frames::{Packing, Written};
use super::manifest::{Audit, FORMAT_VERSION, Filesystem, Head, Manifest, Own, OwnName};
use super::source::Source;
use super::text::{Text, hex};
use super::writer::{self, Contents};
use super::{order, room, view};
use crate::host::superblock::FilesystemKind;
use crate::identity::audit::private;
use crate::progress::{Meter, Progress};

/// What is packed, besides what the source tells.
#[derive(Debug, Clone)]
pub struct About {
    /// What it is called.
    pub name: String,
    /// The filesystem that the source is, if it is one.
    pub filesystem: Option<Filesystem>,
    /// Files of the archive's own.
    pub own: Vec<(OwnName, PathBuf)>,
    /// Whether private keys are packed.
    pub keys: Keys,
}

/// What to do with private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// They are refused.
    Refuse,
    /// They are packed, and the manifest tells of them.
    Pack,
}

/// There are private keys in what was to become an archive or an image.
#[derive(Debug)]
pub struct PrivateKeys {
    /// Paths of files that hold one, as they are shown.
    pub files: Vec<String>,
    /// What can be done.
    pub hint: &'static str,
}

impl std::fmt::Display for PrivateKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MOST: usize = 20;
        write!(f, "there are private keys in it:")?;
        for path in self.files.iter().take(MOST) {
            write!(f, "\n  {path}")?;
        }
        if let Some(more) = self.files.len().checked_sub(MOST).filter(|more| *more > 0) {
            write!(f, "\n  and {more} more")?;
        }
        write!(f, "\nhint: {}", self.hint)
    }
}

impl std::error::Error for PrivateKeys {}

/// Makes the manifest: every file is read once, by several threads.
pub fn survey(source: &dyn Source, about: &About, progress: &Progress) -> Result<Manifest> {
    let (mut entries, firsts) = order::survey(source, &about.name, progress)?;
    let identity = view::identity(source, &entries)?;
    let data = |entry: &Entry| match &entry.kind {
        Kind::File(content) => content.data.iter().map(|(_, len)| len).sum(),
        _ => 0u64,
    };
    let meter = progress.meter(format!("reading '{}'", about.name), Some(entries.iter().map(data).sum()));
    let digests = each_file(&entries, &|entry, content| digest(source, entry, content, &meter))?;
    let mut private_keys = Vec::new();
    for (number, digest) in digests {
        let entry = &mut entries[number];
        if let Kind::File(content) = &mut entry.kind {
            content.blake3 = digest.blake3;
        }
        if digest.is_key {
            private_keys.push(entry.path.clone());
        }
    }
    private_keys.sort();
    if !private_keys.is_empty() && about.keys == Keys::Refuse {
        let files = private_keys.iter().map(|path| format!("/{}", path.escape_ascii())).collect();
        let hint = "'gridgate personalise --seal' takes an identity out; --with-keys packs them";
        return Err(anyhow::Error::new(PrivateKeys { files, hint }));
    }
    order::sort(&mut entries, &firsts);
    manifest(about, entries, own(about)?, private_keys, &identity)
}

/// All that is known of it, put together.
pub(super) fn manifest(
    about: &About,
    entries: Vec<Entry>,
    own: Vec<Own>,
    mut private_keys: Vec<Vec<u8>>,
    identity: &[Vec<u8>],
) -> Result<Manifest> {
    private_keys.sort();
    let head = Head {
        format_version: FORMAT_VERSION,
        name: about.name.clone(),
        packed_by: concat!("gridgate ", env!("CARGO_PKG_VERSION")).to_owned(),
        filesystem: about.filesystem.clone(),
        entries: 0,
        content_bytes: 0,
        data_bytes: 0,
        minimum_bytes: room::minimum(FilesystemKind::Ext4, &entries).bytes,
        audit: Audit {
            clean: private_keys.is_empty() && identity.is_empty(),
            private_keys: private_keys.into_iter().map(Text).collect(),
            identity: identity.iter().cloned().map(Text).collect(),
        },
        own,
    };
    Manifest::new(head, entries)
}

/// Writes the archive of what was surveyed, with signatures of its manifest if there are any yet.
pub fn pack<W: Write + Send + 'static>(
    source: &dyn Source,
    about: &About,
    manifest: &Manifest,
    signatures: Option<&[u8]>,
    packing: Packing,
    out: W,
    progress: &Progress,
) -> Result<(W, Written)> {
    let own: u64 = manifest.head.own.iter().map(|own| own.len).sum();
    let meter = progress.meter(format!("packing '{}'", about.name), Some(manifest.head.data_bytes + own));
    writer::write(out, packing, manifest, signatures, &mut FromSource { source, about, meter })
}

pub(super) struct FromSource<'s> {
    pub(super) source: &'s dyn Source,
    pub(super) about: &'s About,
    pub(super) meter: Meter<'s>,
}

/// Files of the archive's own, with their digests.
pub(super) fn own(about: &About) -> Result<Vec<Own>> {
    let own = about.own.iter().map(|(name, path)| digest_own(*name, path));
    let mut own = own.collect::<Result<Vec<_>>>()?;
    own.sort_by_key(|own| own.name);
    Ok(own)
}

fn open_own(about: &About, own: &Own) -> Result<File> {
    let found = about.own.iter().find(|(name, _)| *name == own.name);
    let (_, path) = found.with_context(|| format!("'{}' is not there", own.name.name()))?;
    File::open(path).with_context(|| format!("opening '{}'", path.display()))
}

impl Contents for FromSource<'_> {
    fn own(&mut self, own: &Own) -> Result<Box<dyn Read>> {
        self.meter.add(own.len);
        Ok(Box::new(open_own(self.about, own)?))
    }

    fn data(
        &mut self,
        entry: &Entry,
        content: &Content,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.source.data(entry, content, &mut |bytes| {
            self.meter.add(bytes.len() as u64);
            each(bytes)
        })
    }
}

struct Digest {
    blake3: [u8; 32],
    is_key: bool,
}

/// What comes of all files, by number of the entry, of several threads' work.
pub(super) fn each_file<T: Send>(
    entries: &[Entry],
    what: &(dyn Fn(&Entry, &Content) -> Result<T> + Sync),
) -> Result<Vec<(usize, T)>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = entries.get(number) else { return Ok(done) };
            if let Kind::File(content) = &entry.kind {
                let came = what(entry, content);
                done.push((
                    number,
                    came.with_context(|| format!("reading '{}'", entry.path.escape_ascii()))?,
                ));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut all = Vec::new();
    for result in results {
        all.extend(result.map_err(|_| anyhow!("a thread has died"))??);
    }
    Ok(all)
}

fn digest(source: &dyn Source, entry: &Entry, content: &Content, meter: &Meter<'_>) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut scan = source.is_audited(entry).then(|| private::Scan::of(&entry.path));
    source.data(entry, content, &mut |bytes| {
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        hasher.update(bytes);
        if let Some(scan) = &mut scan {
            scan.feed(bytes);
        }
        meter.add(bytes.len() as u64);
        Ok(())
    })?;
    Ok(Digest { blake3: hasher.finalize().into(), is_key: scan.is_some_and(|scan| scan.found()) })
}

fn digest_own(name: OwnName, path: &PathBuf) -> Result<Own> {
    let hash = || -> std::io::Result<Own> {
        let mut hasher = blake3::Hasher::new();
        let len = std::io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok(Own { name, len, blake3: hex(hasher.finalize().as_bytes()) })
    };
    hash().with_context(|| format!("reading '{}'", path.display()))
}

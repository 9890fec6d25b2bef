//! Golden images of what is there already: a directory, a tar of any compression, a disk, a guest.
//!
//! ```text
//!   SOURCE --origin::find--> From --opened--> Source (as for packing) --make--> STATE/images/NAME/
//! ```
//!
//! Whatever it is, it is hostile: it is read as data, or through a mount that nobody else sees; a filesystem of our own making is
//! filled with what was found, and nothing else is written anywhere.

pub mod origin;
mod disk;
mod make;
mod stream;
mod tar;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::limits::Limits;
use crate::archive::pack::Keys;
use crate::archive::source::Source;
use crate::host::Host;
use crate::host::root::Root;
use crate::image::manifest::{Manifest, Origin};
use crate::image::staging::{self, About};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use make::{Filled, Told};
use stream::Heard;

/// Where it comes from.
#[derive(Debug)]
pub struct From {
    /// What the manifest says of it.
    pub named: Named,
    /// What is opened.
    pub place: Place,
}

/// How a source was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `directory`, `tar`, `disk` or `guest`.
    pub kind: &'static str,
    /// Path, address or name; `-` for a pipe.
    pub source: String,
    /// The partition that was asked for.
    pub partition: Option<u32>,
}

/// What kind of thing a source is.
#[derive(Debug)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A tar of any compression: a file, or what source::open(..) takes.
    Stream(String),
    /// A file or device whose bytes are those of a disk.
    Raw(PathBuf),
    /// The same in a file that may be changed: what is in its journal is written out.
    Copy(PathBuf),
    /// A disk in QEMU's format.
    Qcow2(PathBuf),
}

/// What is asked of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How large the image's filesystem is to be; a little larger than it must be, if nothing is said.
    pub size: Option<u64>,
    /// Take the identity of the machine that it was out.
    pub seal: bool,
    /// What to do with private keys that are in it, after that.
    pub keys: Keys,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The image.
    pub manifest: Manifest,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
}

/// Makes the image; one of that name that is there is replaced when the new one is whole. Nothing is left of an import that
/// fails. Private keys are [`crate::archive::pack::PrivateKeys`].
pub fn import(
    host: &dyn Host,
    paths: &Paths,
    name: &ImageName,
    from: &From,
    wish: &Wish,
    progress: &Progress,
) -> Result<Imported> {
    staging::publish(host, paths, name, "importing", progress, |dir, out| {
        let mut digest = None;
        let mut partition = from.named.partition;
        let mut filled = None;
        let work = Work { host, dir, out, wish, progress, source: &from.named.source };
        match &from.place {
            Place::Directory(path) => {
                filled = Some(work.make(&Root::open(path)?, &Told::default())?);
            }
            Place::Stream(source) => {
                let (tar, told) = work.tar(source)?;
                digest = Some(told);
                filled = Some(work.make(&tar, &Told::default())?);
            }
            Place::Raw(path) => work.disk(path, disk::Journal::Refuse, &mut partition, &mut filled)?,
            Place::Copy(path) => work.disk(path, disk::Journal::Replay, &mut partition, &mut filled)?,
            Place::Qcow2(path) => {
                let raw = dir.join("disk.raw");
                progress.say(&format!("copying the disk out of '{}'", path.display()));
                crate::host::qcow2::copy_out(host, path, &raw, host.free_bytes(dir)?)?;
                work.disk(&raw, disk::Journal::Replay, &mut partition, &mut filled)?;
            }
        }
        let Filled { uuid, packages, remains, notes } = filled.context("nothing was made")?;
        let origin = Origin {
            kind: from.named.kind.to_owned(),
            source: from.named.source.clone(),
            blake3: digest,
            partition,
            sealed: wish.seal,
            audit: remains,
        };
        let about = About { uuid, packages, origin: Some(origin), ..About::default() };
        Ok(Imported { manifest: staging::finish(host, out, name, about, progress)?, notes })
    })
}

struct Work<'w> {
    host: &'w dyn Host,
    /// For what is not to stay.
    dir: &'w Path,
    /// What becomes the image.
    out: &'w Path,
    wish: &'w Wish,
    progress: &'w Progress,
    source: &'w str,
}

/// How often it is asked whether there is still room.
const BETWEEN_LOOKS: u64 = 64 << 20;

impl Work<'_> {
    fn make(&self, source: &dyn Source, told: &Told) -> Result<Filled> {
        make::make(self, source, told)
    }

    /// All of a tar, and the digest of its bytes as they came.
    fn tar(&self, source: &str) -> Result<(tar::Tar, String)> {
        let heard = Heard::default();
        let total = std::fs::metadata(source).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
        let meter = self.progress.meter(format!("reading '{source}'"), total);
        let input = crate::host::source::open(self.host, source)?;
        let mut input = stream::open(self.host, input, &heard)?;
        let path = self.dir.join("data");
        let kept = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let kept = kept.with_context(|| format!("making '{}'", path.display()))?;
        let (mut held, mut since) = (0, 0);
        let mut room = |more: u64| {
            (held, since) = (held + more, since + more);
            meter.set(heard.bytes());
            if since < BETWEEN_LOOKS {
                return Ok(());
            }
            since = 0;
            // As much again is needed for the filesystem.
            let free = self.host.free_bytes(self.dir)?;
            let images = self.dir.parent().unwrap_or(self.dir).display();
            anyhow::ensure!(
                free >= held,
                "not enough space in '{images}': it has more than {}, and {} are free",
                Bytes(held),
                Bytes(free)
            );
            Ok(())
        };
        let what = || format!("reading '{source}'");
        let tar = tar::read(&mut input, kept, Limits::default(), &mut room).with_context(what)?;
        drop(input);
        Ok((tar, heard.digest()))
    }

    fn disk(
        &self,
        path: &Path,
        journal: disk::Journal,
        partition: &mut Option<u32>,
        filled: &mut Option<Filled>,
    ) -> Result<()> {
        let (volume, number) = disk::find_root(self.host, path, *partition)
            .with_context(|| format!("looking for the system on '{}'", self.source))?;
        *partition = number;
        if let Some(number) = number {
            self.progress.say(&format!("the system is on partition {number}"));
        }
        let told = disk::ready(self.host, &volume, journal, self.source)?;
        self.host.look_at_volume(&volume, &mut |root, _| {
            *filled = Some(self.make(root, &told)?);
            Ok(())
        })
    }
}

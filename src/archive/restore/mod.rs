//! `gridgate image restore`: what is in an archive becomes a filesystem again, of any size that fits.
//!
//! ```text
//!   Reader (manifest) --plan--> Plan --restore--> Outcome
//! ```
//!
//! The plan is made of the manifest before anything is touched. Until the last step the target holds no filesystem: a file or
//! directory gets its name at the end, a device its superblock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::compare::{Difference, Known, compare};
use super::entry::Entry;
use super::fill::{Fill, Short};
use super::manifest::Manifest;
use super::reader::{self, Begun, Damage, Reader};
use super::room::{self, Room};
use super::stream::Piece;
use crate::host::Host;
use crate::host::filesystem;
use crate::host::newfs::{Finish, NewFilesystem, Work};
use crate::host::refused::Refused;
use crate::host::root::Root;
use crate::host::superblock::FilesystemKind;
use crate::host::target::{Claim, Target};
use crate::host::volume::Volume;
use crate::names::Bytes;
use crate::progress::Progress;

mod beside;
mod contents;
pub mod golden;

use beside::Beside;
use contents::Contents;

/// What is asked of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which filesystem; that of the archive's source if nothing is said, or ext4.
    pub kind: Option<FilesystemKind>,
    /// How large it is to be.
    pub size: Size,
    /// A UUID of its own, instead of the one that the source had.
    pub new_uuid: bool,
    /// Read everything back and compare it.
    pub verify: bool,
    /// Go on where the archive is damaged, and lose what is hit.
    pub salvage: bool,
}

/// How large a filesystem is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All of a device; in a file what the source had, if that is enough.
    Usual,
    /// So many bytes.
    Of(u64),
    /// To the end of what is there.
    Grow,
    /// As small as everything fits, and a little room.
    Fit,
}

/// Where it is to go.
#[derive(Debug)]
pub enum Place {
    /// A file, new or in place of the one that is there.
    File(PathBuf),
    /// A device, which nobody else can take meanwhile.
    Device(PathBuf, Claim),
    /// A part of a disk that is being put together: a partition of a file or device that the caller has for itself.
    Part(Volume),
    /// A directory, new or empty.
    Directory(PathBuf),
    /// A directory that is wanted no longer than this process lives: stable storage is not waited for.
    Scratch(PathBuf),
}

/// What is going to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The filesystem; none if everything goes into a directory.
    pub filesystem: Option<NewFilesystem>,
    /// Its length, or what a directory is going to take.
    pub bytes: u64,
    /// The smallest that everything fits into.
    pub minimum: Room,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Files that could not be had, and why.
    pub lost: BTreeMap<Vec<u8>, String>,
    /// Things whose flags this kind of filesystem does not have.
    pub unkept: Vec<Vec<u8>>,
    /// Whether it was read back, and is what the manifest says.
    pub verified: bool,
}

/// Room that is added to the smallest size, so that the filesystem can be used.
const A_LITTLE: u64 = 32 << 20;

/// What would be made in a place of that length (`None`: as long as it likes). Refuses what cannot fit.
pub fn plan(manifest: &Manifest, wish: &Wish, target: &Target, len: Option<u64>) -> Result<Plan> {
    let source = manifest.head.filesystem.as_ref();
    let source_kind = source.and_then(|source| FilesystemKind::named(&source.kind));
    let kind = wish.kind.or(source_kind).unwrap_or(FilesystemKind::Ext4);
    let minimum = room::minimum(kind, &manifest.entries);
    if let Target::Directory { .. } = target {
        let given = wish.kind.is_some() || wish.size != Size::Usual;
        anyhow::ensure!(!given, "a directory gets neither a filesystem nor a size of its own");
        return Ok(Plan { filesystem: None, bytes: manifest.head.data_bytes, minimum });
    }
    let usual = source.map_or(0, |source| source.size_bytes);
    let fitting = minimum.bytes.saturating_add(A_LITTLE.max(minimum.bytes / 20));
    let bytes = match (wish.size, len) {
        (Size::Of(bytes), _) => bytes,
        (Size::Fit, _) => fitting,
        (Size::Usual | Size::Grow, Some(len)) => len,
        (Size::Usual, None) => usual.max(fitting),
        (Size::Grow, None) => bail!("there is nothing yet whose end '--grow' could mean\nhint: --size"),
    };
    // Whole blocks of every filesystem.
    let bytes = bytes / 4096 * 4096;
    let refuse = |why: String| Err(anyhow::Error::new(Refused(why)));
    if bytes < minimum.bytes {
        let (bytes, least) = (Bytes(bytes), Bytes(minimum.bytes));
        return refuse(format!("{bytes} are too small: at least {least} are needed as {}", kind.name()));
    }
    if let Some(len) = len.filter(|len| bytes > *len) {
        return refuse(format!("the target has {}, and {} were asked for", Bytes(len), Bytes(bytes)));
    }
    let told = source.filter(|_| !wish.new_uuid).and_then(|source| parse_uuid(&source.uuid));
    let uuid = match told {
        Some(uuid) => uuid,
        None => random_uuid()?,
    };
    let label = source.and_then(|source| String::from_utf8(source.label.0.clone()).ok()).unwrap_or_default();
    let filesystem = NewFilesystem {
        kind,
        label,
        uuid,
        reserved_percent: 1,
        inodes: minimum.inodes,
        tight: wish.size == Size::Fit,
        features: vec!["metadata_csum_seed".to_owned()],
    };
    Ok(Plan { filesystem: Some(filesystem), bytes, minimum })
}

/// Makes it. Files of the archive's own go into the directory `own`, if one is given. An error leaves the target without a
/// filesystem, or the file that was there as it was; with [`Wish::salvage`] damage is no error.
pub fn restore(
    host: &dyn Host,
    reader: Reader,
    plan: &Plan,
    place: &Place,
    wish: &Wish,
    own: Option<&Path>,
    progress: &Progress,
) -> Result<Outcome> {
    let manifest = reader.manifest.clone();
    // While the filesystem is made.
    let reader = reader.begin(if wish.salvage { Damage::Salvage } else { Damage::Refuse });
    let doing = if matches!(place, Place::Scratch(_)) { "unpacking" } else { "restoring" };
    let mut making = Making {
        doing,
        reader: Some(reader),
        manifest: &manifest,
        wish,
        own,
        progress,
        done: Done::default(),
    };
    match (place, &plan.filesystem) {
        (Place::Directory(path) | Place::Scratch(path), _) => {
            let beside = Beside::directory(host, path)?;
            let root = Root::open(beside.path())?;
            making.fill(&root)?;
            if wish.verify {
                making.check(&root)?;
            }
            if matches!(place, Place::Directory(_)) {
                filesystem::sync(&root).context("writing all of it to stable storage")?;
            }
            drop(root);
            beside.done()?;
        }
        (Place::File(path), Some(new)) => {
            let beside = Beside::file(host, path, plan.bytes)?;
            making.volume(host, &Volume::whole(beside.path()), new, Finish::InPlace)?;
            beside.done()?;
        }
        (Place::Device(path, _), Some(new)) => {
            let volume = Volume { file: path.clone(), offset: 0, len: Some(plan.bytes) };
            making.volume(host, &volume, new, Finish::SuperblockLast)?;
        }
        (Place::Part(volume), Some(new)) => {
            let volume = Volume { len: Some(plan.bytes), ..volume.clone() };
            making.volume(host, &volume, new, Finish::SuperblockLast)?;
        }
        (_, None) => bail!("this is planned for a directory"),
    }
    let path = |number: &usize| manifest.entries.get(*number).map(|entry| entry.path.clone());
    Ok(Outcome {
        lost: making.done.lost,
        unkept: making.done.short.unkept.iter().filter_map(path).collect(),
        verified: wish.verify,
    })
}

/// What was found while it was filled.
#[derive(Default)]
struct Done {
    short: Short,
    lost: BTreeMap<Vec<u8>, String>,
}

struct Making<'a> {
    doing: &'static str,
    /// Read once.
    reader: Option<Begun>,
    manifest: &'a Manifest,
    wish: &'a Wish,
    own: Option<&'a Path>,
    progress: &'a Progress,
    done: Done,
}

impl Making<'_> {
    fn volume(
        &mut self,
        host: &dyn Host,
        volume: &Volume,
        new: &NewFilesystem,
        finish: Finish,
    ) -> Result<()> {
        let verify = self.wish.verify;
        let making = std::cell::RefCell::new(self);
        let mut check = |root: &Root| making.borrow_mut().check(root);
        let mut work = Work { fill: &mut |root| making.borrow_mut().fill(root), check: None };
        if verify {
            work.check = Some(&mut check);
        }
        host.make_volume(volume, new, finish, &mut work)
    }

    fn fill(&mut self, root: &Root) -> Result<()> {
        let reader = self.reader.take().context("the archive has been read already")?;
        let fill = Fill::begin(root, &self.manifest.entries)?;
        let meter = self.progress.meter(self.doing, Some(self.manifest.head.data_bytes));
        let contents = || Contents::new(&fill, self.manifest, self.own, &meter);
        let mut contents: Vec<_> = (0..reader::sharers()).map(|_| contents()).collect();
        let mut sinks: Vec<_> =
            contents.iter_mut().map(|contents| |piece: Piece<'_>| contents.take(piece)).collect();
        reader.share(&mut sinks)?;
        drop(sinks);
        let why: BTreeMap<_, _> = contents.into_iter().flat_map(Contents::why).collect();
        let short = fill.finish()?;
        for number in &short.lost {
            let Some(entry) = self.manifest.entries.get(*number) else { continue };
            let why = why
                .get(number)
                .cloned()
                .unwrap_or_else(|| "the file that it is a name of is lost".to_owned());
            self.done.lost.insert(entry.path.clone(), why);
        }
        self.done.short = short;
        Ok(())
    }

    fn check(&mut self, root: &Root) -> Result<()> {
        let short = &self.done.short;
        let known = Known {
            lost: short.lost.iter().copied().collect(),
            unkept: short.unkept.iter().copied().collect(),
        };
        let found =
            differences(root, &self.manifest.entries, &known, self.manifest.head.data_bytes, self.progress)?;
        match found.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                bail!("what was read back is not what was written ({} differences): {first}", found.len())
            }
        }
    }
}

/// Compares, with a bar.
pub fn differences(
    root: &Root,
    entries: &[Entry],
    known: &Known,
    bytes: u64,
    progress: &Progress,
) -> Result<Vec<Difference>> {
    let meter = progress.meter("verifying", Some(bytes));
    compare(root, entries, known, &|read| meter.set(read))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    super::text::unhex(&digits)?.try_into().ok()
}

/// A UUID that nobody has (RFC 9562, version 4).
pub fn random_uuid() -> Result<[u8; 16]> {
    let mut uuid = [0; 16];
    let got = rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty());
    anyhow::ensure!(got.context("taking a random UUID")? == 16, "taking a random UUID: the kernel gave less");
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

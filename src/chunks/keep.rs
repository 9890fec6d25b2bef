//! What is in a store, whether it is whole, and what of it nobody needs any more.
//!
//! Readers hold no lock: a web server cannot tell of them. So nothing goes before its time: a version stays for the grace
//! after the next one came, and a file that no version names for the grace after it was written. Who has read a head finds
//! what it names for that long, and reads the head again when he does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::blocks::{Hash, of_group};
use super::head::{Head, Kind, Signed};
use super::index::{Index, Pack};
use super::place::{Dir, Missing, PARTIAL, Place, Shelf};
use super::{LONGEST_HEAD, LONGEST_INDEX};
use crate::host::temporary::Maker;
use crate::names::ImageName;
use crate::progress::{Progress, interrupted};

/// How long what is no longer needed is kept, unless told otherwise: longer than the slowest pull.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A version that is in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// What it says of itself.
    pub head: Head,
    /// How many signatures it bears; not checked.
    pub signatures: usize,
    /// Whether it is what `latest` means.
    pub latest: bool,
    /// When its head was written.
    pub written: SystemTime,
}

/// All versions in a directory, by name, the newest first. A head that cannot be read is an error that names it.
pub fn list(dir: &Path) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for kind in Kind::ALL {
        list_kind(dir, kind, &mut versions)?;
    }
    Ok(versions)
}

fn list_kind(dir: &Path, kind: Kind, versions: &mut Vec<Version>) -> Result<()> {
    for name in names(&dir.join(kind.dir()))? {
        let Ok(image) = name.parse::<ImageName>() else { continue };
        let of_name = dir.join(kind.dir()).join(&name);
        let latest = match fs::read(of_name.join("latest")) {
            Ok(bytes) => Some(Signed::parse(&bytes).with_context(|| format!("{kind} '{name}'"))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("reading '{name}/latest'")),
        };
        let newest = latest.as_ref().map(|latest| latest.head.version.clone());
        let mut of_image = Vec::new();
        for file in names(&of_name)?.into_iter().filter(|file| file.ends_with(".head")) {
            let path = of_name.join(file);
            let what = || format!("reading '{}'", path.display());
            let written = path.metadata().and_then(|meta| meta.modified()).with_context(what)?;
            let bytes = Dir::new(dir).get(&path.strip_prefix(dir)?.to_string_lossy(), LONGEST_HEAD)?;
            of_image.push((Signed::parse(&bytes).with_context(what)?, written));
        }
        // A push that ended right before it wrote the head of its own, or a copy that left it out.
        if let Some(latest) = latest
            && !of_image.iter().any(|(signed, _)| signed.head.version == latest.head.version)
        {
            let written = fs::metadata(of_name.join("latest")).and_then(|meta| meta.modified())?;
            of_image.push((latest, written));
        }
        of_image.sort_by_key(|(signed, _)| std::cmp::Reverse(signed.head.sequence));
        for (signed, written) in of_image {
            if signed.head.name != image || signed.head.kind != kind {
                bail!("a head of {} '{}' lies with {kind} '{name}'", signed.head.kind, signed.head.name);
            }
            let signatures = crate::signature::parse(&signed.signatures).map_or(0, |blocks| blocks.len());
            let latest = newest.as_ref() == Some(&signed.head.version);
            versions.push(Version { head: signed.head, signatures, latest, written });
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    use crate::host::files::Files;
    crate::host::Live.list(dir)
}

/// Checks that the hashes of blocks are those that the index has hashes of.
pub fn check_groups(index: &Index, hashes: &[Hash]) -> Result<()> {
    for (group, first) in index.groups.iter().zip(index.firsts()) {
        let of = &hashes[first as usize..first as usize + group.mask.count_ones() as usize];
        if of_group(group.mask, of) != group.hash {
            bail!("group {} does not have the hash that it should", group.number);
        }
    }
    Ok(())
}

/// The index of a version, if it is what its head says.
pub fn index(place: &dyn Place, head: &Head) -> Result<Index> {
    let bytes = place.get(&head.index(), head.index_size_bytes.min(LONGEST_INDEX))?;
    if blake3::hash(&bytes).to_hex().as_str() != head.index_blake3 {
        bail!("'{}' is not what the head says", head.index());
    }
    Index::parse(&bytes, head.groups())
}

/// Reads all of a store. What is wrong with it, a line each; none if it is whole.
pub fn verify(dir: &Path, progress: &Progress) -> Result<Vec<String>> {
    let place = Dir::new(dir);
    let mut wrong = Vec::new();
    let mut packs: BTreeMap<Hash, (Pack, String)> = BTreeMap::new();
    for version in list(dir)? {
        let head = &version.head;
        let what = format!("{} '{}', version {}", head.kind, head.name, head.version);
        let mut look = || -> Result<()> {
            let index = index(&place, head)?;
            let hashes = place.get(&head.hashes(), index.count() * 16)?;
            let (hashes, odd) = hashes.as_chunks::<16>();
            if hashes.len() as u64 != index.count() || !odd.is_empty() {
                bail!("'{}' is too short", head.hashes());
            }
            check_groups(&index, hashes).with_context(|| format!("'{}'", head.hashes()))?;
            for pack in index.packs {
                packs.entry(pack.name).or_insert((pack, what.clone()));
            }
            Ok(())
        };
        if let Err(error) = look() {
            wrong.push(format!("{what}: {error:#}"));
        }
    }
    for (pack, what) in packs.values() {
        if interrupted() {
            bail!("interrupted");
        }
        let mut hasher = blake3::Hasher::new();
        let meter = progress.meter(format!("reading '{}'", pack.path()), Some(pack.len()));
        let read = place.length(&pack.path())?.map(|len| {
            let all = 0..len.max(1);
            place.ranges(&pack.path(), std::slice::from_ref(&all), &mut |at, bytes| {
                hasher.update(bytes);
                meter.set(at);
                Ok(())
            })
        });
        match read {
            None => wrong.push(format!("{what}: '{}' is not there", pack.path())),
            Some(Err(error)) => wrong.push(format!("{what}: {error:#}")),
            Some(Ok(())) if hasher.finalize().as_bytes()[..16] != pack.name => {
                wrong.push(format!("{what}: '{}' has changed since it was written", pack.path()));
            }
            Some(Ok(())) => {}
        }
    }
    Ok(wrong)
}

/// What [`collect`] leaves.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// How long what is no longer needed stays for readers.
    pub grace: Duration,
    /// So many of the newest backups of each site; all of them if `None`, since an old one is what a backup is for.
    pub backups: Option<usize>,
}

/// Removes what no reader can need any more; with `dry` only finds it. Files and their lengths.
pub fn collect(dir: &Path, Keep { grace, backups }: Keep, dry: bool) -> Result<Vec<(PathBuf, u64)>> {
    if !Kind::ALL.iter().any(|kind| dir.join(kind.dir()).is_dir()) {
        bail!("'{}' is no store: it has no directory 'images' or 'backups'", dir.display());
    }
    let shelf = Dir::new(dir);
    let _lock = shelf.lock()?;
    let versions = list(dir)?;
    let mut keep: BTreeSet<PathBuf> = BTreeSet::new();
    let now = SystemTime::now();
    let old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age >= grace);
    for (n, version) in versions.iter().enumerate() {
        let head = &version.head;
        // The one before in the list came after it: it is younger, and of the same name.
        let same = |other: &&Version| other.head.name == head.name && other.head.kind == head.kind;
        let next = n.checked_sub(1).map(|n| &versions[n]).filter(same);
        let unneeded = match head.kind {
            Kind::Image => true,
            Kind::Backup => backups.is_some_and(|most| versions[..n].iter().filter(same).count() >= most),
        };
        let superseded = !version.latest && unneeded && next.is_some_and(|next| old(next.written));
        if superseded {
            continue;
        }
        keep.extend([head.path(), head.index(), head.hashes()].map(|name| dir.join(name)));
        keep.insert(dir.join(Head::latest(head.kind, &head.name)));
        match index(&shelf, head) {
            Ok(index) => keep.extend(index.packs.iter().map(|pack| dir.join(pack.path()))),
            // Nothing can be fetched of a version without an index.
            Err(error) if error.is::<Missing>() && !version.latest => {}
            Err(error) => {
                let what = format!("{} '{}', version {}", head.kind, head.name, head.version);
                return Err(
                    error.context(format!("{what}: nothing was removed, as it is not known what it needs"))
                );
            }
        }
    }
    let mut found = Vec::new();
    let mut heads = Vec::new();
    for dir in Kind::ALL.map(|kind| dir.join(kind.dir())) {
        heads.extend(names(&dir)?.into_iter().map(|name| dir.join(name)));
    }
    for place in
        heads.into_iter().chain([dir.join("indexes"), dir.join("packs")]).filter(|place| place.is_dir())
    {
        for name in names(&place)? {
            let path = place.join(&name);
            let ours = [".head", ".index", ".hashes", ".pack", PARTIAL].iter().any(|end| name.ends_with(end));
            let meta =
                fs::symlink_metadata(&path).with_context(|| format!("looking at '{}'", path.display()))?;
            let dead = Maker::of(&name).is_some_and(|(_, maker)| !maker.is_alive());
            if (ours || dead) && meta.is_file() && !keep.contains(&path) && old(meta.modified()?) {
                found.push((path, meta.len()));
            }
        }
    }
    // Heads first: a head that is there has all that it names.
    found.sort_by_key(|(path, _)| path.extension().is_none_or(|end| end != "head"));
    if !dry {
        for (path, _) in &found {
            fs::remove_file(path).with_context(|| format!("removing '{}'", path.display()))?;
        }
    }
    Ok(found)
}

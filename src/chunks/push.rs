//! `gridgate image push`: an image of this host becomes the newest version of its name in a store.
//!
//! What comes first is never looked at before what comes last: packs, hashes, index, head, and then `latest` by one rename. A
//! push that ends anywhere before leaves the old version, and files that the next one finds by their names, or `gc` removes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::blocks::{BLOCK, Hash, Scan, hex, of_block, places, read_to};
use super::head::{FORMAT_VERSION, Head, Kind, Signed};
use super::index::{Index, Pack};
use super::parts::{self, Parts};
use super::place::{Missing, Shelf};
use super::{LONGEST_HEAD, LONGEST_INDEX, pack};
use crate::host::Host;
use crate::host::temporary::Maker;
use crate::image::manifest::Part;
use crate::image::store;
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::{Progress, interrupted};
use crate::signature;

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The version that the store has now.
    pub version: String,
    /// Whether it is a new one.
    pub new: bool,
    /// Bytes that were written or sent.
    pub sent_bytes: u64,
    /// Bytes of the image that no version before had, before compression.
    pub new_bytes: u64,
}

/// Pushes an image. `key` signs the version; without one it can only be pulled by those who say that they take it unsigned.
pub fn push(
    host: &dyn Host,
    paths: &Paths,
    name: &ImageName,
    shelf: &dyn Shelf,
    key: Option<&Path>,
    progress: &Progress,
) -> Result<Pushed> {
    let work = || -> Result<Pushed> {
        let golden = store::verify(host, paths, name, progress)?;
        let files = parts::of_image(&paths.image(name), &golden)?;
        for path in host.abandoned(&paths.images())? {
            if path.to_string_lossy().contains(STAGE) {
                host.remove(&path)?;
            }
        }
        let stage = paths.images().join(Maker::this().name(&format!("{name}{STAGE}")));
        let built = golden.manifest.built_at_epoch_seconds;
        let what = What { kind: Kind::Image, name, built_at_epoch_seconds: built, files: &files };
        push_files(host, &what, &stage, shelf, key, progress)
    };
    work().with_context(|| format!("pushing image '{name}' to '{}'", shelf.shown()))
}

/// Files that become a version. In the store each has the last part of its path as its name.
#[derive(Debug)]
pub struct What<'a> {
    /// Of what.
    pub kind: Kind,
    /// Of which one.
    pub name: &'a ImageName,
    /// Seconds since 1970.
    pub built_at_epoch_seconds: u64,
    /// Each with its length.
    pub files: &'a [(PathBuf, u64)],
}

/// Makes files the newest version of their name. Packs are made in the directory `stage`, which is gone afterwards.
pub fn push_files(
    host: &dyn Host,
    what: &What<'_>,
    stage: &Path,
    shelf: &dyn Shelf,
    key: Option<&Path>,
    progress: &Progress,
) -> Result<Pushed> {
    host.remove(stage)?;
    host.make_dir(stage, 0o700)?;
    let push = Push { host, shelf, stage: stage.to_owned(), key, progress };
    let result = shelf.lock().and_then(|_lock| push.run(what));
    host.remove(stage)?;
    result
}

/// A small image's blocks are looked for in so many old packs at most.
const OLD_PACKS: usize = 32;

/// Part of the name of the directory in which packs are made.
const STAGE: &str = ".push";

struct Push<'a> {
    host: &'a dyn Host,
    shelf: &'a dyn Shelf,
    stage: PathBuf,
    key: Option<&'a Path>,
    progress: &'a Progress,
}

impl Push<'_> {
    fn run(&self, what: &What<'_>) -> Result<Pushed> {
        let What { kind, name, files, .. } = *what;
        let parts = self.parts(files)?;
        let base = latest(self.shelf, kind, name)?;
        let mut sent = 0;
        if let Some(base) = &base
            && base.head.parts == parts
        {
            let version = base.head.version.clone();
            if let Some(key) = self.key {
                let new = signature::sign(self.host, &base.payload, key, kind.purpose())?;
                // The same key signs the same way, but for keys that add randomness; those signatures pile up harmlessly.
                if !String::from_utf8_lossy(&base.signatures).contains(&new) {
                    let signatures = [&base.signatures[..], new.as_bytes()].concat();
                    sent = self.publish(&Signed { signatures, ..base.clone() })?;
                }
            }
            return Ok(Pushed { version, new: false, sent_bytes: sent, new_bytes: 0 });
        }
        let open = Parts::open(files)?;
        let scan = open.scan(self.progress)?;
        let known = match &base {
            Some(base) => known(self.shelf, &base.head, &scan)?,
            None => Known::default(),
        };
        let (index, made) = self.packs(&open, &scan, known)?;
        let printed = index.print()?;
        let index_blake3 = blake3::hash(&printed);
        let mut id = blake3::Hasher::new();
        id.update(index_blake3.as_bytes());
        id.update(&serde_json::to_vec(&parts)?);
        let mut version = Hash::default();
        version.copy_from_slice(&id.finalize().as_bytes()[..16]);
        let head = Head {
            format_version: FORMAT_VERSION,
            kind,
            name: name.clone(),
            version: hex(&version),
            sequence: base.as_ref().map_or(1, |base| base.head.sequence.saturating_add(1)),
            built_at_epoch_seconds: what.built_at_epoch_seconds,
            pushed_at_epoch_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            pushed_by: format!("gridgate {}", env!("CARGO_PKG_VERSION")),
            parts,
            index_size_bytes: printed.len() as u64,
            index_blake3: index_blake3.to_hex().to_string(),
        };
        let payload = head.print()?;
        let signatures = match self.key {
            // Before anything is sent: a passphrase may be asked for, or be wrong.
            Some(key) => signature::sign(self.host, &payload, key, kind.purpose())?.into_bytes(),
            None => Vec::new(),
        };
        let new_blocks: u64 = made.iter().map(|(pack, _)| pack.blocks).sum();
        let lengths = made.iter().map(|(_, file)| length(file)).collect::<Result<Vec<_>>>()?;
        let meter = self.progress.meter("sending", Some(lengths.iter().sum()));
        let mut begun = 0;
        for ((pack, file), len) in made.iter().zip(lengths) {
            sent += self.send(file, len, &pack.path(), &mut |done| meter.set(begun + done))?;
            begun += len;
        }
        sent += self.send_bytes(scan.blocks.as_flattened(), &head.hashes())?;
        sent += self.send_bytes(&printed, &head.index())?;
        let version = head.version.clone();
        sent += self.publish(&Signed { head, payload, signatures })?;
        Ok(Pushed { version, new: true, sent_bytes: sent, new_bytes: new_blocks * BLOCK as u64 })
    }

    fn parts(&self, files: &[(PathBuf, u64)]) -> Result<Vec<Part>> {
        let each = |(path, len): &(PathBuf, u64)| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Part { file, size_bytes: *len, blake3: store::blake3_of(path, self.progress)? })
        };
        files.iter().map(each).collect()
    }

    /// An index of what was scanned, and the packs of what is new, with the files that they were written to.
    fn packs(&self, parts: &Parts, scan: &Scan, known: Known) -> Result<(Index, Vec<(Pack, PathBuf)>)> {
        let Known { packs: mut all, mut slots } = known;
        let fresh = scan.blocks.iter().filter(|hash| !slots.contains_key(*hash)).count();
        let level = pack::level(fresh);
        let mut made = Vec::new();
        let mut writer: Option<(pack::Writer, PathBuf)> = None;
        let mut places_of = Vec::with_capacity(scan.blocks.len());
        let mut hashes = scan.blocks.iter();
        let meter = self.progress.meter("packing", Some((fresh * BLOCK) as u64));
        let mut in_pack = 0_u64;
        for group in &scan.groups {
            if interrupted() {
                bail!("interrupted");
            }
            let (file, at, len) = parts.at(group.number);
            for (n, hash) in places(group.mask).zip(hashes.by_ref()) {
                if let Some(slot) = slots.get(hash) {
                    places_of.push(*slot);
                    continue;
                }
                if in_pack == pack::IN_PACK
                    && let Some((full, path)) = writer.take()
                {
                    made.push((full.finish()?, path));
                    in_pack = 0;
                }
                let number = (all.len() + made.len()) as u32;
                let (open, _) = match &mut writer {
                    Some(open) => open,
                    None => {
                        let path = self.stage.join(format!("{}.pack", made.len()));
                        writer.insert((pack::Writer::create(&path, level)?, path))
                    }
                };
                let mut block = [0; BLOCK];
                let start = at + n * BLOCK as u64;
                let wanted = (BLOCK as u64).min(len - start) as usize;
                read_to(file, &mut block[..wanted], start)?;
                if of_block(&block) != *hash {
                    bail!("the image changed while it was read");
                }
                open.add(&block)?;
                slots.insert(*hash, (number, in_pack));
                places_of.push((number, in_pack));
                in_pack += 1;
                meter.add(BLOCK as u64);
            }
        }
        if let Some((last, path)) = writer {
            made.push((last.finish()?, path));
        }
        all.extend(made.iter().map(|(pack, _)| pack.clone()));
        let mut index = Index { groups: scan.groups.clone(), packs: all, runs: Vec::new() };
        index.set_slots(places_of);
        index.drop_unused();
        Ok((index, made))
    }

    fn send(&self, file: &Path, len: u64, name: &str, tick: &mut dyn FnMut(u64)) -> Result<u64> {
        // What is named by its content need not be sent twice.
        if self.shelf.length(name)? == Some(len) {
            return Ok(0);
        }
        self.shelf.put(file, name, tick)?;
        Ok(len)
    }

    fn send_bytes(&self, bytes: &[u8], name: &str) -> Result<u64> {
        let file = self.stage.join("file");
        self.host.write(&file, bytes, 0o600)?;
        self.shelf.put(&file, name, &mut |_| ())?;
        Ok(bytes.len() as u64)
    }

    fn publish(&self, signed: &Signed) -> Result<u64> {
        let bytes = signed.print();
        self.send_bytes(&bytes, &signed.head.path())?;
        Ok(2 * self.send_bytes(&bytes, &Head::latest(signed.head.kind, &signed.head.name))?)
    }
}

fn length(file: &Path) -> Result<u64> {
    Ok(file.metadata().with_context(|| format!("looking at '{}'", file.display()))?.len())
}

impl Index {
    /// Forgets packs that hold no block of it.
    fn drop_unused(&mut self) {
        let mut used = vec![false; self.packs.len()];
        for run in &self.runs {
            used[run.pack] = true;
        }
        let numbers: Vec<usize> = used
            .iter()
            .scan(0, |next, used| {
                let number = *next;
                *next += usize::from(*used);
                Some(number)
            })
            .collect();
        let mut used = used.into_iter();
        self.packs.retain(|_| used.next().unwrap_or(false));
        self.runs.iter_mut().for_each(|run| run.pack = numbers[run.pack]);
    }
}

/// Blocks that a store has, as far as one version of the name tells.
#[derive(Debug, Default)]
struct Known {
    packs: Vec<Pack>,
    slots: HashMap<Hash, (u32, u64)>,
}

/// The head of the newest version; `None` if there is no version.
pub fn latest(shelf: &dyn Shelf, kind: Kind, name: &ImageName) -> Result<Option<Signed>> {
    match shelf.get(&Head::latest(kind, name), LONGEST_HEAD) {
        Ok(bytes) => Signed::parse(&bytes).map(Some),
        Err(error) if error.is::<Missing>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads where a version's blocks lie. Packs that hold few blocks of what is to be pushed are left out once there are many: their
/// blocks are stored anew, which those who have the version before need not fetch.
fn known(shelf: &dyn Shelf, head: &Head, scan: &Scan) -> Result<Known> {
    let index = shelf.get(&head.index(), LONGEST_INDEX)?;
    if blake3::hash(&index).to_hex().as_str() != head.index_blake3 {
        bail!("'{}' is damaged; hint: gridgate image store verify says what else is", head.index());
    }
    let index = Index::parse(&index, head.groups())?;
    let hashes = shelf.get(&head.hashes(), LONGEST_INDEX)?;
    let (hashes, _) = hashes.as_chunks::<16>();
    if hashes.len() as u64 != index.count() {
        bail!("'{}' is damaged: it has {} hashes instead of {}", head.hashes(), hashes.len(), index.count());
    }
    super::keep::check_groups(&index, hashes).with_context(|| format!("'{}' is damaged", head.hashes()))?;
    let mut slots: HashMap<Hash, (u32, u64)> = hashes.iter().copied().zip(index.slots()).collect();
    let Index { packs, .. } = index;
    let most = OLD_PACKS + 2 * scan.blocks.len() / pack::IN_PACK as usize;
    if packs.len() > most {
        let mut used = vec![0_u64; packs.len()];
        for (pack, _) in scan.blocks.iter().filter_map(|hash| slots.get(hash)) {
            used[*pack as usize] += 1;
        }
        let mut order: Vec<usize> = (0..packs.len()).collect();
        order.sort_by_key(|n| std::cmp::Reverse(used[*n]));
        let kept: Vec<bool> = {
            let mut kept = vec![false; packs.len()];
            order.iter().take(most).for_each(|n| kept[*n] = true);
            kept
        };
        slots.retain(|_, (pack, _)| kept[*pack as usize]);
    }
    // A pack that is gone, whatever the reason, is not built upon.
    let mut there = Vec::new();
    for pack in &packs {
        there.push(shelf.length(&pack.path())? == Some(pack.len()));
    }
    slots.retain(|_, (pack, _)| there[*pack as usize]);
    Ok(Known { packs, slots })
}

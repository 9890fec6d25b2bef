//! Makes the files of a version out of what is here and what has to be fetched.
//!
//! Whatever is in the files already, from a try before, counts if it is right: that is found by reading it, so no journal of
//! what was done is needed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;

use crate::chunks::blocks::{self, BLOCK, Group, Hash, of_block, of_group, places};
use crate::chunks::head::Head;
use crate::chunks::index::Index;
use crate::chunks::mirrors::Mirrors;
use crate::chunks::pack::{self, IN_FRAME};
use crate::chunks::parts::Parts;
use crate::chunks::ranges::Pieces;
use crate::chunks::seed::Seeds;
use crate::image::manifest;
use crate::progress::{Progress, interrupted};

/// A block that has to be fetched: its place in the frame, its hash, and where it belongs (group, and place in that).
type Block = (u64, Hash, u64, u64);
/// Blocks by pack and frame.
type Wanted = BTreeMap<(u32, u64), Vec<Block>>;

/// A part of an answer of its own costs about so many bytes of headers.
const GAP_OF_HASHES: u64 = 160;
/// Asking for less than this is not worth the wait for another answer.
const GAP_OF_FRAMES: u64 = 4 << 10;
/// The file in which hashes of blocks are kept for another try.
const HASHES: &str = ".hashes";

/// Makes all files of the version in the directory.
pub fn assemble(
    mirrors: &Mirrors<'_>,
    head: &Head,
    index: &Index,
    seeds: &Seeds,
    dir: &Path,
    progress: &Progress,
) -> Result<()> {
    let target = Target::open(head, dir)?;
    let there = target.parts.scan(progress)?;
    let there_groups: HashMap<u64, &Group> = there.groups.iter().map(|group| (group.number, group)).collect();
    let there_blocks = blocks_by_place(&there);
    let firsts = index.firsts();

    let masks: HashMap<u64, u16> = index.groups.iter().map(|group| (group.number, group.mask)).collect();
    for group in &there.groups {
        // What is there from another version, and is nothing in this one.
        for n in places(group.mask & !masks.get(&group.number).copied().unwrap_or(0)) {
            target.clear(group.number, n)?;
        }
    }
    let mut torn = Vec::new();
    for (group, first) in index.groups.iter().zip(&firsts) {
        if there_groups.get(&group.number).is_some_and(|found| *found == group) {
            continue;
        }
        match seeds.group(&group.hash) {
            Some((seed, at)) => {
                for n in places(group.mask) {
                    target.copy(seed, at + n * BLOCK as u64, group.number, n)?;
                }
            }
            None => torn.push((*group, *first)),
        }
        if interrupted() {
            bail!("interrupted");
        }
    }

    let hashes = hashes(mirrors, head, &torn, dir)?;
    let slots = index.slots();
    let mut wanted = Wanted::new();
    for ((group, first), hashes) in torn.iter().zip(&hashes) {
        for ((n, hash), block) in places(group.mask).zip(hashes).zip(*first..) {
            if there_blocks.get(&(group.number, n)) == Some(&hash) {
                continue;
            }
            match seeds.block(hash) {
                Some((seed, at)) => target.copy(seed, at, group.number, n)?,
                None => {
                    let (pack, slot) = slots[block as usize];
                    let of_frame = wanted.entry((pack, slot / IN_FRAME as u64)).or_default();
                    of_frame.push((slot % IN_FRAME as u64, *hash, group.number, n));
                }
            }
        }
    }
    fetch(mirrors, index, wanted, &target, progress)?;
    // Not before all is there: until then it saves fetching them again.
    match std::fs::remove_file(dir.join(HASHES)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn blocks_by_place(scan: &blocks::Scan) -> HashMap<(u64, u64), &Hash> {
    let each = |group: &Group| {
        let number = group.number;
        places(group.mask).map(move |n| (number, n))
    };
    scan.groups.iter().flat_map(each).zip(&scan.blocks).collect()
}

/// Hashes of the blocks of those groups, each checked against its group's.
fn hashes(mirrors: &Mirrors<'_>, head: &Head, torn: &[(Group, u64)], dir: &Path) -> Result<Vec<Vec<Hash>>> {
    let mut options = OpenOptions::new();
    let path = dir.join(HASHES);
    let kept = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let kept = kept.with_context(|| format!("opening '{}'", path.display()))?;
    let mut found: Vec<Vec<Hash>> = vec![Vec::new(); torn.len()];
    let mut pieces = Vec::new();
    for (n, (group, first)) in torn.iter().enumerate() {
        let len = u64::from(group.mask.count_ones()) * 16;
        let mut bytes = vec![0; len as usize];
        blocks::read_to(&kept, &mut bytes, first * 16)?;
        match checked(group, &bytes) {
            Ok(hashes) => found[n] = hashes,
            Err(_) => pieces.push((first * 16..first * 16 + len, n)),
        }
    }
    let mut whole = |n: &mut usize, bytes: &[u8]| {
        let (group, first) = &torn[*n];
        found[*n] = checked(group, bytes)?;
        Ok(kept.write_all_at(bytes, first * 16)?)
    };
    mirrors.fetch(&head.hashes(), &mut Pieces::new(pieces, GAP_OF_HASHES), &mut whole)?;
    Ok(found)
}

fn checked(group: &Group, bytes: &[u8]) -> Result<Vec<Hash>> {
    let (hashes, _) = bytes.as_chunks::<16>();
    match of_group(group.mask, hashes) == group.hash {
        true => Ok(hashes.to_vec()),
        false => bail!("it gives wrong bytes"),
    }
}

fn fetch(
    mirrors: &Mirrors<'_>,
    index: &Index,
    wanted: Wanted,
    target: &Target,
    progress: &Progress,
) -> Result<()> {
    let mut by_pack: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for ((pack, frame), blocks) in wanted {
        by_pack.entry(pack).or_default().push((frame, blocks));
    }
    let mut packs = Vec::new();
    for (pack, frames) in by_pack {
        let pack = &index.packs[pack as usize];
        let ranges: Vec<_> = pack.ranges().collect();
        let frames =
            frames.into_iter().map(|(frame, blocks)| (ranges[frame as usize].clone(), (frame, blocks)));
        packs.push((pack, Pieces::new(frames, GAP_OF_FRAMES)));
    }
    let total: u64 = packs.iter().map(|(_, pieces)| pieces.missing()).sum();
    let meter = progress.meter("fetching", Some(total));
    for (pack, mut pieces) in packs {
        let mut whole = |(frame, blocks): &mut (u64, Vec<Block>), bytes: &[u8]| {
            let raw = pack::unpack(bytes, pack.in_frame(*frame))?;
            for (slot, hash, group, n) in blocks.iter() {
                let start = *slot as usize * BLOCK;
                let block = raw.get(start..start + BLOCK).context("a frame is too short")?;
                if of_block(block) != *hash {
                    bail!("it gives wrong bytes");
                }
                target.write(block, *group, *n)?;
            }
            meter.add(bytes.len() as u64);
            Ok(())
        };
        mirrors.fetch(&pack.path(), &mut pieces, &mut whole)?;
    }
    Ok(())
}

/// The files that are being made.
struct Target {
    parts: Parts,
}

impl Target {
    fn open(head: &Head, dir: &Path) -> Result<Self> {
        let open = |part: &manifest::Part| -> Result<(PathBuf, File, u64)> {
            let path = dir.join(&part.file);
            // A kernel is read by the user that a hypervisor runs as; disks hold what is nobody else's.
            let disk = ![manifest::FILE, manifest::KERNEL, manifest::INITRD].contains(&part.file.as_str());
            let mode = if disk { 0o600 } else { 0o644 };
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(mode).open(&path);
            let file = file.with_context(|| format!("opening '{}'", path.display()))?;
            file.set_len(part.size_bytes).with_context(|| format!("making '{}'", path.display()))?;
            Ok((path, file, part.size_bytes))
        };
        Ok(Self { parts: Parts::of(head.parts.iter().map(open).collect::<Result<_>>()?) })
    }

    fn write(&self, block: &[u8], group: u64, n: u64) -> Result<()> {
        let (file, at, len) = self.parts.at(group);
        let at = at + n * BLOCK as u64;
        // A block behind the file's end, which only a false index names, has no bytes in it.
        let wanted = len.saturating_sub(at).min(BLOCK as u64) as usize;
        file.write_all_at(&block[..wanted], at).context("writing the image")
    }

    /// Makes a hole of a block.
    fn clear(&self, group: u64, n: u64) -> Result<()> {
        let (file, at, _) = self.parts.at(group);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let cleared = rustix::fs::fallocate(file, flags, at + n * BLOCK as u64, BLOCK as u64);
        match cleared {
            Err(rustix::io::Errno::OPNOTSUPP) => self.write(&[0; BLOCK], group, n),
            cleared => cleared.context("clearing a block"),
        }
    }

    fn copy(&self, seed: &File, from: u64, group: u64, n: u64) -> Result<()> {
        let mut block = [0; BLOCK];
        blocks::read_to(seed, &mut block, from).context("reading a seed")?;
        self.write(&block, group, n)
    }
}

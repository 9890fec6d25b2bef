//! The index of a version: which groups hold data, their hashes, and in which packs their blocks lie.
//!
//! ```text
//!   "ggindex1"  length of the layout, compressed and not (u32, little-endian)  layout (zstd)  16 bytes a group
//!
//!   layout:  number of groups, then runs of (groups of zeros, groups with data) until all are told
//!            a mask (u16) a group
//!            number of packs; each: name (16 bytes), blocks, length of each frame
//!            number of runs; each: blocks, pack, where they begin, counted from behind the last block of that pack
//! ```
//!
//! Numbers of the layout are [`super::varint`]s. Hashes do not compress and stay outside of it.

use std::ops::Range;

use anyhow::{Context, Result, bail};

use super::blocks::{Group, Hash};
use super::varint::{put, put_signed, take, take_signed};
use super::{blocks, pack};

const MAGIC: &[u8; 8] = b"ggindex1";
/// A version refers to no more packs; an image of 1 TiB needs half of them.
pub const MOST_PACKS: usize = 2048;
/// An image of 1 TiB; more is refused.
pub const MOST_GROUPS: u64 = 1 << 24;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Groups that are not all zeros, ascending.
    pub groups: Vec<Group>,
    /// Packs that hold their blocks.
    pub packs: Vec<Pack>,
    /// Where all blocks lie, in order.
    pub runs: Vec<Run>,
}

/// A pack and its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The first half of the file's BLAKE3.
    pub name: Hash,
    /// Blocks in it.
    pub blocks: u64,
    /// Length of each frame.
    pub frames: Vec<u32>,
}

/// Blocks that lie one after the other in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub count: u64,
    /// Which of the packs.
    pub pack: usize,
    /// Where the first one lies: the pack's first block is 0.
    pub slot: u64,
}

impl Pack {
    /// Where it lies in a store.
    pub fn path(&self) -> String {
        format!("packs/{}.pack", blocks::hex(&self.name))
    }

    /// Where each frame lies in the file.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.frames.iter().scan(0, |at, len| {
            let start = *at;
            *at += u64::from(*len);
            Some(start..*at)
        })
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.frames.iter().map(|len| u64::from(*len)).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Blocks of a frame.
    pub fn in_frame(&self, frame: u64) -> usize {
        (self.blocks - frame * pack::IN_FRAME as u64).min(pack::IN_FRAME as u64) as usize
    }
}

impl Index {
    /// How many blocks it tells of.
    pub fn count(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.mask.count_ones())).sum()
    }

    /// For each group the number of its first block.
    pub fn firsts(&self) -> Vec<u64> {
        let mut next = 0;
        let first = |group: &Group| {
            let first = next;
            next += u64::from(group.mask.count_ones());
            first
        };
        self.groups.iter().map(first).collect()
    }

    /// For each block its pack and place there.
    pub fn slots(&self) -> Vec<(u32, u64)> {
        let each = |run: &Run| {
            let Run { count, pack, slot } = *run;
            (0..count).map(move |n| (pack as u32, slot + n))
        };
        self.runs.iter().flat_map(each).collect()
    }

    /// Runs of the places of all blocks, in order.
    pub fn set_slots(&mut self, slots: impl IntoIterator<Item = (u32, u64)>) {
        self.runs.clear();
        for (pack, slot) in slots {
            let pack = pack as usize;
            match self.runs.last_mut() {
                Some(run) if run.pack == pack && run.slot + run.count == slot => run.count += 1,
                _ => self.runs.push(Run { count: 1, pack, slot }),
            }
        }
    }

    /// The file's content.
    pub fn print(&self) -> Result<Vec<u8>> {
        let layout = self.layout();
        let packed = zstd::bulk::compress(&layout, 19).context("compressing an index")?;
        let mut out = MAGIC.to_vec();
        out.extend(u32::try_from(packed.len())?.to_le_bytes());
        out.extend(u32::try_from(layout.len())?.to_le_bytes());
        out.extend(packed);
        for group in &self.groups {
            out.extend(group.hash);
        }
        Ok(out)
    }

    fn layout(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.groups.len() as u64);
        let mut next = 0;
        let mut rest = &self.groups[..];
        while let Some(first) = rest.first() {
            let together =
                rest.iter().zip(first.number..).take_while(|(group, n)| group.number == *n).count();
            put(&mut out, first.number - next);
            put(&mut out, together as u64);
            next = first.number + together as u64;
            rest = &rest[together..];
        }
        for group in &self.groups {
            out.extend(group.mask.to_le_bytes());
        }
        put(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            out.extend(pack.name);
            put(&mut out, pack.blocks);
            for len in &pack.frames {
                put(&mut out, u64::from(*len));
            }
        }
        put(&mut out, self.runs.len() as u64);
        let mut behind = vec![0_u64; self.packs.len()];
        for run in &self.runs {
            put(&mut out, run.count);
            put(&mut out, run.pack as u64);
            put_signed(&mut out, run.slot as i64 - behind[run.pack] as i64);
            behind[run.pack] = run.slot + run.count;
        }
        out
    }

    /// Reads the index of a disk of so many groups. What it says is within bounds then: groups ascend and are on the disk,
    /// every block has a place that its pack has.
    pub fn parse(bytes: &[u8], disk_groups: u64) -> Result<Self> {
        Self::read(bytes, disk_groups).context("reading an index")
    }

    fn read(bytes: &[u8], disk_groups: u64) -> Result<Self> {
        if disk_groups > MOST_GROUPS {
            bail!("an image of more than 1 TiB");
        }
        let (head, rest) = bytes.split_at_checked(16).context("it ends too early")?;
        if head[..8] != *MAGIC {
            bail!("it is none, or one of another version of gridgate");
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (packed, hashes) = rest.split_at_checked(number(8)).context("it ends too early")?;
        let (hashes, odd) = hashes.as_chunks::<16>();
        // What a layout of these groups can say at most: runs of zeros, masks, packs with their frames, a run a block.
        let most = 64 * hashes.len() + 512 * hashes.len() + (MOST_PACKS << 14) + 64;
        if !odd.is_empty() || hashes.len() as u64 > disk_groups || number(12) > most {
            bail!("its lengths do not fit");
        }
        let layout = zstd::bulk::decompress(packed, number(12)).context("unpacking its layout")?;
        let mut input = &layout[..];
        let mut index = Self { groups: groups(&mut input, hashes, disk_groups)?, ..Self::default() };
        index.packs = packs(&mut input)?;
        index.runs = runs(&mut input, &index.packs, index.count())?;
        if !input.is_empty() {
            bail!("it goes on behind its end");
        }
        Ok(index)
    }
}

fn groups(input: &mut &[u8], hashes: &[Hash], disk_groups: u64) -> Result<Vec<Group>> {
    if take(input)? != hashes.len() as u64 {
        bail!("it does not have a hash for each group");
    }
    let mut groups = Vec::with_capacity(hashes.len());
    let mut next = 0_u64;
    while groups.len() < hashes.len() {
        let first = next.checked_add(take(input)?).context("a group is not on the disk")?;
        let together = take(input)?;
        let end = first.checked_add(together).filter(|end| *end <= disk_groups);
        let end = end.context("a group is not on the disk")?;
        if together == 0 || together > (hashes.len() - groups.len()) as u64 {
            bail!("its groups do not add up");
        }
        groups.extend((first..end).map(|number| Group { number, mask: 0, hash: Hash::default() }));
        next = end;
    }
    let (masks, rest) = input.split_at_checked(2 * groups.len()).context("it ends too early")?;
    *input = rest;
    for ((group, hash), mask) in groups.iter_mut().zip(hashes).zip(masks.as_chunks::<2>().0) {
        group.hash = *hash;
        group.mask = u16::from_le_bytes(*mask);
        if group.mask == 0 {
            bail!("a group of zeros is in it");
        }
    }
    Ok(groups)
}

fn packs(input: &mut &[u8]) -> Result<Vec<Pack>> {
    let count = take(input)?;
    if count > MOST_PACKS as u64 {
        bail!("it names {count} packs, more than {MOST_PACKS}");
    }
    let mut packs = Vec::new();
    for _ in 0..count {
        let (name, rest) = input.split_first_chunk::<16>().context("it ends too early")?;
        *input = rest;
        let blocks = take(input)?;
        if blocks == 0 || blocks > pack::IN_PACK {
            bail!("a pack of {blocks} blocks");
        }
        let frames = (0..blocks.div_ceil(pack::IN_FRAME as u64)).map(|_| match take(input)? {
            len if len == 0 || len > pack::LONGEST_FRAME => bail!("a frame of {len} bytes"),
            len => Ok(len as u32),
        });
        packs.push(Pack { name: *name, blocks, frames: frames.collect::<Result<_>>()? });
    }
    Ok(packs)
}

fn runs(input: &mut &[u8], packs: &[Pack], blocks: u64) -> Result<Vec<Run>> {
    let count = take(input)?;
    if count > blocks {
        bail!("it has more places than blocks");
    }
    let mut runs = Vec::new();
    let mut behind = vec![0_u64; packs.len()];
    let mut left = blocks;
    for _ in 0..count {
        let (count, pack, step) = (take(input)?, take(input)? as usize, take_signed(input)?);
        let of = packs.get(pack).context("a block lies in no pack")?;
        let slot = behind[pack].checked_add_signed(step).context("a block lies before its pack")?;
        let end = slot
            .checked_add(count)
            .filter(|end| *end <= of.blocks)
            .context("a block lies behind its pack")?;
        left = left.checked_sub(count).filter(|_| count > 0).context("its places do not add up")?;
        behind[pack] = end;
        runs.push(Run { count, pack, slot });
    }
    if left != 0 {
        bail!("its places do not add up");
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Groups 2, 3 and 9 of 16, in two packs.
    pub(crate) fn sample() -> Index {
        let group = |number, mask| Group { number, mask, hash: [number as u8; 16] };
        let mut index = Index {
            groups: vec![group(2, 0xffff), group(3, 1), group(9, 0x8001)],
            packs: vec![
                Pack { name: [1; 16], blocks: 70, frames: vec![300, 20] },
                Pack { name: [2; 16], blocks: 1, frames: vec![9] },
            ],
            runs: Vec::new(),
        };
        let slots = (40..57).map(|slot| (0, slot)).chain([(1, 0), (0, 3)]);
        index.set_slots(slots);
        index
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let index = sample();
        assert_eq!(index.runs.len(), 3);
        assert_eq!(Index::parse(&index.print().unwrap(), 16).unwrap(), index);
        assert_eq!(index.firsts(), [0, 16, 17]);
        assert_eq!(index.slots().len() as u64, index.count());
        let empty = Index::default();
        assert_eq!(Index::parse(&empty.print().unwrap(), 0).unwrap(), empty);
    }

    #[test]
    fn what_leads_out_of_the_disk_or_a_pack_is_refused() {
        let refused = |change: &dyn Fn(&mut Index)| {
            let mut index = sample();
            change(&mut index);
            format!("{:#}", Index::parse(&index.print().unwrap(), 16).unwrap_err())
        };
        assert_eq!(refused(&|i| i.groups[2].number = 16), "reading an index: a group is not on the disk");
        assert_eq!(refused(&|i| i.groups[1].mask = 0), "reading an index: a group of zeros is in it");
        assert_eq!(refused(&|i| i.runs[1].slot = 1), "reading an index: a block lies behind its pack");
        assert_eq!(refused(&|i| i.runs[1].count = 0), "reading an index: its places do not add up");
        assert_eq!(
            refused(&|i| i.packs[1].frames[0] = 1 << 30),
            "reading an index: a frame of 1073741824 bytes"
        );
        assert_eq!(
            refused(&|i| i.packs[1].blocks = 1 << 40),
            "reading an index: a pack of 1099511627776 blocks"
        );
    }

    #[test]
    fn a_layout_that_says_it_is_huge_is_not_unpacked() {
        let mut bytes = sample().print().unwrap();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = format!("{:#}", Index::parse(&bytes, 16).unwrap_err());
        assert_eq!(error, "reading an index: its lengths do not fit");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..100_usize, at in 0..100_usize, to in any::<u8>()
        ) {
            let _ = Index::parse(&bytes, 16);
            let mut good = sample().print().unwrap();
            let _ = Index::parse(&good[..cut.min(good.len())], 16);
            let at = at % good.len();
            good[at] = to;
            let _ = Index::parse(&good, 16);
            let layout = zstd::bulk::compress(&bytes, 1).unwrap();
            let mut made = MAGIC.to_vec();
            made.extend((layout.len() as u32).to_le_bytes());
            made.extend((bytes.len() as u32).to_le_bytes());
            made.extend(layout);
            made.extend([0; 48]);
            let _ = Index::parse(&made, 16);
        }
    }
}

//! A disk as blocks of 4 KiB in groups of 64 KiB, with a hash of each that is not all zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes of a block; the last one of a file is filled up with zeros.
pub const BLOCK: usize = 4096;
/// Blocks of a group.
pub const IN_GROUP: usize = 16;
/// Bytes of a group.
pub const GROUP: u64 = (BLOCK * IN_GROUP) as u64;

/// The first half of a BLAKE3 digest.
pub type Hash = [u8; 16];

/// A group that is not all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Its place: 0 is the first of the file.
    pub number: u64,
    /// Which of its blocks are not all zeros; the lowest bit is the first.
    pub mask: u16,
    /// [`of_group`].
    pub hash: Hash,
}

/// What is on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Groups that are not all zeros, ascending.
    pub groups: Vec<Group>,
    /// Hashes of their blocks that are not all zeros, in order.
    pub blocks: Vec<Hash>,
}

/// Hash of a block's bytes.
pub fn of_block(block: &[u8]) -> Hash {
    first_half(&blake3::hash(block))
}

/// Hash of a group: over the hashes of its blocks that are not all zeros, and which those are. Shorter than any block, so
/// that neither can be taken for the other.
pub fn of_group(mask: u16, blocks: &[Hash]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(blocks.as_flattened());
    hasher.update(&mask.to_le_bytes());
    first_half(&hasher.finalize())
}

fn first_half(digest: &blake3::Hash) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&digest.as_bytes()[..16]);
    hash
}

/// As file names have it.
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Groups that are read at once.
const AT_ONCE: u64 = 16;

/// Reads a file's first `size` bytes, holes left out; what lies beyond its end is zeros. `tick` is told of how many bytes of it
/// are done. A file that is being written to gives hashes of what was there at some time.
pub fn scan(file: &File, size: u64, tick: &mut dyn FnMut(u64)) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut buffer = vec![0; (AT_ONCE * GROUP) as usize];
    let mut at = 0;
    while at < size {
        if crate::progress::interrupted() {
            bail!("interrupted");
        }
        let (start, end) = match data_from(file, at)? {
            Some((start, end)) if start < size => (start / GROUP * GROUP, end.min(size)),
            _ => break,
        };
        at = at.max(start);
        while at < end {
            let wanted = (end.next_multiple_of(GROUP) - at).min(AT_ONCE * GROUP).min(size - at) as usize;
            let read = read_to(file, &mut buffer[..wanted], at)?;
            // Blocks are always whole, here and where they are made again.
            let padded = wanted.next_multiple_of(BLOCK);
            buffer[read..padded].fill(0);
            for (n, group) in buffer[..padded].chunks(GROUP as usize).enumerate() {
                scan.add(at / GROUP + n as u64, group);
            }
            at += wanted as u64;
            tick(at);
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
        }
    }
    tick(size);
    Ok(scan)
}

impl Scan {
    fn add(&mut self, number: u64, bytes: &[u8]) {
        let first = self.blocks.len();
        let mut mask = 0;
        for (n, block) in bytes.chunks_exact(BLOCK).enumerate() {
            if *block != ZEROS {
                mask |= 1 << n;
                self.blocks.push(of_block(block));
            }
        }
        if mask != 0 {
            self.groups.push(Group { number, mask, hash: of_group(mask, &self.blocks[first..]) });
        }
    }

    /// Appends another file's, whose first group has that number.
    pub fn append(&mut self, first: u64, other: Scan) {
        self.groups.extend(other.groups.into_iter().map(|g| Group { number: g.number + first, ..g }));
        self.blocks.extend(other.blocks);
    }
}

/// Reads until the buffer is full or the file ends.
pub fn read_to(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The next piece that is no hole (lseek(2)); all the rest where the filesystem does not know.
fn data_from(file: &File, at: u64) -> Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL) => Ok(Some((at, u64::MAX))),
        Err(e) => Err(e.into()),
    }
}

/// Blocks of a mask, as their place in the group.
pub fn places(mask: u16) -> impl Iterator<Item = u64> {
    (0..IN_GROUP as u64).filter(move |n| mask & (1 << n) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scanned(bytes: &[u8]) -> Scan {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(&file, bytes.len() as u64, &mut |_| ()).unwrap()
    }

    #[test]
    fn holes_and_written_zeros_are_the_same() {
        let mut bytes = vec![0; 5 << 20];
        bytes[GROUP as usize * 3 + BLOCK * 2 + 7] = 1;
        bytes[(4 << 20) + 9] = 2;
        let written = scanned(&bytes);
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&[1], GROUP * 3 + BLOCK as u64 * 2 + 7).unwrap();
        file.write_all_at(&[2], (4 << 20) + 9).unwrap();
        let sparse = scan(&file, bytes.len() as u64, &mut |_| ()).unwrap();
        assert_eq!(sparse, written);
        let found: Vec<_> = written.groups.iter().map(|g| (g.number, g.mask)).collect();
        assert_eq!(found, [(3, 4), (64, 1)]);
        assert_eq!(written.blocks.len(), 2);
    }

    #[test]
    fn an_end_within_a_block_is_filled_up_with_zeros() {
        let mut bytes = vec![7; BLOCK + 10];
        let short = scanned(&bytes);
        bytes.resize(2 * BLOCK, 0);
        assert_eq!(short, scanned(&bytes));
        assert_eq!(short.groups[0].mask, 3);
    }

    #[test]
    fn a_block_that_moved_within_its_group_changes_the_group() {
        let mut bytes = vec![0; GROUP as usize];
        bytes[0] = 1;
        let one = scanned(&bytes);
        bytes.rotate_right(BLOCK);
        let two = scanned(&bytes);
        assert_eq!(one.blocks, two.blocks);
        assert_ne!(one.groups[0].hash, two.groups[0].hash);
    }
}

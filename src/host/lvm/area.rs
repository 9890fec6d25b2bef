//! Where LVM keeps what it knows on a physical volume: the label, which has the volume's own id, and areas with the group's text.
//!
//! Offsets and sizes as in LVM2's `lib/format_text/layout.h` and `lib/label/label.h`; numbers have their least byte first.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use super::id::LvmId;
use crate::host::volume::Volume;

const SECTOR: usize = 512;
/// A label is in one of the first four sectors.
const LABEL_SECTORS: usize = 4;
/// `FMTT_MAGIC`.
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// `RAW_LOCN_IGNORED`: LVM does not read such an area.
const IGNORED: u32 = 1;
/// LVM's usual areas have 1 MiB.
const LARGEST_TEXT: u64 = 4 << 20;

/// Read at once where old texts are looked for.
const PIECE: u64 = 1 << 20;

/// What is written to; so that every failure can be rehearsed.
pub(super) trait Sectors {
    /// Fills all of the bytes.
    fn read(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()>;
    /// Returns when it is on stable storage.
    fn write(&self, bytes: &[u8], at: u64) -> std::io::Result<()>;
}

impl Sectors for File {
    fn read(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, at)?;
        self.sync_data()
    }
}

/// A label.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) id: LvmId,
    at: u64,
    sector: [u8; SECTOR],
    id_at: usize,
    /// Where its metadata areas begin, and how long they are.
    areas: Vec<(u64, u64)>,
}

/// A metadata area, and the text that is valid in it.
#[derive(Debug, Clone)]
pub(super) struct Area {
    at: u64,
    size: u64,
    header: [u8; SECTOR],
    text_at: u64,
    pub(super) text: Vec<u8>,
}

/// LVM's checksum: CRC-32 with a beginning of its own, and not inverted at the end (`INITIAL_CRC`).
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).context("it ends too early")?;
    Ok(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).context("it ends too early")?;
    Ok(u64::from_le_bytes(*bytes))
}

/// Whether these first bytes of a volume have a label.
pub fn is_labelled(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR).take(LABEL_SECTORS).any(has_label)
}

fn has_label(sector: &[u8]) -> bool {
    sector.starts_with(b"LABELONE") && sector.get(24..32) == Some(b"LVM2 001")
}

impl Label {
    pub(super) fn read(file: &File, volume: &Volume) -> Result<Self> {
        let mut bytes = [0; LABEL_SECTORS * SECTOR];
        file.read_exact_at(&mut bytes, volume.offset)?;
        let (sectors, _) = bytes.as_chunks::<SECTOR>();
        let found = sectors.iter().enumerate().find(|(_, sector)| has_label(*sector));
        let (number, sector) = found.context("it has no label")?;
        ensure!(u32_at(sector, 16)? == checksum(&sector[20..]), "its label has a wrong checksum");
        ensure!(u64_at(sector, 8)? == number as u64, "its label is that of another sector");
        let id_at = u32_at(sector, 20)? as usize;
        let id = sector.get(id_at..).and_then(<[u8]>::first_chunk).context("its label ends too early")?;
        // Behind id and size: data areas, then metadata areas, each list ended by zeros.
        let mut lists = [Vec::new(), Vec::new()];
        let mut at = id_at + 40;
        for list in &mut lists {
            loop {
                let (offset, size) = (u64_at(sector, at)?, u64_at(sector, at + 8)?);
                at += 16;
                if offset == 0 {
                    break;
                }
                list.push((offset, size));
            }
        }
        let [_, areas] = lists;
        let at = volume.offset + (number * SECTOR) as u64;
        Ok(Self { id: LvmId::new(*id)?, at, sector: *sector, id_at, areas })
    }

    /// One sector, which a disk has written whole or not at all.
    pub(super) fn write(&self, file: &dyn Sectors, id: LvmId) -> Result<()> {
        let mut sector = self.sector;
        sector[self.id_at..self.id_at + id.compact().len()].copy_from_slice(id.compact().as_bytes());
        let sum = checksum(&sector[20..]);
        sector[16..20].copy_from_slice(&sum.to_le_bytes());
        Ok(file.write(&sector, self.at)?)
    }

    /// The areas that LVM reads and that have a text.
    pub(super) fn areas(&self, file: &File, volume: &Volume) -> Result<Vec<Area>> {
        let areas = self.areas.iter().map(|(offset, size)| Area::read(file, volume, *offset, *size));
        areas.filter_map(Result::transpose).collect()
    }
}

impl Area {
    fn read(file: &File, volume: &Volume, offset: u64, size: u64) -> Result<Option<Self>> {
        let end = offset.checked_add(size).context("a metadata area is beyond all disks")?;
        ensure!(volume.len.is_none_or(|len| end <= len), "a metadata area is behind its end");
        let at = volume.offset + offset;
        let mut header = [0; SECTOR];
        file.read_exact_at(&mut header, at)?;
        ensure!(u32_at(&header, 0)? == checksum(&header[4..]), "a metadata area has a wrong checksum");
        ensure!(&header[4..20] == MAGIC && u32_at(&header, 20)? == 1, "a metadata area has an unknown form");
        ensure!(u64_at(&header, 24)? == offset, "a metadata area is somewhere else");
        let (text_at, len, sum) = (u64_at(&header, 40)?, u64_at(&header, 48)?, u32_at(&header, 56)?);
        if text_at == 0 || u32_at(&header, 60)? & IGNORED != 0 {
            return Ok(None);
        }
        let ring = size.checked_sub(SECTOR as u64).context("a metadata area has no room")?;
        let is_inside = (SECTOR as u64..size).contains(&text_at) && len <= ring.min(LARGEST_TEXT) && len > 0;
        ensure!(is_inside, "a text is outside of its metadata area");
        let mut text = vec![0; len as usize];
        // It goes on at the beginning where it meets the end.
        let (first, second) = text.split_at_mut(len.min(size - text_at) as usize);
        file.read_exact_at(first, at + text_at)?;
        file.read_exact_at(second, at + SECTOR as u64)?;
        ensure!(checksum(&text) == sum, "a text has a wrong checksum");
        Ok(Some(Self { at, size, header, text_at, text }))
    }

    /// Puts another text beside the one that is valid, and then makes it the valid one by its header, which is one sector: before
    /// and after a power cut the area has the one or the other.
    pub(super) fn write(&mut self, file: &dyn Sectors, text: &[u8]) -> Result<()> {
        let text_at = self.room(text.len() as u64)?;
        file.write(text, self.at + text_at)?;
        let mut header = self.header;
        header[40..48].copy_from_slice(&text_at.to_le_bytes());
        header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
        header[56..60].copy_from_slice(&checksum(text).to_le_bytes());
        // What was announced and never made valid.
        header[64..88].fill(0);
        let sum = checksum(&header[4..]);
        header[..4].copy_from_slice(&sum.to_le_bytes());
        file.write(&header, self.at)?;
        (self.header, self.text_at, self.text) = (header, text_at, text.to_vec());
        Ok(())
    }

    /// Zeros over what the valid text does not use: texts from before are there, with old ids and the names of old hosts.
    pub(super) fn forget_others(&self, disk: &dyn Sectors) -> Result<()> {
        let end = self.text_at + self.text.len() as u64;
        let from = SECTOR as u64 + end.saturating_sub(self.size);
        for mut part in [from..self.text_at, end.min(self.size)..self.size] {
            while !part.is_empty() {
                let mut bytes = vec![0; PIECE.min(part.end - part.start) as usize];
                disk.read(&mut bytes, self.at + part.start)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    bytes.fill(0);
                    disk.write(&bytes, self.at + part.start)?;
                }
                part.start += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Where it is on the disk.
    pub(super) fn place(&self) -> Range<u64> {
        self.at..self.at.saturating_add(self.size)
    }

    /// A place of that length that the valid text does not use, from a sector on as LVM itself has it.
    fn room(&self, len: u64) -> Result<u64> {
        let sector = SECTOR as u64;
        let old = (self.text_at, self.text_at + self.text.len() as u64);
        let wrapped = old.1.saturating_sub(self.size);
        let behind = old.1.next_multiple_of(sector);
        let from_start = sector + wrapped.next_multiple_of(sector);
        let fits_behind = wrapped == 0 && behind + len <= self.size;
        match (fits_behind, from_start + len <= old.0) {
            (true, _) => Ok(behind),
            (false, true) => Ok(from_start),
            (false, false) => bail!("a metadata area has no room for another text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(size: u64, text_at: u64, len: usize) -> Area {
        Area { at: 0, size, header: [0; SECTOR], text_at, text: vec![0; len] }
    }

    #[test]
    fn a_new_text_never_lies_over_the_valid_one() {
        assert_eq!(area(8192, 512, 700).room(700).unwrap(), 1536);
        assert_eq!(area(8192, 7168, 700).room(700).unwrap(), 512);
        // The valid one goes on at the beginning.
        assert_eq!(area(8192, 7680, 700).room(700).unwrap(), 1024);
        assert!(area(2048, 1024, 700).room(700).is_err());
    }
}

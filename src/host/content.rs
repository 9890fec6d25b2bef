//! What a stretch of a disk holds, as far as that has ids of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

use super::lvm;
use super::superblock::{self, Superblock};
use super::volume::Volume;

/// What a partition or a logical volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A filesystem that can be mounted.
    Filesystem(Superblock),
    /// Space to swap to, with its UUID.
    Swap([u8; 16]),
    /// A FAT filesystem, with its volume id.
    Fat(FatId),
    /// A physical volume of LVM.
    Physical,
    /// Something with ids of its own that are kept in more places than one: its name.
    Member(&'static str),
    /// Nothing that is known to have an id.
    Other,
}

/// A FAT filesystem's volume id, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FatId {
    /// The id.
    pub id: u32,
    /// Where in its boot sector.
    at: u64,
    /// Where the copy of the boot sector is, if it has one.
    copy: Option<u64>,
}

/// Where the UUID of a swap area is, behind its first KiB (`union swap_header` of Linux's linux/swap.h).
const SWAP_UUID: u64 = 1024 + 12;
/// `MD_SB_MAGIC` of Linux's linux/raid/md_p.h, least byte first.
const RAID: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
/// Enough for every mark that is looked for.
const HEAD: u64 = 66 << 10;

/// Looks.
pub fn of(volume: &Volume) -> Result<Content> {
    if let Some(found) = superblock::probe(&volume.file, volume.offset)? {
        return Ok(Content::Filesystem(found));
    }
    let what = || format!("looking at what '{volume}' holds");
    let file = File::open(&volume.file).with_context(what)?;
    let mut bytes = vec![0; volume.len.unwrap_or(HEAD).min(HEAD) as usize];
    let there = file.read_at(&mut bytes, volume.offset).with_context(what)?;
    bytes.truncate(there);
    let has = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    // The magic ends the first page, and pages differ from one kind of machine to the next.
    let pages = [4 << 10, 8 << 10, 16 << 10, 64 << 10];
    if pages.iter().any(|page| has(page - 10, b"SWAPSPACE2")) {
        let uuid = bytes[SWAP_UUID as usize..].first_chunk().context("its header is cut short");
        return Ok(Content::Swap(*uuid.with_context(what)?));
    }
    if pages.iter().any(|page| has(page - 10, b"S1SUSPEND") || has(page - 10, b"ULSUSPEND")) {
        return Ok(Content::Member("a machine that sleeps (hibernated)"));
    }
    if lvm::is_labelled(&bytes) {
        return Ok(Content::Physical);
    }
    if has(0, b"LUKS\xba\xbe") {
        return Ok(Content::Member("an encrypted volume (LUKS)"));
    }
    // At its beginning, or 4 KiB into it; older ones are at its end (md(4)).
    let old = volume.len.and_then(|len| len.checked_sub(64 << 10));
    let old = old.map(|room| volume.offset + room / (64 << 10) * (64 << 10));
    let mut end = [0; 4];
    let is_old = old.is_some_and(|at| file.read_exact_at(&mut end, at).is_ok());
    if [0, 4096].iter().any(|at| has(*at, &RAID)) || is_old && end == RAID {
        return Ok(Content::Member("a member of a RAID"));
    }
    Ok(fat(&bytes).map_or(Content::Other, Content::Fat))
}

/// Places as in Microsoft's specification of FAT: extended boot signature 0x28 or 0x29 before the id, 55 AA at the end.
fn fat(sector: &[u8]) -> Option<FatId> {
    let name = |at: usize| sector.get(at..at + 3) == Some(b"FAT");
    let at = if name(82) { 67 } else { Some(39).filter(|_| name(54))? };
    let signed = sector.get(510..512)? == [0x55, 0xaa] && matches!(sector.get(at - 1)?, 0x28 | 0x29);
    let id = u32::from_le_bytes(*sector.get(at..)?.first_chunk()?);
    let number = |at: usize| sector.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
    let (len, copy) = (u64::from(number(11)?), number(50)?);
    let copy = (at == 67 && (1..32).contains(&copy)).then(|| u64::from(copy) * len);
    signed.then_some(FatId { id, at: at as u64, copy })
}

/// As fstab(5) and blkid(8) have it.
pub fn fat_text(id: u32) -> String {
    format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
}

/// Gives a swap area another UUID.
pub fn set_swap(volume: &Volume, uuid: &[u8; 16]) -> Result<()> {
    write(volume, &[(SWAP_UUID, uuid)])
}

/// Gives a FAT filesystem another volume id.
pub fn set_fat(volume: &Volume, now: FatId, id: u32) -> Result<()> {
    let id = id.to_le_bytes();
    let copy = now.copy.map(|copy| (copy + now.at, &id[..]));
    let places: Vec<(u64, &[u8])> = copy.into_iter().chain([(now.at, &id[..])]).collect();
    write(volume, &places)
}

fn write(volume: &Volume, places: &[(u64, &[u8])]) -> Result<()> {
    let what = || format!("writing the id of what '{volume}' holds");
    let file = OpenOptions::new().write(true).open(&volume.file).with_context(what)?;
    for (at, bytes) in places {
        if volume.len.is_some_and(|len| at + bytes.len() as u64 > len) {
            bail!("{}: it would be behind its end", what());
        }
        file.write_all_at(bytes, volume.offset + at).with_context(what)?;
    }
    file.sync_all().with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::filesystem::uuid_text;
    use crate::host::programs::{Program, Programs};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ids_of_swap_and_fat_are_read_and_replaced_as_other_programs_see_them() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let file = File::create(&disk).unwrap();
        file.set_len(128 * MIB).unwrap();
        let part = |offset| Volume { file: disk.clone(), offset, len: Some(40 * MIB) };
        let (first, second) = (part(MIB), part(41 * MIB));
        let blkid = |part: &Volume| {
            let probe = Program::new("blkid").args(["-p", "-o", "value", "-s", "UUID", "-O"]);
            Live.run(&probe.arg(part.offset.to_string()).arg(&disk)).unwrap().text()
        };
        let swap = tempfile::NamedTempFile::new().unwrap();
        swap.as_file().set_len(4 * MIB).unwrap();
        Live.run(&Program::new("mkswap").arg("-q").arg(swap.path())).unwrap();
        file.write_all_at(&std::fs::read(swap.path()).unwrap(), first.offset).unwrap();
        assert!(matches!(of(&first).unwrap(), Content::Swap(_)));
        set_swap(&first, &[7; 16]).unwrap();
        assert_eq!(blkid(&first), uuid_text(&[7; 16]));
        if Live.find_program("mkfs.fat").is_none() {
            eprintln!("skipped: no mkfs.fat here");
            return;
        }
        for kind in ["16", "32"] {
            let mkfs = Program::new("mkfs.fat").args(["-F", kind, "--offset"]);
            Live.run(&mkfs.arg((second.offset / 512).to_string()).arg(&disk).arg("40960")).unwrap();
            let Content::Fat(now) = of(&second).unwrap() else { panic!("no FAT {kind}") };
            assert_eq!(blkid(&second), fat_text(now.id));
            set_fat(&second, now, 0x1234_abcd).unwrap();
            assert_eq!(blkid(&second), "1234-ABCD");
        }
    }

    proptest! {
        #[test]
        fn any_volume_holds_something_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600), signed in any::<bool>()) {
            let mut bytes = bytes;
            if signed && bytes.len() >= 512 {
                bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
                bytes[82..85].copy_from_slice(b"FAT");
                bytes[66] = 0x29;
            }
            let disk = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(disk.path(), &bytes).unwrap();
            of(&Volume { len: Some(bytes.len() as u64), ..Volume::whole(disk.path()) }).unwrap();
        }
    }
}

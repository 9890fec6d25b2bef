//! Partition tables of a machine's disk: read with sfdisk(8), made with it, and written so that a disk is either what it was,
//! nothing, or all of a machine.

use anyhow::{Context, Result, bail};

use super::boot::CODE;
use super::layout::{Layout, Saved};
use crate::host::disk::{Disk, SECTOR};
use crate::host::nameless::Nameless;
use crate::host::partitions::{self, Part, TableKind};
use crate::host::programs::{Program, Programs};

/// The table's first copy, with the header, and its second one at the end (UEFI specification, 5.3.1: header and 128 entries).
const FIRST: u64 = 34 * SECTOR;
const SECOND: u64 = 33 * SECTOR;
/// At both ends of a disk: every kind of table, filesystem and RAID that begins or ends a disk has its mark there.
const MARKS: u64 = 1 << 20;

/// The partition of that number or name, as the disk's table has it now.
pub fn find(host: &dyn Programs, disk: &std::path::Path, wanted: &str) -> Result<Saved> {
    let what = || format!("looking for partition '{wanted}' on '{}'", disk.display());
    let found = match partitions::read(host, disk)? {
        Some(table) if table.kind == TableKind::Gpt => table.parts.into_iter().map(saved).collect::<Vec<_>>(),
        Some(_) => bail!("{}: its table is a master boot record; partitions are kept of a GPT alone", what()),
        None => bail!("{}: there is no partition table", what()),
    };
    let number = wanted.parse::<u32>().ok();
    let is_wanted = |saved: &&Saved| Some(saved.number) == number || saved.name == wanted;
    let mut matching = found.iter().filter(is_wanted);
    match (matching.next(), matching.next()) {
        (Some(saved), None) => Ok(saved.clone()),
        (Some(_), Some(_)) => {
            bail!("'{}' has several partitions '{wanted}'; hint: give its number", disk.display())
        }
        (None, _) => {
            let names: Vec<String> =
                found.iter().map(|saved| format!("{} ({})", saved.number, saved.name)).collect();
            bail!("'{}' has no partition '{wanted}'; hint: it has {}", disk.display(), names.join(", "))
        }
    }
}

fn saved(part: Part) -> Saved {
    let Part { number, offset, len, uuid, kind, name } = part;
    Saved { number, name, start: offset, len, uuid, kind }
}

/// Takes away all that the disk could be taken for. With something to keep, the disk has a table of that alone afterwards.
pub fn begin(host: &dyn Programs, disk: &Disk, layout: &Layout) -> Result<()> {
    let kept = layout.kept_only();
    if kept.partitions.is_empty() {
        // The end first: a table whose first copy is whole holds, and one that has only its second is mended by many.
        disk.clear(disk.len() - MARKS, MARKS)?;
        disk.clear(0, MARKS)?;
        return disk.sync();
    }
    write(host, disk, &kept, &[])
}

/// Makes the disk a machine. All else is on stable storage before; the first sector comes last, and alone: without it nothing
/// takes the disk for one with partitions, and a sector is written as a whole or not at all.
pub fn write(host: &dyn Programs, disk: &Disk, layout: &Layout, boot_code: &[u8]) -> Result<()> {
    let image = Nameless::of_length(disk.len())?;
    let sfdisk = Program::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel", "--lock=no"]);
    let sfdisk = sfdisk.arg(image.path()).input(layout.script());
    host.run(&sfdisk).context("making the partition table")?;
    let read = |at: u64, len: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        std::os::unix::fs::FileExt::read_exact_at(image.file(), &mut bytes, at)?;
        Ok(bytes)
    };
    let mut first = read(0, SECTOR)?;
    first[..boot_code.len().min(CODE)].copy_from_slice(&boot_code[..boot_code.len().min(CODE)]);
    disk.sync()?;
    // One of the two copies is whole at any time.
    disk.write(disk.len() - SECOND, &read(disk.len() - SECOND, SECOND)?)?;
    disk.sync()?;
    disk.write(SECTOR, &read(SECTOR, FIRST - SECTOR)?)?;
    disk.sync()?;
    disk.write(0, &first)?;
    disk.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::machine::layout::{self, Needs};

    #[test]
    fn a_table_is_there_only_with_its_first_sector_and_what_is_kept_is_found_in_it() {
        if Live.find_program("sfdisk").is_none() {
            eprintln!("skipped: no sfdisk here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let disk = Disk::create(&path, 1 << 30).unwrap();
        let needs = Needs { root: 200 << 20, data: 0, saved: None };
        let mut next = 0;
        let planned = layout::plan(disk.len(), &needs, &mut || {
            next += 1;
            Ok([next; 16])
        });
        let layout = planned.unwrap();
        write(&Live, &disk, &layout, &[0xeb; CODE]).unwrap();
        assert_eq!(disk.read(439, 2).unwrap(), [0xeb, 0]);
        let data = find(&Live, &path, layout::DATA_NAME).unwrap();
        assert_eq!((data.number, data.start), (4, layout.partitions[3].start_bytes));
        assert_eq!(find(&Live, &path, "4").unwrap(), data);
        let error = find(&Live, &path, "x").unwrap_err().to_string();
        assert!(error.contains("has no partition 'x'; hint: it has 1 (bios), 2 (esp)"), "{error}");

        let first = disk.read(0, 512).unwrap();
        disk.clear(0, 512).unwrap();
        assert!(find(&Live, &path, "4").is_err(), "a table without its first sector is none");
        disk.write(0, &first).unwrap();

        let mut kept = layout.clone();
        kept.partitions[3].kept = true;
        begin(&Live, &disk, &kept).unwrap();
        assert_eq!(find(&Live, &path, "4").unwrap(), data);
        assert!(find(&Live, &path, "3").is_err());
        begin(&Live, &disk, &layout).unwrap();
        assert!(find(&Live, &path, "4").is_err());
    }
}

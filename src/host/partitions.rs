//! A disk's partition table.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::bounds::Bounds;
use super::filesystem::uuid_text;
use super::newfs::end_of;
use super::programs::{Program, Programs};
use super::volume::Volume;

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its form.
    pub kind: TableKind,
    /// The disk's own id: a UUID in small letters, or eight digits.
    pub id: String,
    /// The partitions, in the table's order.
    pub parts: Vec<Part>,
}

/// The form of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// What finds it by the table alone (`PARTUUID=`), in small letters.
    pub uuid: String,
    /// Its type: a UUID as sfdisk(8) prints it, or a number in hexadecimal.
    pub kind: String,
    /// Its name in a GPT; empty if it has none.
    pub name: String,
}

/// What sfdisk(8) prints; numbers are in sectors.
#[derive(Deserialize)]
struct Printed {
    partitiontable: PrintedTable,
}

#[derive(Deserialize)]
struct PrintedTable {
    #[serde(default)]
    label: String,
    #[serde(default)]
    id: String,
    #[serde(default = "usual_sector")]
    sectorsize: u64,
    #[serde(default)]
    partitions: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    node: String,
    start: u64,
    size: u64,
    #[serde(default)]
    uuid: Option<String>,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
}

fn usual_sector() -> u64 {
    512
}

/// What sfdisk(8) may take to read a table, whatever it says.
const BOUNDS: Bounds = Bounds { memory_bytes: 512 << 20, cpu_seconds: 20 };

/// The table of a disk; `None` if it has none. A table is hostile: one with a partition that is not inside the disk is refused.
pub fn read(host: &dyn Programs, disk: &Path) -> Result<Option<Table>> {
    let what = || format!("looking at the partitions of '{}'", disk.display());
    let sfdisk = Program::new("sfdisk").arg("--json").arg(disk.as_os_str()).bounded(BOUNDS);
    let ran = host.run_any(&sfdisk).with_context(what)?;
    if ran.status != 0 {
        return Ok(None);
    }
    let table = parse(ran.text().as_bytes()).with_context(what)?;
    let end = end_of(&File::open(disk).with_context(what)?).with_context(what)?;
    let is_inside = |part: &Part| part.offset.checked_add(part.len).is_some_and(|last| last <= end);
    match table.parts.iter().find(|part| part.len == 0 || !is_inside(part)) {
        Some(part) => bail!("{}: partition {} is not inside the disk", what(), part.number),
        None => Ok(Some(table)),
    }
}

fn parse(json: &[u8]) -> Result<Table> {
    let printed: Printed = serde_json::from_slice(json).context("reading what sfdisk says")?;
    let table = printed.partitiontable;
    let kind = if table.label == "gpt" { TableKind::Gpt } else { TableKind::Mbr };
    let id = table.id.trim_start_matches("0x").to_ascii_lowercase();
    let read = |node: &Node| -> Result<Part> {
        let digits = node.node.len() - node.node.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number = node.node[node.node.len() - digits..].parse();
        let number: u32 =
            number.with_context(|| format!("reading the number of partition '{}'", node.node))?;
        let bytes =
            |sectors: u64| sectors.checked_mul(table.sectorsize).context("a partition beyond all disks");
        // As the kernel makes it of a master boot record (Linux's block/partitions/msdos.c).
        let uuid = node.uuid.clone().unwrap_or_else(|| format!("{id}-{number:02x}")).to_ascii_lowercase();
        let (kind, name) = (node.kind.clone(), node.name.clone());
        Ok(Part { number, offset: bytes(node.start)?, len: bytes(node.size)?, uuid, kind, name })
    };
    let parts = table.partitions.iter().map(read).collect::<Result<_>>()?;
    Ok(Table { kind, id, parts })
}

impl Part {
    /// The stretch of its disk that it is.
    pub fn volume(&self, disk: &Path) -> Volume {
        Volume { file: disk.to_owned(), offset: self.offset, len: Some(self.len) }
    }
}

/// Gives the disk another id; partitions of a master boot record get theirs by that.
pub fn set_table(host: &dyn Programs, disk: &Path, kind: TableKind, id: &str) -> Result<()> {
    let id = if kind == TableKind::Mbr { format!("0x{id}") } else { id.to_owned() };
    sfdisk(host, disk, &["--disk-id"], &[&id])
}

/// Gives a partition of a GUID partition table another id.
pub fn set_part(host: &dyn Programs, disk: &Path, number: u32, uuid: &[u8; 16]) -> Result<()> {
    sfdisk(host, disk, &["--part-uuid"], &[&number.to_string(), &uuid_text(uuid)])
}

fn sfdisk(host: &dyn Programs, disk: &Path, option: &[&str], values: &[&str]) -> Result<()> {
    // The kernel need not know: nobody uses the disk, and who does next looks at it anew.
    let sfdisk = Program::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]).args(option);
    host.run(&sfdisk.arg(disk.as_os_str()).args(values)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use proptest::prelude::*;

    fn disk(table: &str) -> Option<tempfile::NamedTempFile> {
        if Live.find_program("sfdisk").is_none() {
            eprintln!("skipped: no sfdisk here");
            return None;
        }
        let disk = tempfile::NamedTempFile::with_suffix("1").unwrap();
        disk.as_file().set_len(128 << 20).unwrap();
        Live.run(&Program::new("sfdisk").arg("-q").arg(disk.path()).input(table)).unwrap();
        Some(disk)
    }

    #[test]
    fn a_partition_beyond_the_end_of_its_disk_is_refused() {
        let table = "label: dos\nstart=2048, size=8192\nstart=10240, size=100000\n";
        let Some(disk) = disk(table) else { return };
        assert_eq!(read(&Live, disk.path()).unwrap().unwrap().parts.len(), 2);
        disk.as_file().set_len(8 << 20).unwrap();
        let error = read(&Live, disk.path()).unwrap_err().to_string();
        assert!(error.ends_with("partition 2 is not inside the disk"), "{error}");
    }

    #[test]
    fn ids_of_tables_are_read_and_replaced() {
        for (table, id, uuid) in [
            (
                "label: gpt\nstart=2048, size=8192\nstart=10240, size=8192\n",
                "11111111-2222-3333-4444-555555555555",
                "22222222-2222-2222-2222-222222222222",
            ),
            ("label: dos\nstart=2048, size=8192\nstart=10240, size=8192\n", "1234abcd", "1234abcd-02"),
        ] {
            let Some(disk) = disk(table) else { return };
            let before = read(&Live, disk.path()).unwrap().unwrap();
            assert_ne!(before.id, id);
            set_table(&Live, disk.path(), before.kind, id).unwrap();
            if before.kind == TableKind::Gpt {
                set_part(&Live, disk.path(), 2, &[0x22; 16]).unwrap();
            }
            let now = read(&Live, disk.path()).unwrap().unwrap();
            assert_eq!((now.id.as_str(), now.parts[1].uuid.as_str()), (id, uuid));
            assert_eq!((now.parts[1].offset, now.parts[1].len), (10240 * 512, 8192 * 512));
            if before.kind == TableKind::Gpt {
                assert_eq!(now.parts[0], before.parts[0]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused(node in "[a-z0-9]{0,8}", start in any::<u64>(), size in any::<u64>(), sector in any::<u64>()) {
            let text = format!(r#"{{"partitiontable":{{"sectorsize":{sector},"partitions":[{{"node":"{node}","start":{start},"size":{size}}}]}}}}"#);
            let _ = parse(text.as_bytes());
        }
    }
}

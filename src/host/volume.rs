//! Where a guest's root filesystem is: a whole disk image, or one partition of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::programs::{Program, Programs};
use super::superblock;
use crate::names::Bytes;

/// A part of a file or block device that holds a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The disk image, or a block device.
    pub file: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; `None`: to the end of the file.
    pub len: Option<u64>,
}

impl Volume {
    /// All of a file.
    pub fn whole(file: &Path) -> Self {
        Self { file: file.to_owned(), offset: 0, len: None }
    }

    /// The partition of that number, or the whole disk if no number is given. A disk with partitions needs one, since which of
    /// them is the root is not to be guessed; the error names them.
    pub fn find(host: &dyn Programs, file: &Path, partition: Option<u32>) -> Result<Self> {
        let what = || format!("looking at the partitions of '{}'", file.display());
        if partition.is_none() && superblock::probe(file, 0)?.is_some() {
            return Ok(Self::whole(file));
        }
        let sfdisk = Program::new("sfdisk").arg("--json").arg(file.as_os_str());
        let ran = host.run_any(&sfdisk).with_context(what)?;
        let table = match ran.status {
            0 => parse(ran.text().as_bytes()).with_context(what)?,
            _ if partition.is_none() => return Ok(Self::whole(file)),
            _ => bail!("there is no partition table in '{}'", file.display()),
        };
        let listed = || {
            let line = |part: &Partition| format!("{} ({})", part.number, Bytes(part.len));
            table.iter().map(line).collect::<Vec<_>>().join(", ")
        };
        let Some(number) = partition else {
            bail!("'{}' has partitions\nhint: --partition N, one of {}", file.display(), listed());
        };
        let found = table.iter().find(|part| part.number == number);
        let found = found.ok_or_else(|| {
            anyhow!("'{}' has no partition {number}\nhint: it has {}", file.display(), listed())
        })?;
        Ok(Self { file: file.to_owned(), offset: found.offset, len: Some(found.len) })
    }
}

/// As a message names it.
impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            0 => write!(f, "{}", self.file.display()),
            offset => write!(f, "{} at {offset}", self.file.display()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Partition {
    number: u32,
    offset: u64,
    len: u64,
}

/// What sfdisk(8) prints; numbers are in sectors.
#[derive(Deserialize)]
struct Printed {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
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
}

fn usual_sector() -> u64 {
    512
}

fn parse(json: &[u8]) -> Result<Vec<Partition>> {
    let printed: Printed = serde_json::from_slice(json).context("reading what sfdisk says")?;
    let table = printed.partitiontable;
    let read = |node: Node| -> Result<Partition> {
        let digits = node.node.len() - node.node.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let number = node.node[node.node.len() - digits..].parse();
        let number = number.with_context(|| format!("reading the number of partition '{}'", node.node))?;
        let bytes =
            |sectors: u64| sectors.checked_mul(table.sectorsize).context("a partition beyond all disks");
        Ok(Partition { number, offset: bytes(node.start)?, len: bytes(node.size)? })
    };
    table.partitions.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use proptest::prelude::*;

    #[test]
    fn a_partition_is_found_by_its_number_and_its_place_is_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk1");
        std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let table = "label: gpt\nstart=2048, size=8192\nstart=10240, size=20480\n";
        if Live.find_program("sfdisk").is_none() {
            eprintln!("skipped: no sfdisk here");
            return;
        }
        Live.run(&Program::new("sfdisk").arg("-q").arg(disk.as_os_str()).input(table)).unwrap();
        let second = Volume::find(&Live, &disk, Some(2)).unwrap();
        assert_eq!((second.offset, second.len), (10240 * 512, Some(20480 * 512)));
        let error = Volume::find(&Live, &disk, None).unwrap_err().to_string();
        assert!(error.ends_with("has partitions\nhint: --partition N, one of 1 (4M), 2 (10M)"), "{error}");
        let error = Volume::find(&Live, &disk, Some(3)).unwrap_err().to_string();
        assert!(error.contains("has no partition 3"), "{error}");
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused(node in "[a-z0-9]{0,8}", start in any::<u64>(), size in any::<u64>(), sector in any::<u64>()) {
            let text = format!(r#"{{"partitiontable":{{"sectorsize":{sector},"partitions":[{{"node":"{node}","start":{start},"size":{size}}}]}}}}"#);
            let _ = parse(text.as_bytes());
        }
    }
}

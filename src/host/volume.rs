//! Where a guest's root filesystem is: a whole disk image, one partition of it, or a logical volume.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::content::{self, Content};
use super::lvm::{self, Group, VolumeName};
use super::newfs::end_of;
use super::partitions::{self, Part};
use super::programs::Programs;
use super::refused::Refused;
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
        if partition.is_none() && superblock::probe(file, 0)?.is_some() {
            return Ok(Self::whole(file));
        }
        let volumes = || {
            let groups = physical(host, file).and_then(|physical| lvm::read(file, &physical));
            match in_reach(&groups.unwrap_or_default()) {
                names if names.is_empty() => String::new(),
                names => format!("; its logical volumes are {}", names.join(", ")),
            }
        };
        let table = match partitions::read(host, file)? {
            Some(table) => table.parts,
            None if partition.is_none() && content::of(&Self::whole(file))? == Content::Physical => {
                bail!("'{}' is no filesystem but a physical volume of LVM{}", file.display(), volumes())
            }
            None if partition.is_none() => return Ok(Self::whole(file)),
            None => bail!("there is no partition table in '{}'", file.display()),
        };
        let listed = || {
            let line = |part: &Part| format!("{} ({})", part.number, Bytes(part.len));
            table.iter().map(line).collect::<Vec<_>>().join(", ")
        };
        let Some(number) = partition else {
            bail!(
                "'{}' has partitions\nhint: --partition N, one of {}{}",
                file.display(),
                listed(),
                volumes()
            );
        };
        let found = table.iter().find(|part| part.number == number);
        let found = found.ok_or_else(|| {
            anyhow!("'{}' has no partition {number}\nhint: it has {}", file.display(), listed())
        })?;
        Ok(Self { file: file.to_owned(), offset: found.offset, len: Some(found.len) })
    }
}

/// The physical volumes of LVM that a disk has: partitions of it, or all of it.
pub fn physical(host: &dyn Programs, file: &Path) -> Result<Vec<Volume>> {
    let len = end_of(&File::open(file)?).with_context(|| format!("looking at '{}'", file.display()))?;
    let all = match partitions::read(host, file)? {
        Some(table) => table.parts.iter().map(|part| part.volume(file)).collect(),
        None => vec![Volume { len: Some(len), ..Volume::whole(file) }],
    };
    let mut found = Vec::new();
    for volume in all {
        if content::of(&volume)? == Content::Physical {
            found.push(volume);
        }
    }
    Ok(found)
}

/// The logical volume of that name, which has to be one stretch of the disk; the error names those that are.
pub fn logical(host: &dyn Programs, file: &Path, name: &VolumeName) -> Result<Volume> {
    let groups = lvm::read(file, &physical(host, file)?)?;
    let listed = || match in_reach(&groups) {
        names if names.is_empty() => String::new(),
        names => format!("\nhint: --volume takes one of {}", names.join(", ")),
    };
    let Some(volume) = lvm::find(&groups, name) else {
        bail!("'{}' has no logical volume '{name}'{}", file.display(), listed());
    };
    volume.place.clone().map_err(|why| {
        let hint = "hint: inside its machine, or where device mapper is, it is a disk of its own";
        anyhow::Error::new(Refused(format!(
            "volume '{name}' of '{}' {why}, and so not one stretch of it\n{hint}",
            file.display()
        )))
    })
}

fn in_reach(groups: &[Group]) -> Vec<String> {
    let names = |group: &Group| {
        let reached = group.volumes.iter().filter(|volume| volume.place.is_ok());
        reached.map(|volume| format!("{}/{}", group.name, volume.name)).collect::<Vec<_>>()
    };
    groups.iter().flat_map(names).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::Program;

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
}

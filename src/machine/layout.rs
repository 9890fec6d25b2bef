//! How a machine's disk is divided; pure.
//!
//! | number | what | size |
//! | --- | --- | --- |
//! | 1 | GRUB for BIOS | 1 MiB |
//! | 2 | EFI system partition | 126 MiB |
//! | 3 | root: the host's own system | a quarter of the disk, from what its image needs to 32 GiB |
//! | 4 | data: images and guests' disks, `/var/lib/gridgate` | what is left |
//!
//! Every partition begins at a whole MiB, as a disk with large blocks wants it. One that is kept stays where it is, with its
//! number; if it is a gateway's own data partition, it is the data partition again.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::host::disk::SECTOR;
use crate::host::filesystem::uuid_text;
use crate::names::Bytes;

const MIB: u64 = 1 << 20;
/// Where the first partition begins, and what is left free at the end for the table's second copy.
const EDGE: u64 = MIB;
const BIOS: u64 = MIB;
const ESP: u64 = 126 * MIB;
const ROOT_AT_MOST: u64 = 32 << 30;
/// mkfs.xfs(8) makes no smaller filesystem.
const DATA_AT_LEAST: u64 = 300 * MIB;
/// The name, in the partition table, of a gateway's data partition.
pub const DATA_NAME: &str = "gridgate-data";
/// Four by GUID Partition Tables' usual size of 128 entries (UEFI specification, 5.3).
const NUMBERS: u32 = 128;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// GRUB for BIOS.
    Bios,
    /// The EFI system partition.
    Esp,
    /// The host's own system.
    Root,
    /// `/var/lib/gridgate`.
    Data,
    /// Something else that is kept.
    Kept,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for.
    pub role: Role,
    /// Its name in the table.
    pub name: String,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// Whether its content stays.
    pub kept: bool,
    /// Its own id in the table.
    pub uuid: String,
    /// Its type in the table.
    #[serde(skip)]
    pub kind: String,
}

impl Partition {
    fn end(&self) -> u64 {
        self.start_bytes + self.size_bytes
    }
}

/// A partition that is on the disk now and is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its number.
    pub number: u32,
    /// Its name in the table.
    pub name: String,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is.
    pub len: u64,
    /// Its id.
    pub uuid: String,
    /// Its type.
    pub kind: String,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Its length.
    pub size_bytes: u64,
    /// The table's own id.
    pub uuid: String,
    /// In order of number.
    pub partitions: Vec<Partition>,
}

/// What the layout depends on besides the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The host's filesystem, as its image has it.
    pub root: u64,
    /// What is known to be written to the data partition.
    pub data: u64,
    /// What is kept.
    pub saved: Option<Saved>,
}

/// Divides a disk of that many bytes. `uuids` gives ids, one for the table and one for each partition.
pub fn plan(size: u64, needs: &Needs, uuids: &mut dyn FnMut() -> Result<[u8; 16]>) -> Result<Layout> {
    let end = (size / MIB * MIB).saturating_sub(EDGE);
    let least = EDGE + BIOS + ESP + needs.root + DATA_AT_LEAST.max(needs.data) + EDGE;
    let saved = needs.saved.as_ref();
    let keeps_data = saved.is_some_and(|saved| saved.name == DATA_NAME);
    if saved.is_none() && size < least {
        bail!(
            "a disk of {} is too small for this machine, which needs {}",
            Bytes(size),
            Bytes(least.next_multiple_of(MIB))
        );
    }
    let mut root = (size / 4 / MIB * MIB).clamp(needs.root, ROOT_AT_MOST.max(needs.root));
    if let Some(saved) = saved {
        // What is kept may be all of the disk behind the system that was there.
        let free = saved.start.saturating_sub(EDGE + BIOS + ESP);
        if free >= needs.root {
            root = root.min(free / MIB * MIB);
        }
    } else {
        root = root.min(end - (EDGE + BIOS + ESP) - DATA_AT_LEAST.max(needs.data)).max(needs.root);
    }
    let mut partitions: Vec<Partition> = Vec::new();
    let mut at = EDGE;
    for (number, role, name, len, kind) in [
        (1, Role::Bios, "bios", BIOS, "21686148-6449-6E6F-744E-656564454649"),
        (2, Role::Esp, "esp", ESP, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
        (3, Role::Root, "gridgate-root", root.next_multiple_of(MIB), "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    ] {
        let uuid = uuid_text(&uuids()?);
        let (name, kind) = (name.to_owned(), kind.to_owned());
        partitions.push(Partition {
            number,
            role,
            name,
            start_bytes: at,
            size_bytes: len,
            kept: false,
            uuid,
            kind,
        });
        at += len;
    }
    if let Some(saved) = saved {
        let kept = kept(saved, if keeps_data { Role::Data } else { Role::Kept });
        if let Some(other) = partitions.iter().find(|other| other.number == kept.number) {
            bail!(
                "partition {} cannot be kept: its number is that of the new partition '{}'",
                kept.number,
                other.name
            );
        }
        if let Some(other) = partitions.iter().find(|other| overlap(other, &kept)) {
            bail!(
                "partition {} ('{}', {} to {}) cannot be kept: the new partition '{}' needs {} to {}",
                kept.number,
                kept.name,
                Bytes(kept.start_bytes),
                Bytes(kept.end()),
                other.name,
                Bytes(other.start_bytes),
                Bytes(other.end())
            );
        }
        partitions.push(kept);
    }
    if !keeps_data {
        let (start, len) = match saved {
            None => (at, end.saturating_sub(at)),
            Some(saved) => {
                let behind = (saved.start + saved.len).next_multiple_of(MIB);
                let gaps = [(at, saved.start.saturating_sub(at)), (behind, end.saturating_sub(behind))];
                let largest = gaps.into_iter().max_by_key(|(_, len)| *len).unwrap_or_default();
                (largest.0, largest.1 / MIB * MIB)
            }
        };
        if len < DATA_AT_LEAST.max(needs.data) {
            bail!(
                "beside what is kept {} are left for the guests' data, which needs {}",
                Bytes(len),
                Bytes(DATA_AT_LEAST.max(needs.data))
            );
        }
        let taken = |number: &u32| partitions.iter().any(|other| other.number == *number);
        let number = (4..NUMBERS).find(|number| !taken(number)).unwrap_or(NUMBERS);
        let (uuid, kind) = (uuid_text(&uuids()?), "0FC63DAF-8483-4772-8E79-3D69D8477DE4".to_owned());
        let (role, name) = (Role::Data, DATA_NAME.to_owned());
        partitions.push(Partition {
            number,
            role,
            name,
            start_bytes: start,
            size_bytes: len,
            kept: false,
            uuid,
            kind,
        });
    }
    if let Some(over) = partitions.iter().find(|new| new.end() > if new.kept { size } else { end }) {
        bail!("partition '{}' would end beyond a disk of {}", over.name, Bytes(size));
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(Layout { size_bytes: size, uuid: uuid_text(&uuids()?), partitions })
}

fn kept(saved: &Saved, role: Role) -> Partition {
    Partition {
        number: saved.number,
        role,
        name: saved.name.clone(),
        start_bytes: saved.start,
        size_bytes: saved.len,
        kept: true,
        uuid: saved.uuid.clone(),
        kind: saved.kind.clone(),
    }
}

fn overlap(one: &Partition, other: &Partition) -> bool {
    one.start_bytes < other.end() && other.start_bytes < one.end()
}

impl Layout {
    /// The partition of that role; a layout has one of each but [`Role::Kept`].
    pub fn of(&self, role: Role) -> Result<&Partition> {
        match self.partitions.iter().find(|partition| partition.role == role) {
            Some(partition) => Ok(partition),
            None => bail!("the disk's layout has no partition for {role:?}"),
        }
    }

    /// The same with what is kept alone: what the disk has while all else is made.
    pub fn kept_only(&self) -> Self {
        let kept = self.partitions.iter().filter(|partition| partition.kept).cloned().collect();
        Self { partitions: kept, ..self.clone() }
    }

    /// As sfdisk(8) reads it.
    pub fn script(&self) -> String {
        let mut text = format!("label: gpt\nlabel-id: {}\nunit: sectors\n", self.uuid);
        for partition in &self.partitions {
            // Of the device's name sfdisk takes the number alone. In a name a quote would end it; GPT has no use for one.
            let name: String = partition.name.chars().filter(|c| *c != '"' && !c.is_control()).collect();
            text.push_str(&format!(
                "disk{} : start={}, size={}, type={}, uuid={}, name=\"{name}\"\n",
                partition.number,
                partition.start_bytes / SECTOR,
                partition.size_bytes / SECTOR,
                partition.kind,
                partition.uuid
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn planned(size: u64, saved: Option<Saved>) -> Result<Layout> {
        let needs = Needs { root: 2 * GIB, data: GIB, saved };
        let mut next = 0;
        plan(size, &needs, &mut || {
            next += 1;
            Ok([next; 16])
        })
    }

    fn saved(number: u32, name: &str, start: u64, len: u64) -> Option<Saved> {
        let (uuid, kind) = (uuid_text(&[9; 16]), uuid_text(&[8; 16]));
        Some(Saved { number, name: name.to_owned(), start, len, uuid, kind })
    }

    #[test]
    fn a_disk_of_6_gib_has_a_root_as_large_as_its_image_and_the_rest_for_guests() {
        let layout = planned(6 * GIB, None).unwrap();
        let sizes: Vec<u64> = layout.partitions.iter().map(|p| p.size_bytes / MIB).collect();
        assert_eq!(sizes, [1, 126, 2048, 6144 - 1 - 1 - 126 - 2048 - 1]);
        assert_eq!(planned(1 << 40, None).unwrap().of(Role::Root).unwrap().size_bytes, ROOT_AT_MOST);
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_what_it_needs() {
        let error = planned(3 * GIB, None).unwrap_err().to_string();
        assert_eq!(error, "a disk of 3.0G is too small for this machine, which needs 3.1G");
    }

    #[test]
    fn a_gateways_data_partition_is_its_data_partition_again() {
        let layout = planned(20 * GIB, saved(4, DATA_NAME, 4 * GIB, 10 * GIB)).unwrap();
        let data = layout.of(Role::Data).unwrap();
        assert_eq!((data.number, data.kept, data.start_bytes), (4, true, 4 * GIB));
        assert_eq!(layout.partitions.len(), 4);
        assert_eq!(layout.kept_only().partitions, std::slice::from_ref(data));
    }

    #[test]
    fn another_partition_that_is_kept_leaves_the_larger_gap_for_guests() {
        let layout = planned(20 * GIB, saved(7, "experiment", 4 * GIB, 2 * GIB)).unwrap();
        let data = layout.of(Role::Data).unwrap();
        assert_eq!((data.number, data.start_bytes), (4, 6 * GIB));
    }

    #[test]
    fn what_the_new_system_needs_is_not_kept() {
        let error = planned(20 * GIB, saved(4, "x", GIB, GIB)).unwrap_err().to_string();
        assert!(error.starts_with("partition 4 ('x', 1.0G to 2.0G) cannot be kept"), "{error}");
        let error = planned(20 * GIB, saved(3, "x", 8 * GIB, GIB)).unwrap_err().to_string();
        assert!(error.contains("its number is that of the new partition 'gridgate-root'"), "{error}");
    }

    proptest! {
        #[test]
        fn no_two_partitions_ever_overlap(
            size in 0u64..1 << 43, number in 1u32..130, start in 0u64..1 << 42, len in 0u64..1 << 42, data in any::<bool>(), none in any::<bool>(),
        ) {
            let name = if data { DATA_NAME } else { "other" };
            let kept = if none { None } else { saved(number, name, start / SECTOR * SECTOR, len / SECTOR * SECTOR) };
            if let Ok(layout) = planned(size, kept) {
                for (at, one) in layout.partitions.iter().enumerate() {
                    prop_assert!(one.kept || one.end() + EDGE <= size);
                    for other in &layout.partitions[..at] {
                        prop_assert!(!overlap(one, other) && one.number != other.number, "{layout:?}");
                    }
                }
            }
        }
    }
}

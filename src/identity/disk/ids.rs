//! Which ids a disk has, and which it is to have.

use std::path::Path;

use anyhow::Result;

use crate::host::Host;
use crate::host::content::{self, Content, FatId, fat_text};
use crate::host::filesystem::uuid_text;
use crate::host::lvm::{self, Group, LvmId, Wanted};
use crate::host::partitions::{self, Table, TableKind};
use crate::host::refused::Refused;
use crate::host::volume::{Volume, physical};
use crate::identity::ids::{as_version_4, derived, derived_long};

/// One id of the disk, as it is and as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Where it is: `disk:table`, `disk:2` for what is in partition 2, `disk:vg0/root` for what is in a logical volume.
    pub place: String,
    /// What it is, for people.
    pub what: &'static str,
    /// What it is now, as files name it.
    pub old: String,
    /// What it is to be.
    pub new: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Table(TableKind),
    Part(u32, [u8; 16]),
    Filesystem(Volume, [u8; 16]),
    Swap(Volume, [u8; 16]),
    Fat(Volume, FatId, u32),
    /// Of LVM; those of a group change together.
    Lvm(LvmId, LvmId),
}

/// A partition or logical volume.
#[derive(Debug)]
pub(super) struct Area {
    /// As in [`Id`].
    pub(super) place: String,
    called: String,
    pub(super) volume: Volume,
    pub(super) content: Content,
}

/// All that is known of a disk.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) table: Option<Table>,
    pub(super) areas: Vec<Area>,
    pub(super) groups: Vec<(Group, Wanted)>,
    pub(super) ids: Vec<Id>,
    /// Why some ids cannot be replaced.
    pub(super) closed: Option<String>,
}

impl All {
    /// Looks at the disk around the root filesystem.
    pub(super) fn look(host: &dyn Host, root: &Volume, machine_id: &str) -> Result<Self> {
        let disk = root.file.as_path();
        let mut all = Self { table: partitions::read(host, disk)?, ..Self::default() };
        all.look_into_partitions(disk)?;
        if let Err(error) = all.look_into_groups(host, disk, machine_id) {
            all.closed = Some(format!("{error:#}"));
        }
        all.areas.retain(|area| area.volume.offset != root.offset);
        for area in &all.areas {
            if let Content::Member(name) = area.content {
                let why = format!(
                    "{} of '{}' is {name}, whose ids cannot be replaced here",
                    area.called,
                    disk.display()
                );
                all.closed.get_or_insert(why);
            }
            all.ids.extend(area.id(machine_id));
        }
        all.ids.extend(all.groups.iter().flat_map(|(group, wanted)| of_group(group, wanted)));
        all.ids.extend(all.table.iter().flat_map(|table| of_table(table, machine_id)));
        all.ids.retain(|id| id.old != id.new);
        Ok(all)
    }

    /// Refuses a disk with ids that cannot be replaced.
    pub(super) fn expect_open(&self) -> Result<()> {
        let hint =
            "hint: --keep-disk-ids leaves those of the whole disk as they are; two machines then share them";
        match &self.closed {
            Some(why) => Err(anyhow::Error::new(Refused(format!("{why}\n{hint}")))),
            None => Ok(()),
        }
    }

    fn look_into_partitions(&mut self, disk: &Path) -> Result<()> {
        for part in self.table.iter().flat_map(|table| &table.parts) {
            let volume = part.volume(disk);
            let content = content::of(&volume)?;
            let (place, called) = (format!("disk:{}", part.number), format!("partition {}", part.number));
            self.areas.push(Area { place, called, volume, content });
        }
        Ok(())
    }

    fn look_into_groups(&mut self, host: &dyn Host, disk: &Path, machine_id: &str) -> Result<()> {
        let members = match &self.table {
            Some(_) => {
                let members = self.areas.iter().filter(|area| area.content == Content::Physical);
                members.map(|area| area.volume.clone()).collect()
            }
            None => physical(host, disk)?,
        };
        for group in lvm::read(disk, &members)? {
            for logical in &group.volumes {
                let name = format!("{}/{}", group.name, logical.name);
                let called = format!("volume '{name}'");
                match &logical.place {
                    Ok(volume) => {
                        let (volume, content) = (volume.clone(), content::of(volume)?);
                        self.areas.push(Area { place: format!("disk:{name}"), called, volume, content });
                    }
                    Err(why) => {
                        let why =
                            format!("{called} of '{}' {why}, and cannot be looked into here", disk.display());
                        self.closed.get_or_insert(why);
                    }
                }
            }
            let member = |at: usize| drawn(machine_id, &format!("physical volume {} {at}", group.name));
            let volume = |name: &str| drawn(machine_id, &format!("logical volume {}/{name}", group.name));
            let wanted = Wanted {
                group: drawn(machine_id, &format!("volume group {}", group.name)),
                members: (0..group.members.len()).map(member).collect(),
                volumes: group.volumes.iter().map(|one| volume(&one.name)).collect(),
            };
            self.groups.push((group, wanted));
        }
        Ok(())
    }
}

impl Area {
    fn id(&self, machine_id: &str) -> Option<Id> {
        // What a partition's id is made of must not change between versions: machines would get others.
        let uuid = as_version_4(derived(machine_id, &self.called));
        let volume = self.volume.clone();
        let (what, old, new, kind) = match self.content {
            Content::Filesystem(found) => {
                let kind = Kind::Filesystem(volume, uuid);
                ("filesystem UUID", uuid_text(&found.uuid), uuid_text(&uuid), kind)
            }
            Content::Swap(old) => {
                ("UUID of swap space", uuid_text(&old), uuid_text(&uuid), Kind::Swap(volume, uuid))
            }
            Content::Fat(now) => {
                let id = number(uuid);
                ("FAT volume id", fat_text(now.id), fat_text(id), Kind::Fat(volume, now, id))
            }
            Content::Physical | Content::Member(_) | Content::Other => return None,
        };
        Some(Id { place: self.place.clone(), what, old, new, kind })
    }
}

fn of_group(group: &Group, wanted: &Wanted) -> Vec<Id> {
    let id = |place: String, what, old: LvmId, new: LvmId| {
        let kind = Kind::Lvm(old, new);
        Id { place, what, old: old.to_string(), new: new.to_string(), kind }
    };
    let name = &group.name;
    let mut ids = vec![id(format!("disk:{name}"), "id of the volume group", group.id, wanted.group)];
    for (member, new) in group.members.iter().zip(&wanted.members) {
        let place = || format!("disk:{name}");
        // After a change that was cut short only one of the two is still to be replaced.
        let old = if member.own_id() == *new { member.id } else { member.own_id() };
        ids.push(id(place(), "id of a physical volume", old, *new));
    }
    for (volume, new) in group.volumes.iter().zip(&wanted.volumes) {
        ids.push(id(format!("disk:{name}/{}", volume.name), "id of the logical volume", volume.id, *new));
    }
    ids
}

fn of_table(table: &Table, machine_id: &str) -> Vec<Id> {
    let place = || "disk:table".to_owned();
    let uuid = as_version_4(derived(machine_id, "disk"));
    let (old, kind) = (table.id.clone(), Kind::Table(table.kind));
    if table.kind == TableKind::Mbr {
        let new = format!("{:08x}", number(uuid));
        return vec![Id { place: place(), what: "disk id", old, new, kind }];
    }
    let mut ids = Vec::new();
    for part in &table.parts {
        let uuid = as_version_4(derived(machine_id, &format!("entry {}", part.number)));
        let (old, new) = (part.uuid.clone(), uuid_text(&uuid));
        let kind = Kind::Part(part.number, uuid);
        ids.push(Id { place: place(), what: "partition's UUID", old, new, kind });
    }
    ids.push(Id { place: place(), what: "disk's UUID", old, new: uuid_text(&uuid), kind });
    ids
}

fn drawn(machine_id: &str, purpose: &str) -> LvmId {
    LvmId::drawn(derived_long(machine_id, purpose))
}

/// Never 0, which stands for none.
fn number(uuid: [u8; 16]) -> u32 {
    uuid.first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes)).max(1)
}

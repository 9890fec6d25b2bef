//! The disk around a root filesystem: ids of its partition table and of what its other partitions and logical volumes hold.
//!
//! ```text
//!   other partitions:  files that name an id -> the new one   (a separate /boot, the EFI partition)
//!   root filesystem:   its files, then its own UUID           (personalise)
//!   other partitions:  their ids, then those of LVM's groups, then the table's
//! ```
//!
//! In this order the next attempt finishes one that was cut short: an id is new only when all that names it says so.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::filesystem::{self, Where};
use super::initramfs::Closed;
use super::network::Note;
use crate::host::Host;
use crate::host::content::{self, Content};
use crate::host::filesystem::Shape;
use crate::host::lvm;
use crate::host::partitions::{self, TableKind};
use crate::host::refused::Refused;
use crate::host::root::Entry;
use crate::host::target::{self, Target};
use crate::host::volume::Volume;
use ids::{All, Kind};

mod fat;
mod ids;

pub use ids::Id;

/// See the module.
#[derive(Debug)]
pub struct Disk {
    root: Volume,
    all: All,
}

/// What was done before any id was replaced.
#[derive(Debug, Default)]
pub struct Before {
    /// Where something was changed.
    pub changed: Vec<PathBuf>,
    /// What whoever asked for it should know.
    pub notes: Vec<Note>,
}

/// Copies of GRUB's image for BIOS, in a root filesystem and in a `/boot` of its own, as Debian and Red Hat have it.
const LOADERS: [&str; 4] = [
    "/boot/grub/i386-pc/core.img",
    "/boot/grub2/i386-pc/core.img",
    "/grub/i386-pc/core.img",
    "/grub2/i386-pc/core.img",
];

impl Disk {
    /// Looks at the disk that the volume is a part of; `None` if it is all of it. What has ids that gridgate cannot replace is
    /// refused.
    pub fn look(host: &dyn Host, root: &Volume, machine_id: &str) -> Result<Option<Self>> {
        if root.offset == 0 {
            return Ok(None);
        }
        let all = All::look(host, root, machine_id)?;
        all.expect_open()?;
        Ok(Some(Self { root: root.clone(), all }))
    }

    /// All ids as they are now, as far as they can be seen.
    pub fn now(host: &dyn Host, root: &Volume) -> Result<Vec<Id>> {
        if root.offset == 0 {
            return Ok(Vec::new());
        }
        Ok(All::look(host, root, "")?.ids)
    }

    /// The ids that are to be others.
    pub fn ids(&self) -> &[Id] {
        &self.all.ids
    }

    /// Old and new ids as files name them.
    pub fn renamed(&self) -> Vec<(String, String)> {
        let mut renamed = Vec::new();
        for id in &self.all.ids {
            match (&id.kind, &self.all.table) {
                // Files name the partitions that are called after it.
                (Kind::Table(TableKind::Mbr), Some(table)) => renamed.extend(
                    table
                        .parts
                        .iter()
                        .map(|part| (part.uuid.clone(), part.uuid.replacen(&id.old, &id.new, 1))),
                ),
                (Kind::Lvm(old, new), _) => {
                    renamed.extend([(id.old.clone(), id.new.clone()), (old.compact(), new.compact())]);
                }
                _ => renamed.push((id.old.clone(), id.new.clone())),
            }
        }
        renamed
    }

    /// Refuses a boot loader that finds its files by ids of LVM which no text has: GRUB for BIOS keeps them packed in its own
    /// image, of which grub-install(8) leaves a copy where it is going to look.
    pub fn expect_free_loader(&self, host: &dyn Host) -> Result<()> {
        let in_groups = |volume: &Volume| {
            let logical = self.all.groups.iter().flat_map(|(group, _)| &group.volumes);
            logical.flat_map(|logical| &logical.place).any(|place| place == volume)
        };
        if !self.all.ids.iter().any(|id| matches!(id.kind, Kind::Lvm(..))) {
            return Ok(());
        }
        let others = self.all.areas.iter().filter(|area| matches!(area.content, Content::Filesystem(_)));
        for volume in [&self.root].into_iter().chain(others.map(|area| &area.volume)) {
            if !in_groups(volume) {
                continue;
            }
            let mut found = None;
            host.look_at_volume(volume, &mut |root, _| {
                let is_there =
                    |path: &&str| matches!(root.entry(Path::new(path)), Ok(Some(Entry::File { .. })));
                found = LOADERS.into_iter().find(is_there);
                Ok(())
            })?;
            if let Some(path) = found {
                return Err(anyhow::Error::new(Refused(format!(
                    "the boot loader of '{}' finds '{path}' by ids of LVM that it keeps packed\nhint: --keep-disk-ids leaves \
                     those of the whole disk as they are; two machines then share them",
                    volume.file.display()
                ))));
            }
        }
        Ok(())
    }

    /// Refuses a disk that something uses, or whose other partitions cannot be looked into here. Nothing is changed by it.
    pub fn check(&self, host: &dyn Host) -> Result<()> {
        let file = &self.root.file;
        match Target::at(file)? {
            Target::Device { .. } => drop(target::claim(file)?),
            _ => target::unused_file(file)?,
        }
        let mut contents = self.all.areas.iter().map(|area| area.content);
        if contents.any(|content| matches!(content, Content::Fat(_))) && host.find_program("mtype").is_none()
        {
            anyhow::bail!("looking into a FAT filesystem takes mtools\nhint: apt-get install mtools");
        }
        // Later than the look for others who use the disk: a loop device of one's own may go a moment after its last use.
        self.expect_free_loader(host)
    }

    /// Puts new ids into files of the other partitions and volumes. `renamed` is also what the root filesystem's UUID becomes.
    pub fn before(&self, host: &dyn Host, renamed: &[(String, String)]) -> Result<Before> {
        let mut before = Before::default();
        for area in &self.all.areas {
            let (paths, closed) = match area.content {
                Content::Filesystem(_) => rename_in_files(host, &area.volume, renamed)?,
                Content::Fat(_) => (fat::rename(host, &area.volume, renamed)?, Vec::new()),
                _ => continue,
            };
            let placed = |path: &Path| PathBuf::from(format!("{}{}", area.place, path.display()));
            before.changed.extend(paths.iter().map(|path| placed(path)));
            let closed = closed.into_iter().map(|one| Closed { path: placed(&one.path), ..one });
            before.notes.extend(closed.map(|closed| Note(closed.to_string())));
        }
        Ok(before)
    }

    /// Replaces the ids. Where something was changed.
    pub fn after(self, host: &dyn Host) -> Result<Vec<PathBuf>> {
        let file = &self.root.file;
        let is_table = |id: &&Id| matches!(id.kind, Kind::Table(_) | Kind::Part(..));
        let (of_table, others): (Vec<&Id>, Vec<&Id>) = self.all.ids.iter().partition(is_table);
        others.into_iter().try_for_each(|id| set(host, file, id))?;
        for (group, wanted) in self.all.groups {
            lvm::rename(file, group, &wanted)?;
        }
        of_table.into_iter().try_for_each(|id| set(host, file, id))?;
        Ok(self.all.ids.iter().map(|id| PathBuf::from(&id.place)).collect())
    }
}

/// Replaces one id that stands alone.
fn set(host: &dyn Host, file: &Path, id: &Id) -> Result<()> {
    let done = match &id.kind {
        Kind::Filesystem(volume, uuid) => {
            let shape = Shape { uuid: Some(*uuid), grow: false };
            host.edit_volume(volume, shape, &mut |_, _| Ok(()))
        }
        Kind::Swap(volume, uuid) => content::set_swap(volume, uuid),
        Kind::Fat(volume, now, id) => content::set_fat(volume, *now, *id),
        Kind::Part(number, uuid) => partitions::set_part(host, file, *number, uuid),
        Kind::Table(kind) => partitions::set_table(host, file, *kind, &id.new),
        // With their group.
        Kind::Lvm(..) => Ok(()),
    };
    done.with_context(|| format!("replacing the {} of '{}'", id.what, file.display()))
}

fn rename_in_files(
    host: &dyn Host,
    volume: &Volume,
    renamed: &[(String, String)],
) -> Result<(Vec<PathBuf>, Vec<Closed>)> {
    let (mut edits, mut closed) = (Vec::new(), Vec::new());
    host.look_at_volume(volume, &mut |root, _| {
        edits = filesystem::renames(root, renamed, Where::OfItsOwn)?;
        let packed = filesystem::packed_renames(root, renamed, Where::OfItsOwn)?;
        edits.extend(packed.edits);
        closed = packed.closed;
        Ok(())
    })?;
    if !edits.is_empty() {
        host.edit_volume(volume, Shape::default(), &mut |root, _| {
            edits.iter().try_for_each(|edit| edit.apply(root).map(drop))
        })?;
    }
    Ok((edits.iter().map(|edit| edit.path().to_owned()).collect(), closed))
}

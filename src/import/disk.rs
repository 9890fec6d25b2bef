//! Which part of a disk holds a system.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::make::Told;
use crate::host::Host;
use crate::host::content::{self, Content};
use crate::host::filesystem::Shape;
use crate::host::partitions;
use crate::host::refused::Refused;
use crate::host::root::{Entry, Root};
use crate::host::superblock::{self, FilesystemKind};
use crate::host::volume::Volume;
use crate::names::Bytes;

/// What to do with what is only in the journal of a filesystem that was not unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    /// The disk is not ours to change.
    Refuse,
    /// It is a copy.
    Replay,
}

/// The partition of that number; else the whole disk, if it is one filesystem; else the one partition that has a system on it.
/// Several are [`Refused`]: which of them is meant is not to be guessed.
pub(super) fn find_root(
    host: &dyn Host,
    disk: &Path,
    partition: Option<u32>,
) -> Result<(Volume, Option<u32>)> {
    if partition.is_some() {
        return Ok((Volume::find(host, disk, partition)?, partition));
    }
    if superblock::probe(disk, 0)?.is_some() {
        return Ok((Volume::whole(disk), None));
    }
    let Some(table) = partitions::read(host, disk)? else {
        bail!(
            "it holds neither a tar, nor a filesystem that can be read (ext2, ext3, ext4, XFS, Btrfs), nor partitions"
        );
    };
    let (mut systems, mut all) = (Vec::new(), Vec::new());
    for part in table.parts {
        let number = part.number;
        let volume = part.volume(disk);
        let (said, is_system) = match content::of(&volume)? {
            Content::Filesystem(found) => match system(host, &volume)? {
                Some(name) => (format!("{}, {name}", found.kind.name()), true),
                None => (format!("{}, no system", found.kind.name()), false),
            },
            Content::Swap(_) => ("swap space".to_owned(), false),
            Content::Fat(_) => ("FAT, no system".to_owned(), false),
            Content::Physical => {
                ("a physical volume of LVM, whose volumes can be imported as devices".to_owned(), false)
            }
            Content::Member(what) => (format!("{what}, whose volumes can be imported as devices"), false),
            Content::Other => ("nothing that can be read".to_owned(), false),
        };
        all.push(format!("\n  {number}: {}, {said}", Bytes(part.len)));
        if is_system {
            systems.push((volume, Some(number)));
        }
    }
    let all = all.concat();
    match (systems.pop(), systems.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            let why = format!("there are several systems on it:{all}\nhint: --partition N takes one of them");
            Err(anyhow::Error::new(Refused(why)))
        }
        (None, _) => bail!("no partition of it holds a system:{all}\nhint: --partition N takes any"),
    }
}

/// What the system on it calls itself (os-release(5)); `None` if there is none.
fn system(host: &dyn Host, volume: &Volume) -> Result<Option<String>> {
    let mut name = None;
    let looked = host.look_at_volume(volume, &mut |root, _| {
        if is_system(root)? {
            let release = root.read(Path::new("/etc/os-release")).ok().flatten();
            name = Some(pretty_name(&release.unwrap_or_default()));
        }
        Ok(())
    });
    // One that cannot even be opened is listed as no system: another may be meant.
    Ok(if looked.is_ok() { name } else { None })
}

/// Whether it has what every system's root has.
fn is_system(root: &Root) -> Result<bool> {
    let usr = root.entry(Path::new("/usr"))?;
    let accounts = root.entry(Path::new("/etc/passwd"))?;
    Ok(usr == Some(Entry::Dir) && matches!(accounts, Some(Entry::File { .. } | Entry::Link(_))))
}

fn pretty_name(release: &[u8]) -> String {
    let text = String::from_utf8_lossy(release);
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name: String = value.unwrap_or("an unknown system").chars().filter(|c| !c.is_control()).collect();
    name.trim_matches(['"', '\'']).chars().take(80).collect()
}

/// Everything on the volume can be read now; what the new filesystem takes over from it.
pub(super) fn ready(host: &dyn Host, volume: &Volume, journal: Journal, named: &str) -> Result<Told> {
    let found = match journal {
        Journal::Refuse => superblock::expect_clean(&volume.file, volume.offset)?,
        // The kernel writes it out when it is opened for changes.
        Journal::Replay => {
            host.edit_volume(volume, Shape::default(), &mut |_, _| Ok(()))
                .with_context(|| format!("writing out the journal of the copy of '{named}'"))?;
            superblock::expect(&volume.file, volume.offset)?
        }
    };
    let label = superblock::label(&volume.file, volume.offset, found.kind)?;
    // Other kinds have room for longer ones.
    let fits = found.kind == FilesystemKind::Ext4 || label.len() <= 16;
    let label = String::from_utf8(label).ok().filter(|_| fits).unwrap_or_default();
    Ok(Told { uuid: Some(found.uuid), label, is_part: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_system_is_called_what_its_release_file_says() {
        assert_eq!(pretty_name(b"ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(pretty_name(b""), "an unknown system");
    }

    proptest! {
        #[test]
        fn any_release_file_gives_a_name_in_one_line(text: Vec<u8>) {
            let name = pretty_name(&[b"PRETTY_NAME=", &text[..]].concat());
            prop_assert!(!name.contains('\n') && name.chars().count() <= 80);
        }
    }
}

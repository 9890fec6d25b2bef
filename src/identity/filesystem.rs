//! Ids of filesystems, swap space and partitions, and every file of the guest that finds one by its id.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::filesystem::uuid_text;
use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::found::text;
use crate::identity::initramfs;
use crate::identity::words;

/// Files that are known to name filesystems by UUID.
const FILES: [&str; 16] = [
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/etc/initramfs-tools/conf.d/resume",
    "/etc/initramfs-tools/initramfs.conf",
    "/etc/lilo.conf",
    "/etc/sysconfig/grub",
    "/boot/grub/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/boot/grub2/grub.cfg",
    "/boot/grub2/grubenv",
    "/boot/grub/grubenv",
    "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
];

/// Directories whose files do: Boot Loader Specification entries, dracut's settings, GRUB's on an EFI partition.
const DIRS: [(&str, &str); 9] = [
    ("/boot/loader/entries", "conf"),
    ("/boot/efi/loader/entries", "conf"),
    ("/efi/loader/entries", "conf"),
    ("/etc/dracut.conf.d", "conf"),
    ("/etc/cmdline.d", "conf"),
    ("/etc/systemd/system", "mount"),
    ("/etc/systemd/system", "swap"),
    ("/etc/default/grub.d", "cfg"),
    ("/boot/efi/EFI/debian", "cfg"),
];

/// What a filesystem is to the machine that is to find its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// Its root.
    Root,
    /// One that is mounted somewhere below, such as a `/boot` of its own.
    OfItsOwn,
}

/// Old and new ids as files name them: the filesystem's own, if it gets another one, and those of the disk around it.
pub fn renamed(uuid: Option<([u8; 16], [u8; 16])>, disk: &[(String, String)]) -> Vec<(String, String)> {
    let uuid = uuid.filter(|(old, new)| old != new).map(|(old, new)| (uuid_text(&old), uuid_text(&new)));
    uuid.into_iter().chain(disk.iter().cloned()).collect()
}

/// Edits for what LVM itself keeps of ids, where a disk has other ones from now on. A devices file that named others would hide the
/// disk from it; without one it looks at all (lvmdevices(8)).
pub fn of_lvm(tree: &dyn Tree, disk: &[(String, String)]) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    let named = |text: &str| renamed_text(text, disk) != text;
    for path in ["/etc/lvm/devices/system.devices", "/run/lvm/hints", "/etc/lvm/cache/.cache"] {
        if !disk.is_empty() && text(tree, path)?.is_some_and(|text| named(&text)) {
            edits.push(Edit::remove(path));
        }
    }
    for dir in ["/etc/lvm/backup", "/etc/lvm/archive"] {
        for name in if disk.is_empty() { Vec::new() } else { tree.list(Path::new(dir))? } {
            let path = Path::new(dir).join(name);
            let Some(path) = path.to_str() else { continue };
            if let Some(now) = text(tree, path)?.filter(|now| named(now)) {
                edits.push(Edit::text(path, renamed_text(&now, disk)));
            }
        }
    }
    Ok(edits)
}

/// Edits that put new ids wherever old ones are named. They are made before anything has its new id.
pub fn renames(tree: &dyn Tree, renamed: &[(String, String)], what: Where) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    if renamed.is_empty() {
        return Ok(edits);
    }
    let files = match what {
        Where::Root => files(tree)?,
        Where::OfItsOwn => files_below(tree, "/boot")?,
    };
    for file in files {
        let Some(path) = file.to_str() else { continue };
        let Some(now) = text(tree, path)? else { continue };
        let then = renamed_text(&now, renamed);
        if then != now {
            edits.push(Edit::text(path, then));
        }
    }
    Ok(edits)
}

/// A text with new ids for old ones.
pub fn renamed_text(text: &str, renamed: &[(String, String)]) -> String {
    renamed.iter().fold(text.to_owned(), |text, (old, new)| {
        let text = replace(&text, old, new);
        let (upper, lower) = (old.to_uppercase(), old.to_lowercase());
        let text = if upper == *old { text } else { replace(&text, &upper, new) };
        if lower == *old { text } else { replace(&text, &lower, new) }
    })
}

/// A short id could be a part of a UUID, which a dash goes on in. A long one is nothing else, whatever it stands in: `lvm-pv-uuid-`
/// and one of LVM's, or two of them in one word.
fn replace(text: &str, old: &str, new: &str) -> String {
    const LONG: usize = 32;
    if old.len() >= LONG {
        return text.replace(old, new);
    }
    let (mut then, mut done) = (String::with_capacity(text.len()), 0);
    for at in words::places(text, old) {
        let end = at + old.len();
        if !text[..at].ends_with('-') && !text[end..].starts_with('-') {
            then.push_str(&text[done..at]);
            then.push_str(new);
            done = end;
        }
    }
    then + &text[done..]
}

/// The same in what the kernel unpacks before it has a disk.
pub fn packed_renames(
    tree: &dyn Tree,
    renamed: &[(String, String)],
    what: Where,
) -> Result<initramfs::Found> {
    let dir = match what {
        Where::Root => "/boot",
        Where::OfItsOwn => "/",
    };
    initramfs::look(tree, Path::new(dir), renamed)
}

/// Those of them that are below a directory which is a filesystem of its own, as they are called in that.
fn files_below(tree: &dyn Tree, mounted_at: &str) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        FILES.iter().filter_map(|path| path.strip_prefix(mounted_at)).map(PathBuf::from).collect();
    for (dir, extension) in DIRS {
        if let Some(dir) = dir.strip_prefix(mounted_at) {
            found.extend(files_in(tree, dir, extension)?);
        }
    }
    Ok(found)
}

fn files_in(tree: &dyn Tree, dir: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let names = tree.list(Path::new(dir))?;
    let fits = |name: &PathBuf| name.extension().is_some_and(|found| found == extension);
    Ok(names.into_iter().filter(fits).map(|name| Path::new(dir).join(name)).collect())
}

/// Files that are known to name filesystems, and those of directories whose files do.
pub(super) fn files(tree: &dyn Tree) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for (dir, extension) in DIRS {
        files.extend(files_in(tree, dir, extension)?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;

    #[test]
    fn every_file_that_finds_the_filesystem_by_its_uuid_follows() {
        let (old, new) = ([0x11; 16], [0x22; 16]);
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (
                "etc/fstab",
                "UUID=OLD / ext4 defaults 0 1\nUUID=33333333-3333-3333-3333-333333333333 none swap\n",
            ),
            ("boot/grub/grub.cfg", "linux /vmlinuz root=UUID=OLD ro\nsearch --fs-uuid --set=root OLD\n"),
            ("boot/loader/entries/a.conf", "options root=UUID=OLD\n"),
        ];
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.replace("OLD", &uuid_text(&old))).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let renamed = renamed(Some((old, new)), &[]);
        for edit in renames(&root, &renamed, Where::Root).unwrap() {
            edit.apply(&root).unwrap();
        }
        for (path, content) in files {
            let now = std::fs::read_to_string(dir.path().join(path)).unwrap();
            assert_eq!(now, content.replace("OLD", &uuid_text(&new)));
        }
        assert_eq!(renames(&root, &renamed, Where::Root).unwrap(), []);
    }

    #[test]
    fn ids_of_lvm_are_replaced_in_every_form_in_which_files_name_them() {
        let (group, volume) = ("a".repeat(32), "b".repeat(32));
        let renamed = [(group.clone(), "c".repeat(32)), (volume.clone(), "d".repeat(32))];
        let named = |group: &str, volume: &str| {
            format!("/dev/disk/by-id/dm-uuid-LVM-{group}{volume} /\n/dev/disk/by-id/lvm-pv-uuid-{group} x\n")
        };
        let then = named(&"c".repeat(32), &"d".repeat(32));
        assert_eq!(renamed_text(&named(&group, &volume), &renamed), then);
    }

    #[test]
    fn what_lvm_remembers_of_old_ids_never_hides_a_disk_with_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["etc/lvm/devices", "etc/lvm/backup"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let (old, new) = ("A".repeat(32), "B".repeat(32));
        let devices = dir.path().join("etc/lvm/devices/system.devices");
        let backup = dir.path().join("etc/lvm/backup/vg0");
        std::fs::write(&devices, format!("IDTYPE=devname PVID={old} PART=1\n")).unwrap();
        std::fs::write(&backup, format!("id = \"{old}\"\n")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for edit in of_lvm(&root, &[(old, new.clone())]).unwrap() {
            edit.apply(&root).unwrap();
        }
        assert!(!devices.exists());
        assert_eq!(std::fs::read_to_string(&backup).unwrap(), format!("id = \"{new}\"\n"));
    }

    #[test]
    fn a_short_id_is_replaced_only_where_it_is_not_a_part_of_a_longer_one() {
        let renamed = [("1234-ABCD".to_owned(), "0000-0001".to_owned())];
        let text =
            "UUID=1234-ABCD /boot/efi vfat\nUUID=11111111-1234-abcd-1111-111111111111 /\nx 1234-abcd\n";
        let then =
            "UUID=0000-0001 /boot/efi vfat\nUUID=11111111-1234-abcd-1111-111111111111 /\nx 0000-0001\n";
        assert_eq!(renamed_text(text, &renamed), then);
    }
}

//! The root filesystem's UUID, and every file of the guest that finds the filesystem by it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::filesystem::uuid_text;
use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::found::text;
use crate::identity::words;

/// Files that are known to name filesystems by UUID.
const FILES: [&str; 15] = [
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/etc/initramfs-tools/conf.d/resume",
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
const DIRS: [(&str, &str); 6] = [
    ("/boot/loader/entries", "conf"),
    ("/boot/efi/loader/entries", "conf"),
    ("/efi/loader/entries", "conf"),
    ("/etc/dracut.conf.d", "conf"),
    ("/etc/default/grub.d", "cfg"),
    ("/boot/efi/EFI/debian", "cfg"),
];

/// Edits that put the new UUID wherever the old one is named. They are made before the filesystem has its new UUID.
pub fn edits(tree: &dyn Tree, old: [u8; 16], new: [u8; 16]) -> Result<Vec<Edit>> {
    if old == new {
        return Ok(Vec::new());
    }
    let (old, new) = (uuid_text(&old), uuid_text(&new));
    let mut files: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for (dir, extension) in DIRS {
        let names = tree.list(Path::new(dir))?;
        let fits = |name: &PathBuf| name.extension().is_some_and(|found| found == extension);
        files.extend(names.into_iter().filter(fits).map(|name| Path::new(dir).join(name)));
    }
    let mut edits = Vec::new();
    for file in files {
        let Some(path) = file.to_str() else { continue };
        let Some(now) = text(tree, path)? else { continue };
        let then = words::replace(&words::replace(&now, &old, &new), &old.to_uppercase(), &new);
        if then != now {
            edits.push(Edit::text(path, then));
        }
    }
    Ok(edits)
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
        for edit in edits(&root, old, new).unwrap() {
            edit.apply(&root).unwrap();
        }
        for (path, content) in files {
            let now = std::fs::read_to_string(dir.path().join(path)).unwrap();
            assert_eq!(now, content.replace("OLD", &uuid_text(&new)));
        }
        assert_eq!(edits(&root, old, new).unwrap(), []);
    }
}

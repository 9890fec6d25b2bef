//! The EFI system partition: a FAT filesystem, made in memory without a mount (mkfs.fat(8), mtools(1)).

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::boot::{EFI_DIR, EFI_MENUS, efi_menu};
use crate::host::nameless::Nameless;
use crate::host::programs::{Program, Programs};
use crate::host::root::{Kind, Root};

/// More than any boot loader has.
const FILES_AT_MOST: usize = 64;
const BYTES_AT_MOST: u64 = 32 << 20;

/// What is to be in it: paths below the partition's root and their content.
pub type Files = Vec<(String, Vec<u8>)>;

/// The boot loader that the image brings, and the menus that lead to the root filesystem.
pub fn files(root: &Root, root_uuid: &str) -> Result<Files> {
    let mut files = Vec::new();
    collect(root, Path::new(EFI_DIR), "EFI", &mut files)?;
    if !files.iter().any(|(path, _)| path.eq_ignore_ascii_case("EFI/BOOT/BOOTX64.EFI")) {
        bail!("the image has no '{EFI_DIR}/BOOT/BOOTX64.EFI', so that no machine with UEFI would start");
    }
    files.extend(EFI_MENUS.map(|path| (path.to_owned(), efi_menu(root_uuid).into_bytes())));
    Ok(files)
}

fn collect(root: &Root, dir: &Path, to: &str, files: &mut Files) -> Result<()> {
    let mut found = Vec::new();
    root.names(dir, &mut |name, kind| {
        found.push((name.to_string_lossy().into_owned(), kind));
        found.len() < FILES_AT_MOST
    })?;
    for (name, kind) in found {
        let (path, inside) = (dir.join(&name), format!("{to}/{name}"));
        match kind {
            Kind::Dir if to.matches('/').count() < 4 => collect(root, &path, &inside, files)?,
            Kind::File => files.extend(root.head(&path, BYTES_AT_MOST)?.map(|content| (inside, content))),
            _ => bail!("'{}' of the image is neither a file nor a directory", path.display()),
        }
        if files.len() > FILES_AT_MOST {
            bail!("'{EFI_DIR}' of the image has more than {FILES_AT_MOST} files");
        }
    }
    Ok(())
}

/// Makes it, with that volume id.
pub fn make(host: &dyn Programs, size: u64, id: u32, files: &Files) -> Result<Nameless> {
    let what = "making the EFI system partition";
    let image = Nameless::of_length(size)?;
    let id_text = format!("{id:08x}");
    // FAT32, which every firmware reads; by its size alone mkfs.fat would choose FAT16.
    let mkfs =
        Program::new("mkfs.fat").args(["-F", "32", "-n", "GRIDGATE", "-i", &id_text]).arg(image.path());
    host.run(&mkfs).context(what)?;
    let mtools =
        |program: &str| Program::new(program).env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image.path());
    let mut made: Vec<String> = Vec::new();
    for (path, content) in files {
        let mut at = 0;
        while let Some(slash) = path[at..].find('/') {
            let dir = path[..at + slash].to_ascii_lowercase();
            if !made.contains(&dir) {
                host.run(&mtools("mmd").arg(format!("::/{}", &path[..at + slash]))).context(what)?;
                made.push(dir);
            }
            at += slash + 1;
        }
        let copy = mtools("mcopy").arg("-").arg(format!("::/{path}")).input(content.clone());
        host.run(&copy).context(what)?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn files_are_in_the_filesystem_that_is_made_and_its_id_is_the_one_asked_for() {
        if ["mkfs.fat", "mcopy"].iter().any(|program| Live.find_program(program).is_none()) {
            eprintln!("skipped: no dosfstools or mtools here");
            return;
        }
        let files: Files = vec![
            ("EFI/BOOT/BOOTX64.EFI".to_owned(), vec![7; 100_000]),
            ("EFI/debian/grub.cfg".to_owned(), efi_menu("U").into_bytes()),
        ];
        let image = make(&Live, 126 << 20, 0x1234_abcd, &files).unwrap();
        let kept = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(image.path(), kept.path()).unwrap();
        let read = Program::new("mtype").arg("-i").arg(kept.path()).arg("::/EFI/debian/grub.cfg");
        assert!(Live.run(&read).unwrap().text().starts_with("search.fs_uuid U root"));
        let mut id = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(image.file(), &mut id, 67).unwrap();
        assert_eq!(crate::host::content::fat_text(u32::from_le_bytes(id)), "1234-ABCD");
    }
}

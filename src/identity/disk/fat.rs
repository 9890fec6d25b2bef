//! Files on a FAT filesystem that name ids.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::Host;
use crate::host::bounds::Bounds;
use crate::host::programs::Program;
use crate::host::volume::Volume;
use crate::identity::filesystem;

/// What mtools may take of a FAT that was made to take more.
const BOUNDS: Bounds = Bounds { memory_bytes: 256 << 20, cpu_seconds: 20 };
/// More than any boot loader has.
const FILES_AT_MOST: usize = 64;

/// Puts new ids into boot loaders' menus; which were changed. Without a mount: the kernel's FAT knows neither owners nor a journal,
/// and mtools(1) is bounded.
pub(super) fn rename(host: &dyn Host, volume: &Volume, renamed: &[(String, String)]) -> Result<Vec<PathBuf>> {
    let what = || format!("looking into the FAT filesystem of '{volume}'");
    let image = format!("{}@@{}", volume.file.display(), volume.offset);
    let mtools =
        |name: &str| Program::new(name).env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&image).bounded(BOUNDS);
    let listed = host.run(&mtools("mdir").args(["-/", "-b", "::/"])).with_context(what)?.text();
    let paths = listed.lines().filter_map(|line| line.strip_prefix("::"));
    let mut changed = Vec::new();
    for path in paths.filter(|path| is_menu(path)).take(FILES_AT_MOST) {
        let at = format!("::{path}");
        let now = host.run(&mtools("mtype").arg(&at)).with_context(what)?;
        let Ok(now) = String::from_utf8(now.stdout) else { continue };
        let then = filesystem::renamed_text(&now, renamed);
        if then != now {
            let copy = mtools("mcopy").args(["-o", "-", &at]).input(then);
            host.run(&copy).with_context(what)?;
            changed.push(Path::new(path).to_owned());
        }
    }
    Ok(changed)
}

/// A boot loader's menu: GRUB's, or an entry as the Boot Loader Specification has it.
fn is_menu(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.ends_with("/grub.cfg")
        || path.starts_with("/loader/entries/") && path.ends_with(".conf")
        || path.ends_with("/syslinux.cfg")
        || path.ends_with("/extlinux.conf")
}

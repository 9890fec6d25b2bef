//! An ext4 filesystem in a file, edited in user space: no mount, no loop device, no root.
//!
//! ```text
//!   disk image --(read in process)--> Overlay <--edits--   nothing is written yet
//!                                                  |
//!                                   one debugfs script, with an undo file
//!                                                  |
//!                         read again and compared; anything else than asked for is undone
//! ```
//!
//! What reads the hostile image in this process is memory-safe code; what writes it, libext2fs, is a process of its own with
//! limits and no way to more privileges. debugfs(8) ends with status 0 whatever happens, hence the comparison. It writes the disk
//! right behind its undo file, so that a kill at any point is undone; what only a power cut can tear apart is that until the two
//! are waited for, the kernel alone decides which reaches the disk first.

mod names;
mod overlay;
mod reading;
mod script;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::bounds::Bounds;
use super::filesystem::{Shape, uuid_text};
use super::programs::{Program, Programs};
use super::superblock::{self, FilesystemKind};
use super::tree::Tree;
use super::undo;
use super::volume::Volume;

pub use overlay::Overlay;

/// Memory and processor time that a program of e2fsprogs may take; a filesystem that was made to take more is refused by that.
const BOUNDS: Bounds = Bounds { memory_bytes: 1 << 30, cpu_seconds: 60 };

/// What to do with the tree; it is also told the filesystem's UUID.
pub type Work<'a> = &'a mut dyn FnMut(&dyn Tree, [u8; 16]) -> Result<()>;

/// Opens the filesystem, lets `edit` say what is to be different, and makes it so; the filesystem also gets the UUID asked
/// for. Either all of it is done or nothing: what a killed run has left half done is undone by the next one. A filesystem
/// that was not unmounted has its journal replayed first. Growing is for the other engine.
pub fn edit(host: &dyn Programs, disk: &Path, shape: Shape, edit: Work<'_>) -> Result<()> {
    let what = || format!("editing the filesystem in '{}'", disk.display());
    // The other engine looks for it in the same place: whichever comes next undoes what is half done.
    let undo = undo::file(&Volume::whole(disk)).with_context(what)?;
    if undo.exists() {
        undo_all(host, disk, &undo).with_context(what)?;
    }
    let found = superblock::expect(disk, 0)?;
    if found.kind != FilesystemKind::Ext4 {
        bail!("{}: it is {}, which takes a mount, and that takes root", what(), found.kind.name());
    }
    if found.needs_recovery {
        // Any edit below a journal that is replayed later would be lost, or worse.
        let replay = e2fsprogs("e2fsck").args(["-p", "-E", "journal_only"]).arg(disk.as_os_str());
        let ran = host.run_any(&replay).with_context(what)?;
        if ran.status > 1 || superblock::expect(disk, 0)?.needs_recovery {
            bail!("{}: its journal cannot be replayed: {}", what(), ran.text());
        }
    }
    let overlay = Overlay::open(disk).with_context(what)?;
    edit(&overlay, found.uuid)?;
    let uuid = shape.uuid.filter(|uuid| *uuid != found.uuid);
    if overlay.changes().is_empty() && overlay.new_volume_label().is_none() && uuid.is_none() {
        return Ok(());
    }
    let scratch = Scratch::new(disk).with_context(what)?;
    let script = script::write(host, disk, &overlay, &scratch.0, uuid.filter(|_| script::may_set_uuid(disk)))
        .with_context(what)?;
    // Whatever is found afterwards is then of debugfs.
    if script.leaves_attributes
        && let Err(error) = check(host, disk, &undo, "-fp")
    {
        undo_all(host, disk, &undo).with_context(what)?;
        return Err(error).with_context(what);
    }
    // By itself it would wait for the disk eight times; what it has written is waited for below.
    let debugfs = e2fsprogs("debugfs").unsynced().arg("-w").arg("-z").arg(undo.as_os_str()).arg("-f");
    let ran = host.run_any(&debugfs.arg(script.file.as_os_str()).arg(disk.as_os_str())).with_context(what)?;
    let mended = if script.leaves_attributes { check(host, disk, &undo, "-fy") } else { Ok(()) };
    let wrong = match mended.and_then(|()| Overlay::open(disk)).and_then(|now| now.differs_from(&overlay)) {
        // What undoes it comes first: a power cut meanwhile leaves a whole disk, or one that the next run undoes.
        Ok(None) => sync(&undo).and_then(|()| sync(disk)).err().map(|error| format!("{error:#}")),
        Ok(Some(path)) => Some(format!("'{}' is not as asked for: {}", path.display(), script::said(&ran))),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(wrong) = wrong {
        undo_all(host, disk, &undo).with_context(what)?;
        bail!("{}: {wrong}", what());
    }
    std::fs::remove_file(&undo).ok();
    if let Some(uuid) = uuid.filter(|uuid| superblock::expect(disk, 0).is_ok_and(|now| now.uuid != *uuid)) {
        let check = e2fsprogs("e2fsck").arg("-fp").arg(disk.as_os_str());
        let ran = host.run_any(&check)?;
        if ran.status > 1 {
            bail!("{}: 'e2fsck -fp' found damage: {}", what(), ran.text());
        }
        host.run(&e2fsprogs("tune2fs").arg("-U").arg(uuid_text(&uuid)).arg(disk.as_os_str()))?;
    }
    Ok(())
}

/// Opens the filesystem for a look. What is in its journal only is seen as if it were replayed; nothing is changed.
pub fn look(disk: &Path, look: Work<'_>) -> Result<()> {
    let found = superblock::expect(disk, 0)?;
    look(&Overlay::open(disk)?, found.uuid)
}

/// Has all of the filesystem looked at, and mended: `-fp` what is harmless, `-fy` all. What undoes it goes where the rest goes.
fn check(host: &dyn Programs, disk: &Path, undo: &Path, how: &str) -> Result<()> {
    let e2fsck = e2fsprogs("e2fsck").arg(how).arg("-z").arg(undo.as_os_str()).arg(disk.as_os_str());
    let ran = host.run_any(&e2fsck)?;
    // 1: errors were corrected (e2fsck(8)).
    if ran.status > 1 {
        bail!("'e2fsck {how}' found damage: {}", ran.text());
    }
    Ok(())
}

fn sync(file: &Path) -> Result<()> {
    let synced = std::fs::File::open(file).and_then(|file| file.sync_data());
    synced.with_context(|| format!("writing '{}' to stable storage", file.display()))
}

/// One of e2fsprogs' programs, with bounds and no way to more privileges.
fn e2fsprogs(name: &str) -> Program {
    Program::new(name).bounded(BOUNDS)
}

fn undo_all(host: &dyn Programs, disk: &Path, undo: &Path) -> Result<()> {
    let what = || format!("undoing what was half done with '{}'", undo.display());
    if undo::is_needed(&Volume::whole(disk), undo).with_context(what)? {
        let e2undo = e2fsprogs("e2undo").arg("-f").arg(undo.as_os_str()).arg(disk.as_os_str());
        host.run(&e2undo).with_context(what)?;
    }
    undo::remove(undo).with_context(what)
}

/// A directory for what debugfs reads, private to this process's user, that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(disk: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = disk.parent().unwrap_or(Path::new("."));
        let path = dir.join(super::temporary::Maker::this().name("offline"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The error that led here is the one to tell, and there is none on the usual way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;

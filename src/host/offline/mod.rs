//! An ext4 filesystem in a file, edited in user space: no mount, no loop device, no root.
//!
//! ```text
//!   disk image --(read in process: ext4-view)--> Overlay <--edits--   nothing is written yet
//!                                                  |
//!                                   one debugfs script, with an undo file
//!                                                  |
//!                         read again and compared; anything else than asked for is undone
//! ```
//!
//! What reads the hostile image in this process is memory-safe code; what writes it, libext2fs, is a process of its own with
//! limits and no way to more privileges. debugfs(8) ends with status 0 whatever happens, hence the comparison.

mod names;
mod overlay;
mod script;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::filesystem::{Shape, uuid_text};
use super::programs::{Program, Programs};
use super::superblock::{self, FilesystemKind};
use super::tree::Tree;
use crate::names::Bytes;

pub use overlay::Overlay;

/// Memory and processor time that a program of e2fsprogs may take; a filesystem that was made to take more is refused by that.
const LIMITS: [&str; 2] = ["--as=1073741824", "--cpu=60"];

/// What to do with the tree; it is also told the filesystem's UUID.
pub type Work<'a> = &'a mut dyn FnMut(&dyn Tree, [u8; 16]) -> Result<()>;

/// Opens the filesystem, lets `edit` say what is to be different, and makes it so; the filesystem also gets the UUID asked
/// for. Either all of it is done or nothing: what a killed run has left half done is undone by the next one. A filesystem
/// that was not unmounted has its journal replayed first. Growing is for the other engine.
pub fn edit(host: &dyn Programs, disk: &Path, shape: Shape, edit: Work<'_>) -> Result<()> {
    let what = || format!("editing the filesystem in '{}'", disk.display());
    let undo = undo_file(disk);
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
    if overlay.changes().is_empty() && uuid.is_none() {
        return Ok(());
    }
    let scratch = Scratch::new(disk).with_context(what)?;
    let script = script::write(host, disk, &overlay, &scratch.0, uuid.filter(|_| script::may_set_uuid(disk)))
        .with_context(what)?;
    let debugfs = e2fsprogs("debugfs").arg("-w").arg("-z").arg(undo.as_os_str()).arg("-f");
    let ran = host.run_any(&debugfs.arg(script.as_os_str()).arg(disk.as_os_str())).with_context(what)?;
    let wrong = match Overlay::open(disk).and_then(|now| now.differs_from(&overlay)) {
        Ok(None) => None,
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

/// One of e2fsprogs' programs, with bounds and no way to more privileges.
fn e2fsprogs(name: &str) -> Program {
    Program::new("prlimit").args(LIMITS).args(["setpriv", "--no-new-privs", name])
}

fn undo_file(disk: &Path) -> PathBuf {
    let mut name = disk.as_os_str().to_owned();
    name.push(".gridgate-undo");
    PathBuf::from(name)
}

fn undo_all(host: &dyn Programs, disk: &Path, undo: &Path) -> Result<()> {
    let what = || format!("undoing what was half done with '{}'", undo.display());
    // One that ended before it had anything to undo.
    let len = std::fs::metadata(undo).with_context(what)?.len();
    if len > 0 {
        host.run(&e2fsprogs("e2undo").arg("-f").arg(undo.as_os_str()).arg(disk.as_os_str()))
            .with_context(|| format!("{} ({})", what(), Bytes(len)))?;
    }
    std::fs::remove_file(undo).with_context(what)
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

//! A program that writes a filesystem without the kernel, and may be killed meanwhile: what it had half done is undone before
//! anybody looks at the filesystem again (e2undo(8)).

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::loopdev::LoopDevice;
use super::programs::{Program, Programs};
use super::volume::Volume;

/// `s_mtime` and after it `s_wtime`: when an ext4 was last mounted, and when its superblock was last written
/// (`fs/ext4/ext4.h` of Linux).
const MOUNTED_AT: u64 = 1024 + 0x2c;
/// The file is written before what it undoes, which may take a while on a disk that is busy; seconds. No program that it undoes
/// mounts anything.
const AT_ONCE: u64 = 60;

/// Where a program writes down what undoes it: beside the file, or where only root can write if it is a device.
pub(super) fn file(volume: &Volume) -> Result<PathBuf> {
    let what = || format!("looking at '{}'", volume.file.display());
    let found = fs::metadata(&volume.file).with_context(what)?;
    if found.file_type().is_block_device() {
        return Ok(PathBuf::from(format!("/run/gridgate-undo-{}-{}", found.rdev(), volume.offset)));
    }
    let mut name = volume.file.as_os_str().to_owned();
    name.push(format!(".gridgate-undo-{}", volume.offset));
    Ok(PathBuf::from(name))
}

/// Undoes what is half done, if anything is. A filesystem that was written since is refused: what would be put back is not what
/// was there before.
pub(super) fn undo(host: &dyn Programs, volume: &Volume) -> Result<()> {
    let undo = file(volume)?;
    let what = || format!("undoing what a command that was killed had half done to '{volume}'");
    if is_needed(volume, &undo).with_context(what)? {
        let device = LoopDevice::attach(volume, false).with_context(what)?;
        let e2undo = Program::new("e2undo").arg("-f").arg(undo.as_os_str()).arg(device.path());
        host.run(&e2undo).with_context(what)?;
    }
    match undo.exists() {
        true => remove(&undo),
        false => Ok(()),
    }
}

/// Whether there is something to undo in that file; an error if the filesystem was written since.
pub(super) fn is_needed(volume: &Volume, undo: &Path) -> Result<bool> {
    let Ok(file) = File::open(undo) else { return Ok(false) };
    // Without its mark nothing was written yet that it could undo.
    let mut mark = [0; 8];
    if file.read_exact_at(&mut mark, 0).is_err() || mark != *b"E2UNDO02" {
        return Ok(false);
    }
    let noted_at = file.metadata()?.mtime().unsigned_abs();
    let (mounted_at, written_at) = last_used(volume)?;
    if mounted_at > noted_at || written_at > noted_at.saturating_add(AT_ONCE) {
        bail!(
            "it was written since\nhint: 'e2fsck -f' looks whether it is whole; then remove '{}'",
            undo.display()
        );
    }
    Ok(true)
}

/// Nothing is to be undone any more.
pub(super) fn remove(undo: &Path) -> Result<()> {
    fs::remove_file(undo).with_context(|| format!("removing '{}'", undo.display()))
}

/// When it was last mounted, and last written.
fn last_used(volume: &Volume) -> Result<(u64, u64)> {
    let mut times = [[0; 4]; 2];
    File::open(&volume.file)?.read_exact_at(times.as_flattened_mut(), volume.offset + MOUNTED_AT)?;
    let [mounted_at, written_at] = times.map(|time| u32::from_le_bytes(time).into());
    Ok((mounted_at, written_at))
}

//! New filesystems, made and filled in one go, and there only when all of it is.
//!
//! A file gets its name at the end, so what is in it meanwhile is of no interest. A device has its name all along: there the
//! first superblock is what makes a filesystem of the bytes, and it is written last ([`Finish::SuperblockLast`]), so that a
//! target that was left half way is taken for a filesystem by nobody.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::filesystem::{self, MountNew, uuid_text};
use super::loopdev::LoopDevice;
use super::programs::{Program, Programs};
use super::root::Root;
use super::superblock::FilesystemKind;
use super::volume::Volume;

mod primary;
mod scratch;

pub use scratch::leftovers;

/// A filesystem that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFilesystem {
    /// Whose format.
    pub kind: FilesystemKind,
    /// Its name; may be empty.
    pub label: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Percent that only root can fill (ext4 alone).
    pub reserved_percent: u8,
    /// How many files there is room for at least (ext4 alone, where it cannot grow later); the usual number if that is more.
    pub inodes: u64,
    /// The most files that fit a byte count is not asked for: exactly [`NewFilesystem::inodes`] are made room for.
    pub tight: bool,
    /// Features beside the usual ones, or without them if they begin with `^` (mke2fs(8), `-O`; ext4 alone).
    pub features: Vec<String>,
}

/// How it comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// In place: for a file that has no name yet that anybody looks for. Its data is not forced out to the disk, which would take
    /// as long again: after a power cut within the kernel's write-back time blocks may be missing.
    InPlace,
    /// What tells that there is a filesystem is written when all else is on stable storage.
    SuperblockLast,
}

/// What is done in a filesystem that is open.
pub type Visit<'a> = &'a mut dyn FnMut(&Root) -> Result<()>;

/// What is done in it before it is there.
pub struct Work<'a> {
    /// Puts everything into it.
    pub fill: Visit<'a>,
    /// Reads it back, through another mount, from the disk.
    pub check: Option<Visit<'a>>,
}

/// Everything that ext4 allocates is counted in blocks of this size, on small filesystems too: they grow later.
pub const EXT4_BLOCK: u64 = 4096;
/// What the kernel and mke2fs put an inode into.
pub const EXT4_INODE: u64 = 256;
/// One inode for so many bytes, unless more are needed: what is usual for all but very small filesystems (mke2fs.conf(5)).
pub const EXT4_BYTES_PER_INODE: u64 = 16384;
/// Tables of larger ones are zeroed by the kernel, in the background: gigabytes of zeros are not waited for.
const ZEROED_NOW: u64 = 64 << 30;
/// What is cleared at both ends of a target: every filesystem, partition table and RAID has its mark in there.
const END: u64 = 1 << 20;

impl NewFilesystem {
    /// Whether such a filesystem can be made at all, before anything is touched.
    pub fn check(&self, host: &dyn Programs) -> Result<()> {
        // Manual pages of mke2fs, mkfs.xfs and mkfs.btrfs.
        let (program, package, longest) = match self.kind {
            FilesystemKind::Ext4 => ("mke2fs", "e2fsprogs", 16),
            FilesystemKind::Xfs => ("mkfs.xfs", "xfsprogs", 12),
            FilesystemKind::Btrfs => ("mkfs.btrfs", "btrfs-progs", 255),
        };
        let kind = self.kind.name();
        if host.find_program(program).is_none() {
            bail!("making {kind} takes '{program}', which is not here; hint: apt install {package}");
        }
        if self.label.len() > longest || self.label.contains(['\0', '\n', '/']) {
            bail!("'{}' is no label for {kind}, which takes {longest} bytes at most", self.label);
        }
        Ok(())
    }

    /// The program that makes it in the first `len` bytes of `at`.
    fn program(&self, at: &Path, len: u64) -> Program {
        let uuid = uuid_text(&self.uuid);
        let mut label: Vec<OsString> = Vec::new();
        if !self.label.is_empty() {
            label = vec!["-L".into(), self.label.as_str().into()];
        }
        match self.kind {
            FilesystemKind::Ext4 => {
                let lazy = u8::from(len > ZEROED_NOW);
                let extended = format!(
                    "lazy_itable_init={lazy},lazy_journal_init={lazy},nodiscard,root_owner=0:0,hash_seed={uuid}"
                );
                let mut program = Program::new("mke2fs")
                    .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256"])
                    .args(["-m", &self.reserved_percent.to_string()])
                    .args(["-U", &uuid, "-E", &extended])
                    .args(label);
                if !self.features.is_empty() {
                    program = program.args(["-O", &self.features.join(",")]);
                }
                program = match self.tight || self.inodes > len / EXT4_BYTES_PER_INODE {
                    true => program.args(["-N", &self.inodes.to_string()]),
                    false => program.args(["-i", &EXT4_BYTES_PER_INODE.to_string()]),
                };
                program.arg(at).arg((len / EXT4_BLOCK).to_string())
            }
            FilesystemKind::Xfs => Program::new("mkfs.xfs")
                .args(["-q", "-f", "-K"])
                .args(["-m", &format!("uuid={uuid}")])
                .args(["-d", &format!("size={len}")])
                .args(label)
                .arg(at),
            FilesystemKind::Btrfs => Program::new("mkfs.btrfs")
                .args(["-q", "-f", "-K", "-U", &uuid])
                .args(["-b", &len.to_string()])
                .args(label)
                .arg(at),
        }
    }
}

/// As [`super::filesystem::Filesystems::make_volume`], on this machine.
pub(super) fn make(
    host: &dyn Programs,
    volume: &Volume,
    new: &NewFilesystem,
    finish: Finish,
    work: &mut Work<'_>,
) -> Result<()> {
    let target = OpenOptions::new().read(true).write(true).open(&volume.file);
    let target = target.with_context(|| format!("opening '{}'", volume.file.display()))?;
    let len = match volume.len {
        Some(len) => len,
        None => end_of(&target)?.saturating_sub(volume.offset),
    };
    ensure!(len >= 2 * END, "'{volume}' has {len} bytes, in which no filesystem fits");
    match finish {
        Finish::InPlace => {
            format(host, new, volume, len)?;
            filled(volume, new.kind, None, work)?;
            ensure!(
                end_of(&target)? >= volume.offset + len,
                "'{volume}' was cut short while it was written; hint: something else writes to it"
            );
            check(&target, volume, new.kind, None, work)
        }
        Finish::SuperblockLast => {
            erase(&target, volume.offset, len).with_context(|| format!("clearing '{volume}'"))?;
            let made = scratch::Scratch::make(host, new, len)?;
            match primary::backup_of(made.file(), new.kind)? {
                Some(backup) => {
                    made.copy_tables(host, &target, volume.offset)?;
                    filled(volume, new.kind, Some(backup), work)?;
                    check(&target, volume, new.kind, Some(backup), work)?;
                    primary::write(&target, volume.offset)
                        .with_context(|| format!("writing the superblock of '{volume}'"))
                }
                None => {
                    let inside = Volume::whole(made.path());
                    filled(&inside, new.kind, None, work)?;
                    made.copy_all(&target, volume.offset, len)
                        .with_context(|| format!("copying the filesystem to '{volume}'"))?;
                    check(made.file(), &inside, new.kind, None, work)?;
                    made.copy_head(&target, volume.offset)
                        .with_context(|| format!("writing the superblock of '{volume}'"))
                }
            }
        }
    }
}

fn format(host: &dyn Programs, new: &NewFilesystem, volume: &Volume, len: u64) -> Result<()> {
    let is_whole = volume.offset == 0;
    let device = if is_whole { None } else { Some(LoopDevice::attach(volume, false)?) };
    let at = device.as_ref().map_or(volume.file.as_path(), LoopDevice::path);
    host.run(&new.program(at, len).killed_on_interrupt())
        .with_context(|| format!("making {} in '{volume}'", new.kind.name()))?;
    Ok(())
}

/// `backup`: the superblock to go by, since there is no first one yet.
fn filled(volume: &Volume, kind: FilesystemKind, backup: Option<u64>, work: &mut Work<'_>) -> Result<()> {
    let opened = filesystem::mount_new(volume, kind, MountNew { backup, read_only: false });
    let (root, device) = opened.with_context(|| format!("opening the new filesystem of '{volume}'"))?;
    let filled = (work.fill)(&root);
    let synced = filesystem::sync(&root);
    drop(root);
    let closed = device.wait_until_unused();
    filled?;
    synced.with_context(|| format!("writing '{volume}' out"))?;
    closed.with_context(|| format!("closing the filesystem of '{volume}'"))
}

/// What is read back comes from the disk, not from memory where it was just written.
fn check(
    target: &File,
    volume: &Volume,
    kind: FilesystemKind,
    backup: Option<u64>,
    work: &mut Work<'_>,
) -> Result<()> {
    let Some(check) = work.check.as_deref_mut() else { return Ok(()) };
    target.sync_data().with_context(|| format!("writing '{volume}' to stable storage"))?;
    let (from, len) = (volume.offset as i64, volume.len.unwrap_or(0) as i64);
    // Advice: where it is not taken, what is compared is still what was handed to the disk.
    let _ = nix::fcntl::posix_fadvise(target, from, len, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let opened = filesystem::mount_new(volume, kind, MountNew { backup, read_only: true });
    let (root, device) = opened.with_context(|| format!("opening the new filesystem of '{volume}'"))?;
    let checked = check(&root);
    drop(root);
    let closed = device.wait_until_unused();
    checked?;
    closed.with_context(|| format!("closing the filesystem of '{volume}'"))
}

/// After this nobody takes the target for what it was.
fn erase(target: &File, offset: u64, len: u64) -> Result<()> {
    let zeros = vec![0; END as usize];
    target.write_all_at(&zeros, offset)?;
    target.write_all_at(&zeros, offset + len - END)?;
    Ok(target.sync_data()?)
}

/// Makes a part of a file or device read as zeros, without handing the zeros over where the kernel can do it by itself.
fn zero(target: &File, from: u64, len: u64) -> Result<()> {
    use rustix::fs::FallocateFlags;
    match rustix::fs::fallocate(target, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, from, len) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL | rustix::io::Errno::NODEV) => {}
        Err(e) => return Err(e.into()),
    }
    let zeros = vec![0; END as usize];
    let mut at = from;
    while at < from + len {
        let n = (from + len - at).min(END);
        target.write_all_at(&zeros[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

/// The length of a file or block device.
pub fn end_of(file: &File) -> Result<u64> {
    let what = || format!("looking for the end of file descriptor {}", file.as_raw_fd());
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0)).with_context(what)
}

#[cfg(test)]
pub(crate) mod tests;

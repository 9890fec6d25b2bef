//! Filesystems of guests, opened for an edit and closed again.
//!
//! A disk is mounted through a loop device, but attached nowhere: the mount is a file descriptor (fsmount(2)), so that
//! no other process sees it, nothing has to be unmounted by name, and the kernel takes it and the loop device down when
//! this process dies, however it dies.

use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::loopdev::LoopDevice;
use super::newfs::{self, Finish, NewFilesystem, Work};
use super::programs::{Program, Programs};
use super::root::Root;
use super::superblock::{self, FilesystemKind, Superblock};
use super::undo;
use super::volume::Volume;

/// What is to be true of the filesystem itself once it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Its UUID; `None` leaves it.
    pub uuid: Option<[u8; 16]>,
    /// Grow it to the end of its disk.
    pub grow: bool,
}

/// What gridgate asks of guests' filesystems.
pub trait Filesystems {
    /// Opens a filesystem, lets `edit` work in it, and gives it the shape asked for, its UUID last. When this returns, all is
    /// written and the filesystem is closed. Only for volumes that no guest is running on. `edit` is told what the
    /// superblock said before.
    fn edit_volume(
        &self,
        volume: &Volume,
        shape: Shape,
        edit: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()>;

    /// Opens a filesystem for reading alone: not a byte of it is changed. What is still in the journal of one that was not
    /// unmounted is not seen.
    fn look_at_volume(
        &self,
        volume: &Volume,
        look: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()>;

    /// Makes a new filesystem of a volume, whatever was there, and fills it; how safe it is then, `finish` says. An error leaves no filesystem, or under [`Finish::InPlace`] one that is not finished. The caller has made sure that
    /// nobody uses the volume.
    fn make_volume(
        &self,
        volume: &Volume,
        new: &NewFilesystem,
        finish: Finish,
        work: &mut Work<'_>,
    ) -> Result<()>;

    /// As [`Filesystems::edit_volume`], for a disk image that is one filesystem.
    fn edit_disk(
        &self,
        disk: &Path,
        shape: Shape,
        edit: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        self.edit_volume(&Volume::whole(disk), shape, edit)
    }
}

/// What a mount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Look,
    Change,
}

// EXT4_IOC_RESIZE_FS and EXT4_IOC_SETFSUUID (since 6.0) of linux/ext4.h.
mod ioctl {
    nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
    nix::ioctl_write_ptr!(ext4_set_uuid, b'f', 44, super::FsUuidHeader);
}

/// `struct fsuuid` without its flexible array, which the request number is computed from.
#[repr(C)]
struct FsUuidHeader {
    len: u32,
    flags: u32,
}

#[repr(C)]
struct FsUuid {
    header: FsUuidHeader,
    uuid: [u8; 16],
}

impl Filesystems for super::Live {
    fn edit_volume(
        &self,
        volume: &Volume,
        shape: Shape,
        edit: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        let what = || format!("opening the filesystem of '{volume}'");
        undo::undo(self, volume)?;
        let found = superblock::expect(&volume.file, volume.offset)?;
        let (root, device) = mount(volume, found.kind, Access::Change).with_context(what)?;
        let grown = !shape.grow || found.kind != FilesystemKind::Ext4 || grow(&root, volume)?;
        let edited = edit(&root, found);
        // After the edit: what the filesystem's files say about its UUID is right before it has the new one, and if this is
        // cut short between the two it still has the one that the next attempt looks for.
        let wanted = shape.uuid.filter(|uuid| *uuid != found.uuid && edited.is_ok());
        let set_while_mounted = match wanted {
            Some(uuid) => found.kind == FilesystemKind::Ext4 && set_uuid(&root, uuid),
            None => true,
        };
        let synced = sync(&root).with_context(|| format!("writing '{volume}' out"));
        drop(root);
        // Closing the last handle of a mount only begins the unmount; what comes next must not meet its end.
        let closed =
            device.wait_until_unused().with_context(|| format!("closing the filesystem of '{volume}'"));
        edited?;
        synced?;
        closed?;
        // Where the file is the filesystem, programs work on the file: others may look at a free device at any moment.
        let is_whole = volume.offset == 0 && volume.len.is_none();
        let held = if is_whole { None } else { Some(device) };
        let device = held.as_ref().map_or(volume.file.as_os_str(), |device| device.path().as_os_str());
        if !grown {
            // -f: it would ask for a check first, but the kernel has just replayed the journal and unmounted it clean.
            self.run(&Program::new("resize2fs").arg("-f").arg(device))?;
        }
        if let (Some(uuid), false) = (wanted, set_while_mounted) {
            let uuid = uuid_text(&uuid);
            if found.kind == FilesystemKind::Ext4 {
                // Where checksums hang on the UUID (no metadata_csum_seed), all are made anew, and tune2fs(8) insists on a
                // filesystem that was checked since it was mounted.
                let check = Program::new("e2fsck").arg("-fp").arg(device);
                let ran = self.run_any(&check)?;
                // 1: errors were corrected (e2fsck(8)).
                anyhow::ensure!(ran.status <= 1, "'{}' found damage:\n{}", check.typed(), ran.text());
            }
            let undo = undo::file(volume)?;
            self.run(&match found.kind {
                // Mounted, it is done only since Linux 6.0, and only where no checksum hangs on it. Cut short between two of
                // them it would leave a filesystem that nobody can open.
                FilesystemKind::Ext4 => {
                    Program::new("tune2fs").arg("-z").arg(undo.as_os_str()).arg("-U").arg(uuid).arg(device)
                }
                FilesystemKind::Xfs => Program::new("xfs_admin").arg("-U").arg(uuid).arg(device),
                // -M changes one block where -U would write every block of the filesystem anew (btrfstune(8)).
                FilesystemKind::Btrfs => Program::new("btrfstune").arg("-f").arg("-M").arg(uuid).arg(device),
            })?;
            if found.kind == FilesystemKind::Ext4 {
                undo::remove(&undo)?;
            }
        }
        Ok(())
    }

    fn look_at_volume(
        &self,
        volume: &Volume,
        look: &mut dyn FnMut(&Root, Superblock) -> Result<()>,
    ) -> Result<()> {
        undo::undo(self, volume)?;
        let found = superblock::expect(&volume.file, volume.offset)?;
        let mounted = mount(volume, found.kind, Access::Look);
        let (root, device) = mounted.with_context(|| format!("opening the filesystem of '{volume}'"))?;
        let looked = look(&root, found);
        drop(root);
        let closed = device.wait_until_unused();
        looked?;
        closed.with_context(|| format!("closing the filesystem of '{volume}'"))
    }

    fn make_volume(
        &self,
        volume: &Volume,
        new: &NewFilesystem,
        finish: Finish,
        work: &mut Work<'_>,
    ) -> Result<()> {
        newfs::make(self, volume, new, finish, work)
    }
}

/// How a filesystem that was just made is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountNew {
    /// Where the superblock is that ext4 is to go by, in KiB.
    pub(super) backup: Option<u64>,
    /// For reading alone.
    pub(super) read_only: bool,
}

/// Opens a filesystem whose kind is known because it was just made; what it stores is what is put into it.
pub(super) fn mount_new(volume: &Volume, kind: FilesystemKind, how: MountNew) -> Result<(Root, LoopDevice)> {
    let mut options = Vec::new();
    if let Some(block) = how.backup {
        options.push(("sb", Some(block.to_string())));
    }
    if !how.read_only {
        match kind {
            // What is half made is thrown away after a crash, and what is whole is waited for at the end: nothing in
            // between has to be in order.
            FilesystemKind::Ext4 => options.extend([("nobarrier", None), ("noauto_da_alloc", None)]),
            FilesystemKind::Btrfs => options.push(("nobarrier", None)),
            FilesystemKind::Xfs => {}
        }
    }
    mount_with(volume, kind, if how.read_only { Access::Look } else { Access::Change }, &options)
}

/// A UUID as people and programs write it (RFC 9562).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Mounts a guest's disk for a guest that shares the host's kernel: set-id programs and devices work as they would on a
/// disk of its own. The mount is attached nowhere yet, and vanishes with its last user.
pub fn mount_for_guest(disk: &Path) -> Result<std::os::fd::OwnedFd> {
    let kind = superblock::expect(disk, 0)?.kind;
    let device = LoopDevice::attach(&Volume::whole(disk), false)?;
    detached(&device, kind, Access::Change, MountAttrFlags::MOUNT_ATTR_RELATIME, &[])
}

/// Names and values of mount options.
type Options = [(&'static str, Option<String>)];

fn mount(volume: &Volume, kind: FilesystemKind, access: Access) -> Result<(Root, LoopDevice)> {
    mount_with(volume, kind, access, &[])
}

fn mount_with(
    volume: &Volume,
    kind: FilesystemKind,
    access: Access,
    options: &Options,
) -> Result<(Root, LoopDevice)> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    if access == Access::Look {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let device = LoopDevice::attach(volume, access == Access::Look)?;
    Ok((Root::from_fd(detached(&device, kind, access, attributes, options)?, &volume.file), device))
}

fn detached(
    device: &LoopDevice,
    kind: FilesystemKind,
    access: Access,
    attributes: MountAttrFlags,
    options: &Options,
) -> Result<std::os::fd::OwnedFd> {
    let context = rustix::mount::fsopen(kind.name(), FsOpenFlags::FSOPEN_CLOEXEC)
        .with_context(|| format!("this kernel cannot mount {}", kind.name()))?;
    rustix::mount::fsconfig_set_string(&context, "source", device.path())?;
    if kind == FilesystemKind::Ext4 {
        rustix::mount::fsconfig_set_string(&context, "errors", "remount-ro")?;
    }
    if kind == FilesystemKind::Xfs {
        // A clone is mounted beside what it was cloned from.
        rustix::mount::fsconfig_set_flag(&context, "nouuid")?;
    }
    if access == Access::Look {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
        match kind.without_replay() {
            (option, None) => rustix::mount::fsconfig_set_flag(&context, option)?,
            (option, Some(value)) => rustix::mount::fsconfig_set_string(&context, option, value)?,
        }
    }
    for (name, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *name, value.as_str())?,
            None => rustix::mount::fsconfig_set_flag(&context, *name)?,
        }
    }
    rustix::mount::fsconfig_create(&context).context("mounting it (is the filesystem damaged?)")?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Whether the filesystem now fills its disk. A kernel may refuse to grow a mounted one (it takes CAP_SYS_RESOURCE, which
/// containers lack); then it has to be done offline.
#[expect(unsafe_code, reason = "ext4 grows by ioctl")]
fn grow(root: &Root, volume: &Volume) -> Result<bool> {
    let what = || format!("growing the filesystem of '{volume}'");
    let len = match volume.len {
        Some(len) => len,
        None => std::fs::metadata(&volume.file).with_context(what)?.len(),
    };
    let dir = open_top(root).with_context(what)?;
    let vfs = rustix::fs::fstatvfs(&dir).with_context(what)?;
    let blocks = len / vfs.f_frsize;
    // f_blocks leaves the filesystem's own tables out, which are far below a sixteenth (ext4(5), statfs(2)).
    if vfs.f_blocks >= blocks - blocks / 16 {
        return Ok(true);
    }
    // SAFETY: the ioctl reads one 64-bit number that lives across the call.
    match unsafe { ioctl::ext4_resize(dir.as_raw_fd(), &raw const blocks) } {
        Ok(_) => Ok(true),
        Err(nix::Error::EPERM | nix::Error::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e).with_context(what),
    }
}

#[expect(unsafe_code, reason = "ext4 takes a new UUID by ioctl while mounted")]
fn set_uuid(root: &Root, uuid: [u8; 16]) -> bool {
    let request = FsUuid { header: FsUuidHeader { len: 16, flags: 0 }, uuid };
    let Ok(dir) = open_top(root) else { return false };
    // SAFETY: the kernel reads the header and `len` bytes behind it; the structure holds both and lives across the call.
    unsafe { ioctl::ext4_set_uuid(dir.as_raw_fd(), (&raw const request).cast()) }.is_ok()
}

/// Returns when all that was written to the filesystem is on stable storage.
pub fn sync(root: &Root) -> Result<()> {
    Ok(rustix::fs::syncfs(open_top(root)?)?)
}

fn open_top(root: &Root) -> Result<std::os::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root.as_fd(), ".", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::root::FileMode;

    fn disk(dir: &Path) -> Option<std::path::PathBuf> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: loop devices need root");
            return None;
        }
        let disk = dir.join("disk");
        std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let make = Program::new("mke2fs").args(["-q", "-t", "ext4", "-O", "metadata_csum_seed"]);
        Live.run(&make.arg(disk.as_os_str())).unwrap();
        Some(disk)
    }

    /// Whether the disk stays attached: another test that looks for a free device may hold ours open for a moment, and the
    /// kernel takes a device down only when its last user is gone.
    fn attached(disk: &Path) -> bool {
        let disk = disk.canonicalize().unwrap();
        let started = std::time::Instant::now();
        while is_backing(&disk) {
            if started.elapsed().as_secs() >= 90 {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        false
    }

    fn is_backing(disk: &Path) -> bool {
        std::fs::read_dir("/sys/block").unwrap().flatten().any(|entry| {
            let backing = entry.path().join("loop/backing_file");
            std::fs::read_to_string(backing).is_ok_and(|file| Path::new(file.trim()) == disk)
        })
    }

    #[test]
    fn an_edited_disk_has_its_uuid_its_size_and_its_files_and_no_loop_device_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = disk(dir.path()) else { return };
        std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(256 << 20).unwrap();
        let uuid = *b"0123456789abcdef";
        let shape = Shape { uuid: Some(uuid), grow: true };
        Live.edit_disk(&disk, shape, &mut |root, _| {
            root.write(Path::new("/etc/hostname"), b"ce\n", FileMode::KeepOr(0o644)).map(|_| ())
        })
        .unwrap();
        let mut bytes = 0;
        Live.edit_disk(&disk, shape, &mut |root, _| {
            let vfs = rustix::fs::fstatvfs(open_top(root)?)?;
            bytes = vfs.f_blocks * vfs.f_frsize;
            Ok(())
        })
        .unwrap();
        assert!(bytes > 200 << 20, "{bytes}");
        assert_eq!(superblock::expect(&disk, 0).unwrap().uuid, uuid);
        assert!(!attached(&disk));
        let check = Program::new("e2fsck").arg("-fn").arg(disk.as_os_str());
        assert_eq!(Live.run_any(&check).unwrap().status, 0);
        let read = Program::new("debugfs").arg("-R").arg("cat /etc/hostname").arg(disk.as_os_str());
        assert_eq!(Live.run(&read).unwrap().text(), "ce");
    }

    #[test]
    fn disks_edited_at_the_same_time_are_whole_the_moment_each_edit_returns() {
        let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        std::thread::scope(|scope| {
            for dir in &dirs {
                scope.spawn(|| {
                    let Some(disk) = disk(dir.path()) else { return };
                    for round in 1..6u8 {
                        let grown = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
                        grown.set_len((64 + 32 * u64::from(round)) << 20).unwrap();
                        let shape = Shape { uuid: Some([round; 16]), grow: true };
                        let file = Path::new("/file");
                        let edit = &mut |root: &Root, _: Superblock| {
                            root.write(file, &[round; 9], FileMode::KeepOr(0o644)).map(|_| ())
                        };
                        Live.edit_disk(&disk, shape, edit).unwrap();
                        let check = Program::new("e2fsck").arg("-fn").arg(disk.as_os_str());
                        let ran = Live.run_any(&check).unwrap();
                        assert_eq!(ran.status, 0, "{}", ran.text());
                    }
                });
            }
        });
    }

    #[test]
    fn an_edit_that_fails_leaves_the_disk_closed() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = disk(dir.path()) else { return };
        let failed = Live.edit_disk(&disk, Shape::default(), &mut |_, _| anyhow::bail!("on purpose"));
        assert_eq!(format!("{:#}", failed.unwrap_err()), "on purpose");
        assert!(!attached(&disk));
    }

    #[test]
    fn a_uuid_is_written_in_five_groups() {
        assert_eq!(uuid_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}

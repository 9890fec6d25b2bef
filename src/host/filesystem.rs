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
use super::programs::{Program, Programs};
use super::root::Root;

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
    /// Opens a raw ext4 disk image, gives it the shape asked for, and lets `edit` work in it. When this returns, all is
    /// written to the disk image and the filesystem is closed. Only for disks that no guest is running on.
    fn edit_disk(&self, disk: &Path, shape: Shape, edit: &mut dyn FnMut(&Root) -> Result<()>) -> Result<()>;
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

const EXT4_MAGIC_OFFSET: u64 = 1024 + 0x38;
const EXT4_UUID_OFFSET: u64 = 1024 + 0x68;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];

/// The UUID in an ext4 superblock; an error if the file holds no ext4 filesystem.
pub fn ext4_uuid(disk: &Path) -> Result<[u8; 16]> {
    use std::os::unix::fs::FileExt;
    let what = || format!("looking for an ext4 filesystem in '{}'", disk.display());
    let file = std::fs::File::open(disk).with_context(what)?;
    let (mut magic, mut uuid) = ([0u8; 2], [0u8; 16]);
    file.read_exact_at(&mut magic, EXT4_MAGIC_OFFSET).with_context(what)?;
    file.read_exact_at(&mut uuid, EXT4_UUID_OFFSET).with_context(what)?;
    if magic != EXT4_MAGIC {
        anyhow::bail!("{}: it has none", what());
    }
    Ok(uuid)
}

impl Filesystems for super::Live {
    fn edit_disk(&self, disk: &Path, shape: Shape, edit: &mut dyn FnMut(&Root) -> Result<()>) -> Result<()> {
        let what = || format!("opening the filesystem of '{}'", disk.display());
        let now = ext4_uuid(disk)?;
        let (root, device) = mount(disk).with_context(what)?;
        let grown = !shape.grow || grow(&root, disk)?;
        let wanted = shape.uuid.filter(|uuid| *uuid != now);
        let set_while_mounted = match wanted {
            Some(uuid) => set_uuid(&root, uuid),
            None => true,
        };
        let edited = edit(&root);
        let synced = sync(&root).with_context(|| format!("writing '{}' out", disk.display()));
        drop(root);
        // Closing the last handle of a mount only begins the unmount; what comes next must not meet its end.
        let closed = device
            .wait_until_unused()
            .with_context(|| format!("closing the filesystem of '{}'", disk.display()));
        drop(device);
        edited?;
        synced?;
        closed?;
        if !grown {
            // -f: it would ask for a check first, but the kernel has just replayed the journal and unmounted it clean.
            self.run(&Program::new("resize2fs").arg("-f").arg(disk.as_os_str()))?;
        }
        if let (Some(uuid), false) = (wanted, set_while_mounted) {
            // Kernels before 6.0 cannot do it on a mounted filesystem.
            let uuid = uuid_text(&uuid);
            self.run(&Program::new("tune2fs").arg("-U").arg(uuid).arg(disk.as_os_str()))?;
        }
        Ok(())
    }
}

/// A UUID as people and programs write it (RFC 9562).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Mounts a guest's disk for a guest that shares the host's kernel: set-id programs and devices work as they would on a
/// disk of its own. The mount is attached nowhere yet, and vanishes with its last user.
pub fn mount_for_guest(disk: &Path) -> Result<std::os::fd::OwnedFd> {
    ext4_uuid(disk)?;
    detached(&LoopDevice::attach(disk, false)?, MountAttrFlags::MOUNT_ATTR_RELATIME)
}

fn mount(disk: &Path) -> Result<(Root, LoopDevice)> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let device = LoopDevice::attach(disk, false)?;
    Ok((Root::from_fd(detached(&device, attributes)?, disk), device))
}

fn detached(device: &LoopDevice, attributes: MountAttrFlags) -> Result<std::os::fd::OwnedFd> {
    // The type is always named: guessing it would let a guest choose which of the kernel's parsers reads its disk.
    let context = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", device.path())?;
    rustix::mount::fsconfig_set_string(&context, "errors", "remount-ro")?;
    rustix::mount::fsconfig_create(&context).context("mounting it (is the filesystem damaged?)")?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Whether the filesystem now fills its disk. A kernel may refuse to grow a mounted one (it takes CAP_SYS_RESOURCE, which
/// containers lack); then it has to be done offline.
#[expect(unsafe_code, reason = "ext4 grows by ioctl")]
fn grow(root: &Root, disk: &Path) -> Result<bool> {
    let what = || format!("growing the filesystem of '{}'", disk.display());
    let len = std::fs::metadata(disk).with_context(what)?.len();
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

fn sync(root: &Root) -> Result<()> {
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
            if started.elapsed().as_secs() >= 5 {
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
        Live.edit_disk(&disk, shape, &mut |root| {
            root.write(Path::new("/etc/hostname"), b"ce\n", FileMode::KeepOr(0o644)).map(|_| ())
        })
        .unwrap();
        let mut bytes = 0;
        Live.edit_disk(&disk, shape, &mut |root| {
            let vfs = rustix::fs::fstatvfs(open_top(root)?)?;
            bytes = vfs.f_blocks * vfs.f_frsize;
            Ok(())
        })
        .unwrap();
        assert!(bytes > 200 << 20, "{bytes}");
        assert_eq!(ext4_uuid(&disk).unwrap(), uuid);
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
                        let edit = &mut |root: &Root| {
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
        let failed = Live.edit_disk(&disk, Shape::default(), &mut |_| anyhow::bail!("on purpose"));
        assert_eq!(format!("{:#}", failed.unwrap_err()), "on purpose");
        assert!(!attached(&disk));
    }

    #[test]
    fn a_file_without_a_filesystem_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("zeros");
        std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let error = format!("{:#}", ext4_uuid(&disk).unwrap_err());
        assert!(error.contains("zeros") && error.ends_with("it has none"), "{error}");
    }

    #[test]
    fn a_uuid_is_written_in_five_groups() {
        assert_eq!(uuid_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}

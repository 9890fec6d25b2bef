//! Loop devices that cannot leak: the kernel takes one down when its last user is gone (loop(4), autoclear).

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc;

use super::volume::Volume;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// An unmount writes what is still in memory; a slow disk takes its time.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(60);

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LOOP_MAJOR: u64 = 7;

// Named as in linux/loop.h.
mod ioctl {
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, super::LoopConfig);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
}

/// A file that is a block device as long as this, or a mount of it, lives.
#[derive(Debug)]
pub struct LoopDevice {
    _device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a file, or a part of it. Another process may take the free device first; then the next one is tried.
    #[expect(unsafe_code, reason = "loop devices are set up by ioctl")]
    pub fn attach(volume: &Volume, read_only: bool) -> Result<Self> {
        let what = || format!("making a block device of '{volume}'");
        let backing =
            OpenOptions::new().read(true).write(!read_only).open(&volume.file).with_context(what)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
        let control =
            control.context("opening '/dev/loop-control' (is the loop module there?)").with_context(what)?;
        for _ in 0..64 {
            // SAFETY: the ioctl takes no argument.
            let number = unsafe { ioctl::loop_ctl_get_free(control.as_raw_fd()) }.with_context(what)?;
            let (device, path) = open_device(number as u64).with_context(what)?;
            let mut flags = LO_FLAGS_AUTOCLEAR;
            if read_only {
                flags |= LO_FLAGS_READ_ONLY;
            }
            // SAFETY: both structures are plain numbers, for which all zeros is a value.
            let mut config: LoopConfig = unsafe { std::mem::zeroed() };
            config.fd = backing.as_raw_fd() as u32;
            config.info.flags = flags;
            config.info.offset = volume.offset;
            config.info.size_limit = volume.len.unwrap_or(0);
            // SAFETY: the structure has the kernel's layout and lives across the call.
            match unsafe { ioctl::loop_configure(device.as_raw_fd(), &raw const config) } {
                Ok(_) => return Ok(Self { _device: device, path }),
                Err(nix::Error::EBUSY) => {}
                Err(e) => return Err(e).with_context(what),
            }
        }
        bail!("{}: every loop device was taken by others before we had it", what())
    }

    /// Waits until no filesystem uses the device any more (open(2): O_EXCL on a block device that is mounted fails with
    /// EBUSY). By then all that the filesystem had to write has been handed to the file.
    pub fn wait_until_unused(&self) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let started = Instant::now();
        loop {
            match OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&self.path) {
                Ok(_) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < UNMOUNT_LIMIT => {
                    // The kernel tells nobody when an unmount has ended.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => return Err(e).with_context(|| format!("waiting for '{}'", self.path.display())),
            }
        }
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// In a container the kernel may give out a device whose node is not there; then a node is made.
fn open_device(number: u64) -> Result<(File, PathBuf)> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let device = match open() {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            let made =
                mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, makedev(LOOP_MAJOR, number));
            match made {
                // Somebody else was given the same device, and made its node first.
                Ok(()) | Err(nix::Error::EEXIST) => open(),
                Err(e) => return Err(e).with_context(|| format!("making '{}'", path.display())),
            }
        }
        other => other,
    };
    let device = device.with_context(|| format!("opening '{}'", path.display()))?;
    Ok((device, path))
}

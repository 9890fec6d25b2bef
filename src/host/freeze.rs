//! Holding the writers of a mounted filesystem (`FIFREEZE` and `FITHAW` of linux/fs.h, as fsfreeze(8) calls them).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags};

mod ioctl {
    nix::ioctl_readwrite!(freeze, b'X', 119, nix::libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, nix::libc::c_int);
}

/// Loop devices (Documentation/admin-guide/devices.txt in the kernel).
const LOOP_MAJOR: u32 = 7;

/// The filesystem of a disk image, mounted by loop device.
#[derive(Debug)]
pub struct Mounted {
    root: OwnedFd,
}

impl Mounted {
    /// The one at `dir` as a process sees it. It has to be that disk's: whatever else is mounted there is never held.
    pub fn of(pid: i32, dir: &Path, disk: &Path) -> Result<Self> {
        let path =
            Path::new("/proc").join(pid.to_string()).join("root").join(dir.strip_prefix("/").unwrap_or(dir));
        let what = || format!("looking for the filesystem of '{}' at '{}'", disk.display(), path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &path, flags, Mode::empty()).with_context(what)?;
        let device = rustix::fs::fstat(&root).with_context(what)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = format!("/sys/dev/block/{major}:{minor}/loop/backing_file");
        let backing = if major == LOOP_MAJOR {
            std::fs::read_to_string(file).unwrap_or_default()
        } else {
            String::new()
        };
        let same = |backing: &Path| -> std::io::Result<bool> {
            let (one, other) = (backing.metadata()?, disk.metadata()?);
            Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
        };
        if !same(Path::new(backing.trim_end_matches('\n'))).unwrap_or(false) {
            bail!("{}: it is another one", what());
        }
        Ok(Self { root })
    }

    /// Writes out what is dirty, and returns when that is done; writers go on.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root).context("writing a filesystem out")
    }

    /// Writes everything out, and holds whoever writes from now on. Held already is an error.
    pub fn freeze(&self) -> Result<()> {
        let mut none = 0;
        // SAFETY: the kernel takes no notice of the argument.
        #[expect(unsafe_code, reason = "an ioctl that no crate has")]
        let done = unsafe { ioctl::freeze(self.root.as_raw_fd(), &raw mut none) };
        done.map(drop).context("holding the writers of a filesystem")
    }

    /// Lets them go on. Not held is fine.
    pub fn thaw(&self) -> Result<()> {
        let mut none = 0;
        // SAFETY: the kernel takes no notice of the argument.
        #[expect(unsafe_code, reason = "an ioctl that no crate has")]
        let done = unsafe { ioctl::thaw(self.root.as_raw_fd(), &raw mut none) };
        match done {
            // Not frozen (ioctl_fifreeze of fs/ioctl.c).
            Ok(_) | Err(nix::Error::EINVAL) => Ok(()),
            Err(error) => Err(error).context("letting the writers of a filesystem go on"),
        }
    }
}

/// Whether the filesystem that a directory is on shares blocks between files (ioctl_ficlone(2)), tried with two files without
/// a name.
pub fn shares_blocks(dir: &Path) -> Result<bool> {
    let what = || format!("trying to share blocks in '{}'", dir.display());
    let nameless = || -> Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR).with_context(what)?.into())
    };
    let (from, to) = (nameless()?, nameless()?);
    rustix::io::pwrite(&from, &[1; 4096], 0).with_context(what)?;
    Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_disks_own_filesystem_is_never_held() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        std::fs::write(&disk, "x").unwrap();
        let error = Mounted::of(std::process::id().cast_signed(), dir.path(), &disk).unwrap_err();
        assert!(error.to_string().ends_with("it is another one"), "{error}");
    }
}

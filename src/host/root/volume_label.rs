//! The filesystem's own label, where the root is one that gridgate has mounted.

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use super::{Change, Root};

/// `FSLABEL_MAX` of linux/fs.h, the zero at the end included.
const LABEL_MAX: usize = 256;

mod ioctl {
    nix::ioctl_read!(get_label, 0x94, 49, [u8; super::LABEL_MAX]);
    nix::ioctl_write_ptr!(set_label, 0x94, 50, [u8; super::LABEL_MAX]);
}

impl Root {
    /// The label; `None` if it has none, if the root is a directory of some other filesystem, or if the kernel does not tell (ext4
    /// does since 5.17).
    #[expect(unsafe_code, reason = "the label is had by ioctl alone")]
    pub fn volume_label(&self) -> Result<Option<String>> {
        if !self.is_volume {
            return Ok(None);
        }
        let top = self.top()?;
        let mut label = [0u8; LABEL_MAX];
        // SAFETY: the kernel writes LABEL_MAX bytes at most, and as many are there.
        match unsafe { ioctl::get_label(top.as_raw_fd(), &mut label) } {
            Ok(_) => {}
            Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e).with_context(|| self.what("looking at the label of", "/".as_ref())),
        }
        let text = label.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty()))
    }

    /// Gives the filesystem that label; one that is too long for its kind is an error (16 bytes for ext4, 12 for XFS, 255 for
    /// Btrfs).
    #[expect(unsafe_code, reason = "the label is set by ioctl alone")]
    pub fn set_volume_label(&self, label: &str) -> Result<Change> {
        let what = || format!("labelling the filesystem of '{}' as '{label}'", self.label.display());
        anyhow::ensure!(self.is_volume && label.len() < LABEL_MAX, "{}: it cannot be done", what());
        if self.volume_label()?.as_deref() == Some(label) {
            return Ok(Change::Same);
        }
        let mut bytes = [0u8; LABEL_MAX];
        bytes[..label.len()].copy_from_slice(label.as_bytes());
        let top = self.top().with_context(what)?;
        // SAFETY: the kernel reads LABEL_MAX bytes, and as many are there, the last one zero.
        unsafe { ioctl::set_label(top.as_raw_fd(), &bytes) }.with_context(what)?;
        Ok(Change::Changed)
    }

    fn top(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?))
    }
}

//! A whole disk that a machine is made on: a block device, or a file that is to be one's content.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::target::{self, Claim, Target};
use crate::names::Bytes;
use crate::progress::Progress;

/// What partition tables, boot loaders and this program count in.
pub const SECTOR: u64 = 512;

/// How much is copied or cleared between two looks at progress and Ctrl-C.
const CHUNK: u64 = 16 << 20;

// BLKSSZGET, BLKGETSIZE64 and BLKRRPART of linux/fs.h.
mod ioctl {
    nix::ioctl_read_bad!(block_sector, 0x1268, nix::libc::c_int);
    nix::ioctl_read!(block_bytes, 0x12, 114, u64);
    nix::ioctl_none_bad!(block_reread, 0x125F);
}

/// See the module. As long as it is open nobody else may write to it.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    len: u64,
    is_device: bool,
    _claim: Option<Claim>,
}

impl Disk {
    /// Makes a file of that length, all of it a hole, private to its owner. A name that is taken is an error.
    pub fn create(path: &Path, len: u64) -> Result<Self> {
        let what = || format!("making '{}'", path.display());
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).mode(0o600).open(path).with_context(what)?;
        file.set_len(len).with_context(what)?;
        lock(&file, path)?;
        Ok(Self { file, path: path.to_owned(), len, is_device: false, _claim: None })
    }

    /// Opens a device or file for itself alone. One that somebody uses is [`Refused`](super::refused::Refused), and so is a device whose sectors
    /// have not 512 bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("opening '{}'", path.display());
        let is_device = matches!(Target::at(path)?, Target::Device { .. });
        let claim = match is_device {
            true => Some(target::claim(path)?),
            false => {
                target::unused_file(path)?;
                None
            }
        };
        let file = OpenOptions::new().read(true).write(true).open(path).with_context(what)?;
        lock(&file, path)?;
        let len = match is_device {
            true => device_len(&file).with_context(what)?,
            false => file.metadata().with_context(what)?.len(),
        };
        Ok(Self { file, path: path.to_owned(), len, is_device, _claim: claim })
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads from there.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.with_context(|| format!("reading '{}' at {at}", self.path.display()))?;
        Ok(bytes)
    }

    /// Writes there.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).with_context(|| self.writing(at))
    }

    /// Makes that part read as zeros.
    pub fn clear(&self, at: u64, len: u64) -> Result<()> {
        let mut done = 0;
        while done < len {
            if crate::progress::interrupted() {
                bail!("interrupted");
            }
            let part = (len - done).min(64 * CHUNK);
            self.clear_part(at + done, part).with_context(|| self.writing(at + done))?;
            done += part;
        }
        Ok(())
    }

    fn clear_part(&self, at: u64, len: u64) -> Result<()> {
        // Of a device the kernel has the hardware do it where it can, and writes zeros elsewhere (blkdev_fallocate of block/fops.c).
        let flags = match self.is_device {
            true => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            false => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        match rustix::fs::fallocate(&self.file, flags, at, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let zeros = vec![0; (1 << 20).min(len as usize)];
                let mut done = 0;
                while done < len {
                    let part = (len - done).min(zeros.len() as u64);
                    self.file.write_all_at(&zeros[..part as usize], at + done)?;
                    done += part;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Puts all of a sparse file there. What is a hole in the file reads as zeros here, whatever was there before: in a
    /// filesystem's image a hole is a table of zeros as often as it is free space.
    pub fn put(&self, image: &File, at: u64, progress: &Progress, what: &str) -> Result<()> {
        let len = image.metadata()?.len();
        if at + len > self.len {
            bail!("{what} with {} does not fit into '{}' at {at}", Bytes(len), self.path.display());
        }
        let meter = progress.meter(format!("writing {what}"), Some(len));
        let mut done = 0;
        while done < len {
            let start = match rustix::fs::seek(image, SeekFrom::Data(done)) {
                Ok(start) => start,
                Err(Errno::NXIO) => len,
                Err(e) => return Err(e).with_context(|| format!("reading {what}")),
            };
            if start > done {
                self.clear(at + done, start - done)?;
            }
            if start == len {
                break;
            }
            let end = rustix::fs::seek(image, SeekFrom::Hole(start))?.min(len);
            let mut from = start;
            while from < end {
                if crate::progress::interrupted() {
                    bail!("interrupted");
                }
                let wanted = (end - from).min(CHUNK) as usize;
                from += self.copy(image, from, at + from, wanted).with_context(|| self.writing(at + from))?;
                meter.set(from);
            }
            done = end;
        }
        Ok(())
    }

    fn copy(&self, image: &File, from: u64, to: u64, wanted: usize) -> Result<u64> {
        let (mut source, mut target) = (from, to);
        let copied =
            rustix::fs::copy_file_range(image, Some(&mut source), &self.file, Some(&mut target), wanted);
        match copied {
            Ok(0) => bail!("the image became shorter while it was read"),
            Ok(copied) => Ok(copied as u64),
            // Another kind of filesystem, or a device (copy_file_range(2)).
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let mut bytes = vec![0; wanted.min(1 << 20)];
                image.read_exact_at(&mut bytes, from)?;
                self.file.write_all_at(&bytes, to)?;
                Ok(bytes.len() as u64)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Returns when all that was written is on stable storage.
    pub fn sync(&self) -> Result<()> {
        let synced = self.file.sync_all();
        synced.with_context(|| format!("writing '{}' to stable storage", self.path.display()))
    }

    /// Has the kernel look at the partition table anew. That it will not is no failure: what is on the disk counts.
    #[expect(unsafe_code, reason = "the kernel is asked by ioctl")]
    pub fn reread_table(&self) {
        if self.is_device {
            // SAFETY: the ioctl takes no argument.
            let _ = unsafe { ioctl::block_reread(self.file.as_raw_fd()) };
        }
    }

    fn writing(&self, at: u64) -> String {
        format!("writing to '{}' at {at}", self.path.display())
    }
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => bail!("'{}' is in use by another command", path.display()),
        Err(e) => Err(e).with_context(|| format!("locking '{}'", path.display())),
    }
}

#[expect(unsafe_code, reason = "a device's size is asked for by ioctl")]
fn device_len(file: &File) -> Result<u64> {
    let (mut sector, mut bytes): (nix::libc::c_int, u64) = (0, 0);
    // SAFETY: each call writes one number that lives across it.
    unsafe {
        ioctl::block_sector(file.as_raw_fd(), &raw mut sector)?;
        ioctl::block_bytes(file.as_raw_fd(), &raw mut bytes)?;
    }
    if sector as u64 != SECTOR {
        bail!("its sectors have {sector} bytes; only disks with sectors of {SECTOR} bytes are written");
    }
    Ok(bytes)
}

/// What is open here, as a path that programs started by this process can use too (proc_pid_fd(5)).
pub fn held(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_hole_in_an_image_reads_as_zeros_on_a_used_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::create(&dir.path().join("disk"), 4 << 20).unwrap();
        disk.write(0, &vec![7; 4 << 20]).unwrap();
        let image = super::super::nameless::Nameless::of_length(2 << 20).unwrap();
        image.file().write_all_at(b"data", 1 << 20).unwrap();
        disk.put(image.file(), 1 << 20, &Progress::silent(), "it").unwrap();
        assert_eq!(disk.read((1 << 20) - 1, 2).unwrap(), [7, 0]);
        assert_eq!(disk.read(2 << 20, 5).unwrap(), b"data\0");
        assert_eq!(disk.read((3 << 20) - 1, 2).unwrap(), [0, 7]);
        assert!(disk.put(image.file(), 3 << 20, &Progress::silent(), "it").is_err());
    }

    #[test]
    fn a_disk_is_written_by_one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let _first = Disk::create(&path, 1 << 20).unwrap();
        assert!(Disk::create(&path, 1 << 20).is_err());
        let error = Disk::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("'{}' is in use", path.display())), "{error}");
    }
}

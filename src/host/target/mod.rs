//! What a restore is to be written to, and whether that may be: who uses it, and what is on it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::libc;

use super::programs::{Program, Programs};
use super::refused::Refused;

mod users;

/// What is at the path of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing yet.
    Nothing,
    /// A regular file.
    File {
        /// Its length.
        len: u64,
    },
    /// A disk, or a partition of one.
    Device {
        /// Its length.
        len: u64,
    },
    /// A directory.
    Directory {
        /// Whether something is in it.
        empty: bool,
    },
}

fn refused(why: String) -> anyhow::Error {
    anyhow::Error::new(Refused(why))
}

impl Target {
    /// Looks; links are followed, as people name disks by them (`/dev/disk/by-id/...`).
    pub fn at(path: &Path) -> Result<Self> {
        let what = || format!("looking at '{}'", path.display());
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(refused(format!("'{}' is a link that leads nowhere", path.display())));
                }
                return Ok(Self::Nothing);
            }
            Err(e) => return Err(e).with_context(what),
        };
        let kind = meta.file_type();
        if kind.is_block_device() {
            return Ok(Self::Device { len: size_of(&meta).with_context(what)? });
        }
        if kind.is_dir() {
            return Ok(Self::Directory { empty: fs::read_dir(path).with_context(what)?.next().is_none() });
        }
        if kind.is_file() {
            return Ok(Self::File { len: meta.len() });
        }
        Err(refused(format!("'{}' is neither a file, nor a directory, nor a block device", path.display())))
    }
}

/// Sectors of 512 bytes, whatever the disk's own are (`Documentation/ABI/stable/sysfs-block`).
fn size_of(meta: &fs::Metadata) -> Result<u64> {
    let at = sys(meta).join("size");
    let text = fs::read_to_string(&at).with_context(|| format!("reading '{}'", at.display()))?;
    let sectors: u64 = text.trim().parse().with_context(|| format!("reading '{}'", at.display()))?;
    sectors.checked_mul(512).context("a disk beyond all disks")
}

fn sys(meta: &fs::Metadata) -> PathBuf {
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// A device that nobody else uses, and that nobody else can mount or take into use as long as this lives (open(2), `O_EXCL`).
#[derive(Debug)]
pub struct Claim {
    _device: File,
}

/// A device manager opens every new or changed device for a moment.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Takes a device, or says who has it.
pub fn claim(device: &Path) -> Result<Claim> {
    let meta = fs::metadata(device).with_context(|| format!("looking at '{}'", device.display()))?;
    if fs::read_to_string(sys(&meta).join("ro")).is_ok_and(|text| text.trim() == "1") {
        return Err(refused(format!("'{}' is read-only", device.display())));
    }
    let mut looks = LOOKS;
    loop {
        let users = users::of_device(&meta, &sys(&meta))?;
        if users.is_empty() {
            break;
        }
        looks -= 1;
        if looks == 0 || !users.iter().all(|user| user.ends_with(users::OPEN)) {
            return Err(in_use(device, &users));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    match OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(device) {
        Ok(device) => Ok(Claim { _device: device }),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            Err(in_use(device, &["the kernel, or a process that has it for itself".to_owned()]))
        }
        Err(e) => Err(e).with_context(|| format!("opening '{}'", device.display())),
    }
}

/// Refuses a file that is a disk of something that runs: it would go on with what is replaced here.
pub fn unused_file(file: &Path) -> Result<()> {
    let users = users::of_file(file)?;
    if users.is_empty() { Ok(()) } else { Err(in_use(file, &users)) }
}

/// As [`unused_file`], of a file or device that is only going to be read.
pub fn unused(path: &Path) -> Result<()> {
    let meta = fs::metadata(path).with_context(|| format!("looking at '{}'", path.display()))?;
    if !std::os::unix::fs::FileTypeExt::is_block_device(&meta.file_type()) {
        return unused_file(path);
    }
    let users = users::of_device(&meta, &sys(&meta))?;
    if users.is_empty() { Ok(()) } else { Err(in_use(path, &users)) }
}

fn in_use(path: &Path, users: &[String]) -> anyhow::Error {
    refused(format!("'{}' is in use: {}", path.display(), users.join("; ")))
}

/// What is on it, in words; `None` if nothing that anybody knows is.
pub fn content(host: &dyn Programs, path: &Path) -> Result<Option<String>> {
    let probe = Program::new("blkid").args(["-p", "-o", "export"]).arg(path.as_os_str());
    let ran = host.run_any(&probe)?;
    match ran.status {
        0 => Ok(described(&ran.text())),
        2 => Ok(None),
        // Marks of several things (blkid(8)).
        8 => Ok(Some("marks of several filesystems or tables".to_owned())),
        status => bail!(
            "'{}' ended with status {status}: {}",
            probe.typed(),
            String::from_utf8_lossy(&ran.stderr).trim()
        ),
    }
}

fn described(export: &str) -> Option<String> {
    let value = |key: &str| {
        export.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    };
    match (value("TYPE"), value("PTTYPE")) {
        (Some(kind), _) => Some(match value("LABEL") {
            Some(label) => format!("a filesystem or the like ({kind}, '{label}')"),
            None => format!("a filesystem or the like ({kind})"),
        }),
        (None, Some(table)) => Some(format!("a partition table ({table})")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;

//! The block device that a file is on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A block device, as control groups name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its driver.
    pub major: u32,
    /// Its number there.
    pub minor: u32,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

const SYS: &str = "/sys/dev/block";

/// The whole disk below a file (or below a block device): partitions have no limits of their own. What is mapped to one
/// single device, as by LVM or LUKS, is followed down to it, as systemd does it. An error for filesystems that are on no
/// device, or on several.
pub fn below(path: &Path) -> Result<Device> {
    let meta = fs::metadata(path).with_context(|| format!("looking at '{}'", path.display()))?;
    let number = if meta.rdev() != 0 { meta.rdev() } else { meta.dev() };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    if major == 0 {
        bail!(
            "'{}' is on a filesystem without a single disk below it (btrfs, overlayfs, tmpfs, ...)",
            path.display()
        );
    }
    whole(Path::new(SYS), Device { major, minor })
}

/// The device that is mounted there, as a process sees it.
pub fn mounted(pid: i32, mount: &Path) -> Option<Device> {
    of_mount(&fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?, mount)
}

/// Fields 3 and 5 of proc_pid_mountinfo(5); the last mount is the one on top.
fn of_mount(mountinfo: &str, mount: &Path) -> Option<Device> {
    let mut found = None;
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').take(5).collect();
        if let [_, _, device, _, at] = fields.as_slice()
            && Path::new(at) == mount
        {
            found = parse(device).filter(|device| device.major != 0);
        }
    }
    found
}

fn parse(text: &str) -> Option<Device> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn whole(sys: &Path, device: Device) -> Result<Device> {
    /// Mappings upon mappings; nobody has so many.
    const DEPTH: usize = 16;
    let what = || format!("looking for the disk below device {device}");
    let mut at = fs::canonicalize(sys.join(device.to_string())).with_context(what)?;
    for _ in 0..DEPTH {
        if at.join("partition").exists() {
            at = at.parent().map(PathBuf::from).with_context(what)?;
        }
        let slaves: Vec<PathBuf> = fs::read_dir(at.join("slaves"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        match slaves.as_slice() {
            [one] => at = fs::canonicalize(one).with_context(what)?,
            _ => break,
        }
    }
    let text = fs::read_to_string(at.join("dev")).with_context(what)?;
    parse(&text).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_partition_and_a_mapping_lead_to_their_disk() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let make = |path: &str, dev: &str| {
            fs::create_dir_all(sys.join(path).join("slaves")).unwrap();
            fs::write(sys.join(path).join("dev"), format!("{dev}\n")).unwrap();
            symlink(path, sys.join(dev)).unwrap();
        };
        make("vda", "254:0");
        make("vda/vda2", "254:2");
        fs::write(sys.join("vda/vda2/partition"), "2\n").unwrap();
        make("dm-0", "253:0");
        symlink("../../vda/vda2", sys.join("dm-0/slaves/vda2")).unwrap();
        for (major, minor) in [(254, 0), (254, 2), (253, 0)] {
            let found = whole(sys, Device { major, minor }).unwrap();
            assert_eq!(found.to_string(), "254:0");
        }
        assert!(whole(sys, Device { major: 9, minor: 9 }).is_err());
    }

    #[test]
    fn the_device_of_a_mount_is_the_one_on_top() {
        let text = "1 2 7:3 / /run/g/ce/root rw - ext4 /dev/loop3 rw\n4 2 7:5 / /run/g/ce/root rw - ext4 /dev/loop5 rw\n\
                    9 2 0:5 / /dev rw - tmpfs tmpfs rw\n";
        let found = |mount: &str| of_mount(text, Path::new(mount)).map(|device| device.to_string());
        assert_eq!(found("/run/g/ce/root").as_deref(), Some("7:5"));
        assert_eq!((found("/dev"), found("/nowhere")), (None, None));
    }

    proptest! {
        #[test]
        fn any_mountinfo_is_read(text in "([ -~]{0,40}\n){0,4}") {
            let _ = of_mount(&text, Path::new("/"));
        }
    }

    #[test]
    fn a_file_in_memory_is_on_no_disk() {
        let error = format!("{:#}", below(Path::new("/proc/self/stat")).unwrap_err());
        assert!(error.contains("without a single disk"), "{error}");
    }
}

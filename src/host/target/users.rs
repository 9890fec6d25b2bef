//! Who uses a disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// How a user ends that merely has it open.
pub(super) const OPEN: &str = "has it open";

/// Each user of a device or of a partition of it, in words.
pub(super) fn of_device(meta: &fs::Metadata, sys: &Path) -> Result<Vec<String>> {
    let what = || format!("looking at '{}'", sys.display());
    let mut users = BTreeSet::new();
    let mut numbers = vec![meta.rdev()];
    let mut at = vec![fs::canonicalize(sys).with_context(what)?];
    // A partition is a directory of its disk's.
    for entry in fs::read_dir(&at[0]).with_context(what)?.flatten() {
        if entry.path().join("partition").exists() {
            at.push(entry.path());
            let text = fs::read_to_string(entry.path().join("dev")).with_context(what)?;
            numbers.extend(parse_device(&text));
        }
    }
    for dir in &at {
        for holder in fs::read_dir(dir.join("holders")).into_iter().flatten().flatten() {
            let name = holder.file_name().to_string_lossy().into_owned();
            let mapped = fs::read_to_string(format!("/sys/block/{name}/dm/name"));
            let mapped = mapped.map(|text| format!(" ('{}')", text.trim())).unwrap_or_default();
            users.insert(format!("it is part of {name}{mapped}"));
        }
    }
    for (process, text) in mount_tables() {
        for (device, source, place) in mounts(&text) {
            // Btrfs has a number of its own, and names its first device.
            let by_source =
                || fs::metadata(source).is_ok_and(|meta| meta.rdev() != 0 && numbers.contains(&meta.rdev()));
            if numbers.contains(&device) || (source.starts_with("/dev/") && by_source()) {
                users.insert(match process {
                    None => format!("it is mounted on '{place}'"),
                    Some(process) => {
                        format!("it is mounted on '{place}' in the mount namespace of process {process}")
                    }
                });
            }
        }
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    for swap in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if fs::metadata(swap).is_ok_and(|meta| numbers.contains(&meta.rdev())) {
            users.insert(format!("it is swap space ('{swap}')"));
        }
    }
    for backed in loops_on(&|file| file.rdev() != 0 && numbers.contains(&file.rdev())) {
        users.insert(backed);
    }
    openers(&mut users, &|file| {
        file.mode() & nix::libc::S_IFMT == nix::libc::S_IFBLK && numbers.contains(&file.rdev())
    });
    Ok(users.into_iter().collect())
}

/// Each user of a regular file.
pub(super) fn of_file(path: &Path) -> Result<Vec<String>> {
    let meta = fs::metadata(path).with_context(|| format!("looking at '{}'", path.display()))?;
    let same = |other: &fs::Metadata| (other.dev(), other.ino()) == (meta.dev(), meta.ino());
    let mut users: BTreeSet<String> = loops_on(&same).into_iter().collect();
    openers(&mut users, &same);
    Ok(users.into_iter().collect())
}

/// Mount tables of this process and, each once, of other mount namespaces with one process of it.
fn mount_tables() -> Vec<(Option<i32>, String)> {
    let mut seen = BTreeSet::new();
    let mut tables = Vec::new();
    let mut add = |process: Option<i32>| {
        let at = process.map_or_else(|| "/proc/self".to_owned(), |process| format!("/proc/{process}"));
        // A process may end meanwhile; then it uses nothing.
        let Ok(namespace) = fs::read_link(format!("{at}/ns/mnt")) else { return };
        if seen.insert(namespace)
            && let Ok(text) = fs::read_to_string(format!("{at}/mountinfo"))
        {
            tables.push((process, text));
        }
    };
    add(None);
    processes().into_iter().for_each(|process| add(Some(process)));
    tables
}

fn processes() -> Vec<i32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// Device number, source and place of each mount (proc_pid_mountinfo(5)).
fn mounts(text: &str) -> Vec<(u64, &str, &str)> {
    let parse = |line| -> Option<(u64, &str, &str)> {
        let (left, right): (&str, &str) = str::split_once(line, " - ")?;
        let mut left = left.split(' ');
        let (device, place) = (left.nth(2)?, left.nth(1)?);
        Some((parse_device(device)?, right.split(' ').nth(1)?, place))
    };
    text.lines().filter_map(parse).collect()
}

fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Loop devices whose file is one of those.
fn loops_on(is: &dyn Fn(&fs::Metadata) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        if fs::metadata(file.trim_end_matches('\n')).is_ok_and(|meta| is(&meta)) {
            found.push(format!("it is behind the loop device /dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// Processes other than this one that have it open.
fn openers(users: &mut BTreeSet<String>, is: &dyn Fn(&fs::Metadata) -> bool) {
    let this = std::process::id() as i32;
    for process in processes().into_iter().filter(|process| *process != this) {
        let fds = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        if fds.map(|fd| fd.path()).any(|fd| fs::metadata(fd).is_ok_and(|meta| is(&meta))) {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            users.insert(format!("process {process} ({}) {OPEN}", name.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mount_is_read_with_its_source_and_place() {
        let text =
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\nnonsense\n";
        assert_eq!(mounts(text), [(rustix::fs::makedev(98, 0), "/dev/root", "/mnt2")]);
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in "([ -~]{0,40}\n){0,4}") {
            let _ = mounts(&text);
        }
    }
}

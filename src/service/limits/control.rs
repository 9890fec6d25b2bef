//! Limits as settings of a control group, and what of them holds.

use std::path::Path;

use crate::config::limits::{Limit, Limits};
use crate::host::blockdev::Device;
use crate::host::cgroups::{SWAP, Setting};

/// The period of `cpu.max`, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
const MAX: &str = "max";

/// What is written into a guest's group; for its disk, on each of these devices.
pub fn settings(limits: &Limits, controllers: &[&str], devices: &[Device]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let plain = |value: Option<u64>| value.map_or(MAX.to_owned(), |value| value.to_string());
    if controllers.contains(&"cpu") {
        let quota = plain(limits.cpu_percent.map(|percent| percent * PERIOD_US / 100));
        settings.push(("cpu.max", format!("{quota} {PERIOD_US}")));
        settings.push(("cpu.weight", limits.cpu_weight.unwrap_or(100).to_string()));
    }
    if controllers.contains(&"memory") {
        settings.push(("memory.max", plain(limits.memory_bytes)));
        let swap = if limits.memory_bytes.is_some() { "0" } else { MAX };
        settings.push((SWAP, swap.to_owned()));
    }
    if controllers.contains(&"pids") {
        settings.push(("pids.max", plain(limits.pids)));
    }
    if controllers.contains(&"io") {
        settings.extend(devices.iter().map(|device| of_disk(limits, *device)));
    }
    settings
}

/// What is written for one device.
pub fn of_disk(limits: &Limits, device: Device) -> Setting {
    let word = |key: &str, value: Option<u64>| match value {
        Some(value) => format!(" {key}={value}"),
        None => format!(" {key}={MAX}"),
    };
    let words = [
        word("rbps", limits.disk_read_bytes),
        word("wbps", limits.disk_write_bytes),
        word("riops", limits.disk_read_ops),
        word("wiops", limits.disk_write_ops),
    ];
    ("io.max", format!("{device}{}", words.concat()))
}

/// The controller that holds a limit; none does for the network.
pub fn controller(limit: Limit) -> Option<&'static str> {
    match limit {
        Limit::Cpu | Limit::CpuWeight => Some("cpu"),
        Limit::Memory => Some("memory"),
        Limit::Pids => Some("pids"),
        Limit::DiskRead | Limit::DiskWrite | Limit::DiskReadOps | Limit::DiskWriteOps => Some("io"),
        Limit::NetIn | Limit::NetOut => None,
    }
}

/// What a group limits, by its own files; a file that is not there limits nothing.
pub fn found(group: &Path) -> Limits {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let mut limits = Limits {
        cpu_percent: quota(&read("cpu.max")),
        cpu_weight: read("cpu.weight").trim().parse().ok(),
        memory_bytes: read("memory.max").trim().parse().ok(),
        pids: read("pids.max").trim().parse().ok(),
        ..Limits::default()
    };
    for (key, value) in read("io.max").split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
        let limit = match key {
            "rbps" => Limit::DiskRead,
            "wbps" => Limit::DiskWrite,
            "riops" => Limit::DiskReadOps,
            "wiops" => Limit::DiskWriteOps,
            _ => continue,
        };
        // Of several disks any may be the one that counts.
        limits.set(limit, limits.get(limit).or(value.parse().ok()));
    }
    limits
}

/// Whether a group limits what goes to and from a device: one that it does not is not listed.
pub fn limits_device(group: &Path, device: Device) -> bool {
    let listed = std::fs::read_to_string(group.join("io.max")).unwrap_or_default();
    listed.lines().any(|line| line.split(' ').next() == Some(device.to_string().as_str()))
}

/// Memory of a group that nothing can be done about, in bytes: what is in files could be written back and forgotten.
pub fn held(group: &Path) -> Option<u64> {
    held_of(&std::fs::read_to_string(group.join("memory.stat")).ok()?)
}

fn held_of(stat: &str) -> Option<u64> {
    let value = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok())
    };
    // `kernel` is the sum of the kernel's own parts, from Linux 5.18 on.
    value("anon")?.checked_add(value("shmem")?)?.checked_add(value("kernel").unwrap_or(0))
}

fn quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(100)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_what_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            cpu_percent: Some(250),
            cpu_weight: Some(20),
            memory_bytes: Some(1 << 29),
            pids: Some(200),
            disk_write_bytes: Some(1 << 20),
            disk_read_ops: Some(10),
            ..Limits::default()
        };
        let devices = [Device { major: 254, minor: 0 }];
        for (file, value) in settings(&limits, &["cpu", "memory", "pids", "io"], &devices) {
            std::fs::write(dir.path().join(file), value + "\n").unwrap();
        }
        let io = std::fs::read_to_string(dir.path().join("io.max")).unwrap();
        assert_eq!(io, "254:0 rbps=max wbps=1048576 riops=10 wiops=max\n");
        assert_eq!(found(dir.path()), limits);
        let limited = |major, minor| limits_device(dir.path(), Device { major, minor });
        assert_eq!((limited(254, 0), limited(25, 0)), (true, false));
    }

    #[test]
    fn nothing_is_written_for_what_is_not_there() {
        let limits = Limits { disk_read_ops: Some(5), ..Limits::default() };
        assert_eq!(settings(&limits, &["io"], &[]), []);
        assert_eq!(settings(&limits, &["pids"], &[]), [("pids.max", "max".to_owned())]);
    }

    #[test]
    fn memory_that_is_held_is_all_but_what_files_have() {
        assert_eq!(held_of("anon 100\nfile 5000\nkernel 7\nkernel_stack 3\nshmem 20\n"), Some(127));
        assert_eq!(held_of("anon 100\nshmem 20\n"), Some(120));
        assert_eq!(held_of(""), None);
    }

    proptest! {
        #[test]
        fn any_account_of_memory_is_read_or_refused(text in "((anon|shmem|kernel) ?[0-9a-f]{0,22}\n){0,4}") {
            let _ = held_of(&text);
        }

        #[test]
        fn any_quota_is_read_or_refused(text in "[0-9a-z ]{0,30}") {
            let _ = quota(&text);
        }
    }
}

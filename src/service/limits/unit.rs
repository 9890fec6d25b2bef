//! Limits as settings of a guest's unit (systemd.resource-control(5)).

use std::path::Path;

use crate::config::limits::{Limit, Limits};

/// Limits that systemd looks after; the network's are those of the port.
const OF_UNIT: [Limit; 8] = [
    Limit::Cpu,
    Limit::CpuWeight,
    Limit::Memory,
    Limit::Pids,
    Limit::DiskRead,
    Limit::DiskWrite,
    Limit::DiskReadOps,
    Limit::DiskWriteOps,
];

/// The lines of the `[Service]` section that limit a guest's unit; none where nothing is limited. `disk` is where the guest's
/// disk is: systemd finds the device below it when the unit is started, so that it need not be there yet.
pub fn unit_lines(limits: &Limits, disk: &Path) -> Vec<String> {
    let lines = OF_UNIT.into_iter().filter_map(|limit| Some((limit, limits.get(limit)?)));
    lines.flat_map(|(limit, value)| settings(limit, Some(value), &in_unit(disk))).collect()
}

/// All settings of a running unit, for `systemctl set-property`: what is not limited is given back.
pub fn properties(limits: &Limits, disk: &Path) -> Vec<String> {
    let disk = disk.to_string_lossy();
    OF_UNIT.into_iter().flat_map(|limit| settings(limit, limits.get(limit), &disk)).collect()
}

fn settings(limit: Limit, value: Option<u64>, disk: &str) -> Vec<String> {
    let of_disk = |key: &str| match value {
        Some(value) => vec![format!("{key}={disk} {value}")],
        None => vec![format!("{key}=")],
    };
    let plain = |value: Option<u64>| value.map_or("infinity".to_owned(), |value| value.to_string());
    match limit {
        Limit::Cpu => vec![format!("CPUQuota={}", value.map(|v| format!("{v}%")).unwrap_or_default())],
        Limit::CpuWeight => vec![format!("CPUWeight={}", value.map(|v| v.to_string()).unwrap_or_default())],
        Limit::Memory => {
            // What does not fit is not to go to the swap instead.
            let swap = if value.is_some() { "0" } else { "infinity" };
            vec![format!("MemoryMax={}", plain(value)), format!("MemorySwapMax={swap}")]
        }
        Limit::Pids => vec![format!("TasksMax={}", plain(value))],
        Limit::DiskRead => of_disk("IOReadBandwidthMax"),
        Limit::DiskWrite => of_disk("IOWriteBandwidthMax"),
        Limit::DiskReadOps => of_disk("IOReadIOPSMax"),
        Limit::DiskWriteOps => of_disk("IOWriteIOPSMax"),
        Limit::NetIn | Limit::NetOut => Vec::new(),
    }
}

/// A path as one word of a unit's file, specifiers left alone (systemd.syntax(7), systemd.unit(5)).
fn in_unit(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%");
    if text.chars().any(|c| c.is_whitespace() || "\"'\\".contains(c)) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Limits {
        Limits {
            cpu_percent: Some(150),
            cpu_weight: Some(20),
            memory_bytes: Some(512 << 20),
            pids: Some(200),
            disk_read_bytes: Some(10 << 20),
            disk_write_bytes: Some(5 << 20),
            disk_read_ops: Some(100),
            disk_write_ops: Some(50),
            net_in_bytes: Some(1 << 20),
            net_out_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn every_limit_becomes_its_line() {
        assert_eq!(
            unit_lines(&all(), Path::new("/s/guests/ce/disk")),
            [
                "CPUQuota=150%",
                "CPUWeight=20",
                "MemoryMax=536870912",
                "MemorySwapMax=0",
                "TasksMax=200",
                "IOReadBandwidthMax=/s/guests/ce/disk 10485760",
                "IOWriteBandwidthMax=/s/guests/ce/disk 5242880",
                "IOReadIOPSMax=/s/guests/ce/disk 100",
                "IOWriteIOPSMax=/s/guests/ce/disk 50",
            ]
        );
        assert!(unit_lines(&Limits::default(), Path::new("/s")).is_empty());
    }

    #[test]
    fn what_is_not_limited_any_more_is_given_back() {
        assert_eq!(
            properties(&Limits::default(), Path::new("/s")),
            [
                "CPUQuota=",
                "CPUWeight=",
                "MemoryMax=infinity",
                "MemorySwapMax=infinity",
                "TasksMax=infinity",
                "IOReadBandwidthMax=",
                "IOWriteBandwidthMax=",
                "IOReadIOPSMax=",
                "IOWriteIOPSMax="
            ]
        );
    }

    #[test]
    fn an_odd_path_stays_one_word_without_specifiers() {
        assert_eq!(in_unit(Path::new("/a b/%i\"c")), "\"/a b/%%i\\\"c\"");
        assert_eq!(in_unit(Path::new("/var/lib/gridgate")), "/var/lib/gridgate");
    }
}

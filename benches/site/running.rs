//! When hypervisors run, whoever started them, seen from outside.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::table::millis;

/// Longer than any start takes.
const LIMIT: Duration = Duration::from_secs(60);

/// How many guests run on this kernel: user-mode Linux has processes of the same program below its first one.
pub fn hypervisors(kernel: &Path) -> usize {
    let file_of = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted = file_of(kernel);
    let runs_it = |pid: u32| file_of(Path::new(&format!("/proc/{pid}/exe"))) == wanted;
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| wanted.is_some() && runs_it(*pid) && parent(*pid).is_some_and(|by| !runs_it(by)))
        .count()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Milliseconds since `began` when so many of them run.
pub fn until(count: usize, kernel: &Path, began: Instant) -> f64 {
    while hypervisors(kernel) != count {
        assert!(began.elapsed() < LIMIT, "{} of {count} hypervisors run", hypervisors(kernel));
        // Looking costs what is looked at: not more than a few percent of one processor.
        std::thread::sleep(Duration::from_millis(5));
    }
    millis(began.elapsed())
}

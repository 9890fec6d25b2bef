//! Names of things that are half made: they tell who makes them, so that what a killed command left can be told from
//! what is still being written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process that makes something: its id and the kernel's clock tick of its start, since ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    pid: u32,
    start_ticks: u64,
}

impl Maker {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { pid, start_ticks: start_ticks(pid).unwrap_or(0) }
    }

    /// Whether that very process still runs.
    pub fn is_alive(self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// `.WHAT.making-PID-TICKS`: hidden, and never the name of a finished thing.
    pub fn name(self, what: &str) -> String {
        format!(".{what}{MARK}{}-{}", self.pid, self.start_ticks)
    }

    /// Who makes the thing of that name, and what it is to become; `None` if it is no such name.
    pub fn of(name: &str) -> Option<(&str, Self)> {
        let (what, maker) = name.strip_prefix('.')?.rsplit_once(MARK)?;
        let (pid, start_ticks) = maker.split_once('-')?;
        Some((what, Self { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? }))
    }
}

const MARK: &str = ".making-";

/// Directories of that kind which killed commands of this user have left in a directory that others may use too.
pub fn left(dir: &Path, what: &str) -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let dead = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Maker::of(&name).is_some_and(|(kind, by)| kind == what && !by.is_alive())
    };
    let ours =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == user);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| dead(path) && ours(path)).collect()
}

/// Removes what [`left`] finds.
pub fn sweep(dir: &Path, what: &str) {
    for path in left(dir, what) {
        // The next command tries again.
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes files that are to become the one of that name, and that killed commands of this user have left.
pub fn sweep_files(dir: &Path, what: &str) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dead = Maker::of(&name).is_some_and(|(kind, by)| kind == what && !by.is_alive());
        if is_dead && entry.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == user) {
            // The next command tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)); the second field may hold any byte, so fields are counted from its
/// last parenthesis.
fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_tells_its_maker_and_the_maker_is_alive() {
        let name = Maker::this().name("debian-12");
        assert_eq!(Maker::of(&name), Some(("debian-12", Maker::this())));
        assert!(Maker::this().is_alive());
    }

    #[test]
    fn a_process_that_got_a_used_id_is_not_the_maker() {
        let this = Maker::this();
        assert!(!Maker { start_ticks: this.start_ticks + 1, ..this }.is_alive());
    }

    #[test]
    fn a_program_with_a_parenthesis_in_its_name_is_still_read() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 0";
        assert_eq!(parse_start_ticks(stat), Some(4242));
    }

    #[test]
    fn what_a_killed_command_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, alive) = (".thing.making-4194304-1", Maker::this().name("thing"));
        for name in [dead, &alive, "thing", ".other.making-4194304-1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("s"), "").unwrap();
        }
        sweep(dir.path(), "thing");
        assert!(!dir.path().join(dead).exists());
        for name in [alive.as_str(), "thing", ".other.making-4194304-1"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_or_refused(name in "\\PC{0,60}") {
            let _ = Maker::of(&name);
            let _ = parse_start_ticks(&name);
        }
    }
}

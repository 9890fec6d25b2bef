//! Whose account a file's writes go to.
//!
//! What is written to a file waits in memory, and is written to the disk on the account of one control group: the one that
//! has written most of the file lately, or that touched it first. A guest's disk was first touched by whoever made it, so
//! that a limit of the guest's own writes would hold nobody up (Documentation/admin-guide/cgroup-v2.rst, "Writeback").

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::Advice;

/// The kernel hands a file over when another group has written most of more than 8 of the last 16 rounds (`wbc_detach_inode`
/// in fs/fs-writeback.c), but rounds much smaller than the file's usual ones do not count. With 4 KiB nothing was handed over,
/// with this much a file of 16 MiB was after 12 rounds; one that was just copied as a whole takes more.
const ROUND_BYTES: usize = 1 << 20;
/// A guess at what is more than enough.
const MOST_ROUNDS: usize = 64;

/// Puts a file's writes on the account of the calling process's control group, which is at or above `group`, by writing the
/// file's beginning over with what stands there already until the group's account shows it. Nobody else may be writing to the
/// file. Whether it came to that: it takes a dozen or two synchronous writes of 1 MiB.
pub fn claim(file: &Path, group: &Path) -> Result<bool> {
    let work = || -> Result<bool> {
        let open = OpenOptions::new().read(true).write(true).open(file)?;
        let len = usize::try_from(open.metadata()?.len()).unwrap_or(ROUND_BYTES).min(ROUND_BYTES);
        // Pages that are in memory are somebody else's.
        open.sync_data()?;
        rustix::fs::fadvise(&open, 0, None, Advice::DontNeed)?;
        let mut beginning = vec![0; len];
        open.read_exact_at(&mut beginning, 0)?;
        for _ in 0..MOST_ROUNDS {
            let before = written(group);
            open.write_all_at(&beginning, 0)?;
            open.sync_data()?;
            if written(group).saturating_sub(before) >= len as u64 / 2 {
                return Ok(true);
            }
        }
        Ok(false)
    };
    work().with_context(|| format!("taking over the account of what is written to '{}'", file.display()))
}

/// Bytes that a group and those in it have written, to all devices.
fn written(group: &Path) -> u64 {
    sum(&fs::read_to_string(group.join("io.stat")).unwrap_or_default())
}

fn sum(io_stat: &str) -> u64 {
    let words =
        io_stat.split_ascii_whitespace().filter_map(|word| word.strip_prefix("wbytes=")?.parse().ok());
    words.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_is_the_same_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 5000] {
            let file = dir.path().join("disk");
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            fs::write(&file, &content).unwrap();
            // No account shows anything.
            let claimed = claim(&file, dir.path()).unwrap();
            assert_eq!((claimed, fs::read(&file).unwrap() == content), (len == 0, true), "{len}");
        }
    }

    #[test]
    fn what_was_written_to_all_disks_is_added_up() {
        assert_eq!(sum("254:0 rbytes=1 wbytes=20 rios=3\n7:0 rbytes=9 wbytes=3 dbytes=5\n8:0\n"), 23);
    }

    proptest! {
        #[test]
        fn any_account_is_read(text in "((254:0|wbytes=)?[0-9a-z= ]{0,30}\n){0,3}") {
            let _ = sum(&text);
        }
    }
}

//! Whose account a file's writes go to.
//!
//! What is written to a file waits in memory, and is written to the disk on the account of one control group: the one that
//! has written most of the file lately, or that touched it first. A guest's disk was first touched by whoever made it, so
//! that a limit of the guest's own writes would hold nobody up (Documentation/admin-guide/cgroup-v2.rst, "Writeback").

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::Advice;

/// The kernel hands a file over when another group has written most of more than 8 of the last 16 rounds (`wbc_detach_inode`
/// in fs/fs-writeback.c).
const ROUNDS: usize = 12;
/// Rounds much smaller than the file's usual ones do not count there: with 4 KiB nothing was handed over, with this much a
/// file that had just been written as a whole was.
const ROUND_BYTES: usize = 1 << 20;

/// Puts a file's writes on the account of the calling process's control group, by writing its beginning over with what stands
/// there already. Nobody else may be writing to it. Takes as long as 12 MiB in a dozen synchronous writes.
pub fn claim(file: &Path) -> Result<()> {
    let work = || -> Result<()> {
        let open = OpenOptions::new().read(true).write(true).open(file)?;
        let len = usize::try_from(open.metadata()?.len()).unwrap_or(ROUND_BYTES).min(ROUND_BYTES);
        // Pages that are in memory are somebody else's.
        open.sync_data()?;
        rustix::fs::fadvise(&open, 0, None, Advice::DontNeed)?;
        let mut beginning = vec![0; len];
        open.read_exact_at(&mut beginning, 0)?;
        for _ in 0..ROUNDS {
            open.write_all_at(&beginning, 0)?;
            open.sync_data()?;
        }
        Ok(())
    };
    work().with_context(|| format!("taking over the account of what is written to '{}'", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 5, ROUND_BYTES + 7] {
            let file = dir.path().join("disk");
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            std::fs::write(&file, &content).unwrap();
            claim(&file).unwrap();
            assert!(std::fs::read(&file).unwrap() == content, "{len}");
        }
    }
}

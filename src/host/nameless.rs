//! A file in memory that has no name anywhere, so that nothing of it is left whatever ends the process.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

/// Content that a program of this user's can open by a path, as long as this value lives.
#[derive(Debug)]
pub struct Nameless(File);

impl Nameless {
    /// A file that holds these bytes (memfd_create(2)).
    pub fn holding(bytes: &[u8]) -> Result<Self> {
        let make = || -> std::io::Result<File> {
            let mut file = File::from(memfd_create("gridgate", MemfdFlags::CLOEXEC)?);
            file.write_all(bytes)?;
            Ok(file)
        };
        make().context("making a file in memory").map(Self)
    }

    /// An empty file of that length, for a program that makes something in it.
    pub fn of_length(len: u64) -> Result<Self> {
        let make = || -> std::io::Result<File> {
            let file = File::from(memfd_create("gridgate", MemfdFlags::CLOEXEC)?);
            file.set_len(len)?;
            Ok(file)
        };
        make().context("making a file in memory").map(Self)
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// The path that other programs find it by (proc_pid_fd(5)); each open(2) of it begins at the first byte.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::{Program, Programs};

    #[test]
    fn another_program_reads_it_twice_from_the_start() {
        let file = Nameless::holding(b"content").unwrap();
        for _ in 0..2 {
            assert_eq!(Live.run(&Program::new("cat").arg(file.path())).unwrap().stdout, b"content");
        }
    }
}

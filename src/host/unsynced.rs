//! Programs that wait for the disk again and again, where their caller does so once, when all is written.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Has the kernel answer "done" at once (seccomp(2), an error number of 0).
const DONE: SeccompAction = SeccompAction::Errno(0);

/// To be installed in a child.
#[derive(Debug)]
pub(super) struct Unsynced(BpfProgram);

impl Unsynced {
    pub(super) fn new() -> Result<Self> {
        let calls = [libc::SYS_fsync, libc::SYS_fdatasync].map(|call| (call, Vec::new()));
        let arch = std::env::consts::ARCH.try_into()?;
        let filter = SeccompFilter::new(BTreeMap::from(calls), SeccompAction::Allow, DONE, arch)?;
        Ok(Self(filter.try_into()?))
    }

    #[expect(unsafe_code, reason = "a filter of the child alone is set between fork and exec")]
    pub(super) fn install(self, command: &mut Command) {
        // SAFETY: the closure makes two system calls, and neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                // Without it the program is only slower.
                let _ = seccompiler::apply_filter(&self.0);
                Ok(())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::host::Live;
    use crate::host::programs::{Program, Programs};

    #[test]
    fn an_unsynced_program_is_told_that_all_is_written_and_writes_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        // A pipe cannot be synced, which a filter answers for.
        let sync = Program::new("sh").args(["-c", "echo x | dd conv=fsync status=none | cat"]);
        let dd = |program: Program| Live.run_any(&program).unwrap();
        assert!(!dd(sync.clone()).stderr.is_empty());
        assert!(dd(sync.unsynced()).stderr.is_empty());
        let write =
            Program::new("dd").arg(format!("of={}", to.display())).args(["conv=fsync", "status=none"]);
        assert_eq!(dd(write.input("all").unsynced()).status, 0);
        assert_eq!(std::fs::read(&to).unwrap(), b"all");
    }
}

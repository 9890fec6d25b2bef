//! Programs that read what a hostile hand may have written: bounded, and without a way to more privileges.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::set_no_new_privs;

/// What a program may take. Beyond it, its allocations fail, and the kernel ends it (setrlimit(2), `RLIMIT_AS`, `RLIMIT_CPU`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Address space.
    pub memory_bytes: u64,
    /// Processor time.
    pub cpu_seconds: u64,
}

impl Bounds {
    /// Set in the child itself: prlimit(1) and setpriv(1) do the same, at the price of two more program starts.
    #[expect(unsafe_code, reason = "a limit of the child alone is set between fork and exec")]
    pub(super) fn install(self, command: &mut Command) {
        let most = |value| Rlimit { current: Some(value), maximum: Some(value) };
        // SAFETY: the closure makes three system calls, and neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                set_no_new_privs(true)?;
                setrlimit(Resource::As, most(self.memory_bytes))?;
                Ok(setrlimit(Resource::Cpu, most(self.cpu_seconds))?)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::{Program, Programs};

    #[test]
    fn a_bounded_program_has_its_limits_and_can_gain_no_privileges() {
        let bounds = Bounds { memory_bytes: 1 << 30, cpu_seconds: 7 };
        let shown = "ulimit -v; ulimit -t; grep NoNewPrivs: /proc/self/status";
        let program = Program::new("sh").args(["-c", shown]).bounded(bounds);
        assert_eq!(Live.run(&program).unwrap().text(), "1048576\n7\nNoNewPrivs:\t1");
    }
}

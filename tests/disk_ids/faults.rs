//! The transaction of a disk's ids, ended at every step: what is left then, and what the next run makes of it.

use std::fs;
use std::process::{Command, Output, Stdio};

use super::lvm::{Known, Stage};
use super::{SOMEBODY, lacks, loops};

/// System calls after which something is on the disk, or in the state directory, that was not before.
const STEPS: [&str; 8] =
    ["pwrite64", "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2", "fsmount"];

/// The command under strace(1), which ends it at the `step`th of those calls in one of its processes.
fn ended(stage: &Stage, how: &str, calls: &str, step: usize) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-o", &stage.name("trace"), "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{how}:when={step}")]).arg(env!("CARGO_BIN_EXE_gridgate"));
    command.args(stage.words()).args(SOMEBODY).stdin(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
}

/// What all runs end in, and the disk before them.
struct Course {
    stage: Stage,
    disk: Vec<u8>,
    before: Known,
    after: Known,
}

impl Course {
    fn new() -> Option<Self> {
        if lacks(&["strace"]) {
            return None;
        }
        let stage = Stage::new()?;
        let (disk, before) = (fs::read(stage.path("disk")).unwrap(), stage.known());
        let ran = stage.gridgate(&SOMEBODY);
        assert!(ran.status.success(), "{ran:?}");
        let after = stage.known();
        Some(Self { stage, disk, before, after })
    }

    /// Ends the command at that step, and lets another one finish; whether the step was there at all.
    fn walk(&self, how: &str, calls: &str, step: usize) -> bool {
        let stage = &self.stage;
        fs::write(stage.path("disk"), &self.disk).unwrap();
        let ran = ended(stage, how, calls, step);
        loops::are_gone_from(stage.path("disk").parent().unwrap());
        let trace = fs::read_to_string(stage.path("trace")).unwrap();
        let was_hit = trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        match ran.status.code() {
            // Whoever reads its end thinks that nothing was changed.
            Some(1) => assert_eq!(stage.known(), self.before, "{calls} {step}: {said}"),
            Some(5) => assert!(said.contains("hint: what was done stays; the same command"), "{said}"),
            Some(0) => {}
            other => assert_eq!(other, None, "{calls} {step}: {said}"),
        }
        let again = stage.gridgate(&SOMEBODY);
        assert!(again.status.success(), "{calls} {step}: {said}\n{again:?}");
        assert_eq!(stage.known(), self.after, "{calls} {step}: {said}");
        was_hit
    }
}

/// Walks all steps there are; how many.
fn all_steps(how: &str) -> Option<usize> {
    let course = Course::new()?;
    // All of the first, and then some: a program that writes every checksum anew has hundreds that are alike.
    let steps = || (1..=12).chain((13..400).step_by(29));
    let of = |calls: &str| steps().take_while(|step| course.walk(how, calls, *step)).count();
    Some(STEPS.into_iter().map(of).sum())
}

#[test]
fn wherever_it_is_killed_the_next_run_makes_the_disk_whole() {
    let Some(steps) = all_steps("signal=SIGKILL") else { return };
    assert!(steps > 20, "{steps}");
}

#[test]
fn whichever_step_fails_it_is_told_of_and_the_next_run_makes_the_disk_whole() {
    let Some(steps) = all_steps("error=EIO") else { return };
    assert!(steps > 20, "{steps}");
}

//! `gridgate status --watch`, as people and programs use it.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn site(dir: &Path) -> std::path::PathBuf {
    let site = dir.join("site");
    let init = Command::new(env!("CARGO_BIN_EXE_gridgate")).arg("init").arg(&site).output().unwrap();
    assert!(init.status.success());
    site
}

fn watch(dir: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    command.arg("--site").arg(site(dir)).arg("--state").arg(dir.join("state"));
    command.args(["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_watch_shows_the_table_again_and_again_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = watch(dir.path());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let heads = lines.filter(|line| line.starts_with("GUEST "));
    assert_eq!(heads.take(2).count(), 2);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_ends_when_nobody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = watch(dir.path());
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

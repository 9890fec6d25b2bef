//! `gridgate status --watch` and the completion of guests' names, as shells and people use them.

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

#[test]
fn a_shell_is_told_the_guests_of_the_site_on_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path());
    let ask = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        let index = (words.len() - 1).to_string();
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", " ");
        command
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "false")
            .arg("--")
            .args(words);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let dir = site.to_str().unwrap();
    assert_eq!(ask(&["gridgate", "--site", dir, "console", "c"]), "ce");
    assert!(ask(&["gridgate", "--site", dir, "up", ""]).starts_with("ce se ui wn"));
    assert_eq!(ask(&["gridgate", "--site", "/nowhere", "ssh", "c"]), "");
    assert_eq!(ask(&["gridgate", "conso"]), "console");
}

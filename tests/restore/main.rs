//! Archives restored to files, disks and directories by the command itself: what comes back, what is refused, and what is left when it
//! goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod faults;
#[path = "../support/loops.rs"]
mod loops;
mod round;
#[path = "../support/one_file.rs"]
mod server;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own with an archive of a tree in it.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// None where nothing can be mounted.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: filesystems are made by root, through loop devices");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--state").arg(self.path("state")).arg("--site").arg(self.path("site"));
        command.args(words).current_dir(self.dir.path()).env("TMPDIR", self.dir.path());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// It must end well.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert!(ran.status.success(), "{words:?}: {}", said(&ran));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// It must end with that status, and say that.
    pub(crate) fn fails(&self, words: &[&str], status: i32, with: &str) {
        let ran = self.run(words);
        assert_eq!(ran.status.code(), Some(status), "{words:?}: {}", said(&ran));
        assert!(said(&ran).contains(with), "{words:?}: '{with}' is not in:\n{}", said(&ran));
    }

    /// `image restore`, of whomever.
    pub(crate) fn restore<'a>(archive: &'a str, to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["image", "restore", archive, "--to", to, "--insecure-unsigned", "--yes"], more].concat()
    }

    /// Packs the tree of that name.
    pub(crate) fn pack(&self, tree: &str, archive: &str) {
        self.done(&["image", "pack", "--tree", tree, "-o", archive, "--fast", "--with-keys"]);
    }

    /// Nothing of ours is left in its directory, and no loop device on a file of it.
    pub(crate) fn clean(&self) {
        let names = || std::fs::read_dir(self.dir.path()).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names().filter(|name| name.to_string_lossy().contains(".making-")).collect();
        assert!(left.is_empty(), "{left:?}");
        loops::are_gone_from(self.dir.path());
    }
}

pub(crate) fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

/// Whether anybody would take it for a filesystem.
pub(crate) fn is_filesystem(path: &Path) -> bool {
    Command::new("blkid").arg("-p").arg(path).output().unwrap().status.success()
}

pub(crate) fn sound(disk: &Path) {
    let ran = Command::new("e2fsck").arg("-fn").arg(disk).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}

/// A disk made of a file, for as long as this lives.
pub(crate) struct Disk(pub(crate) String);

impl Disk {
    pub(crate) fn over(file: &Path) -> Self {
        let ran = Command::new("losetup").args(["-f", "--show"]).arg(file).output().unwrap();
        assert!(ran.status.success(), "{}", said(&ran));
        Self(String::from_utf8(ran.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

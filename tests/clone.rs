//! Clones of disks, on filesystems made for the occasion: each test that needs one mounts it in a mount namespace of its
//! own thread, which takes mount and loop device with it when it ends.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use gridgate::host::Live;
use gridgate::host::disks::{CloneHow, Disks};
use gridgate::progress::Progress;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const MIB: u64 = 1 << 20;

/// 64 MiB with data at the start, in the middle and in the last page.
fn make_sparse(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = File::create(path).unwrap();
    file.set_len(64 * MIB).unwrap();
    let pieces = [0, 20 * MIB + 4096, 64 * MIB - 4096].map(|at| (at, vec![at as u8 | 0x41; 4096]));
    for (at, bytes) in &pieces {
        file.write_all_at(bytes, *at).unwrap();
    }
    pieces.to_vec()
}

fn clone(from: &Path, to: &Path, size: u64) -> anyhow::Result<CloneHow> {
    Live.clone_file(from, to, size, &Progress::silent())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn root_for(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(&format!("{what} needs root"));
    }
    root
}

/// Runs with mounts that nobody else sees.
fn with_private_mounts(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_clone_has_the_data_the_holes_and_the_size_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("golden"), dir.path().join("disk"));
    let pieces = make_sparse(&from);
    let how = clone(&from, &to, 100 * MIB).unwrap();
    let (meta, file) = (fs::metadata(&to).unwrap(), File::open(&to).unwrap());
    assert_eq!(meta.len(), 100 * MIB);
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    for (at, bytes) in pieces {
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, at).unwrap();
        assert_eq!(read, bytes);
    }
    if let CloneHow::Copied { bytes } = how {
        assert!(bytes < MIB, "{bytes} bytes were copied");
        assert!(meta.blocks() * 512 < MIB, "{} blocks are taken", meta.blocks());
    }
    assert_eq!(names(dir.path()), ["disk", "golden"]);
}

#[test]
fn a_disk_smaller_than_its_image_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("golden");
    make_sparse(&from);
    let error = format!("{:#}", clone(&from, &dir.path().join("disk"), 63 * MIB).unwrap_err());
    assert!(error.ends_with("a disk of 63M cannot hold an image of 64M"), "{error}");
    assert_eq!(names(dir.path()), ["golden"]);
}

#[test]
fn what_a_killed_clone_left_is_removed_by_the_next_one_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("golden");
    make_sparse(&from);
    // No process has this start time.
    fs::write(dir.path().join(".disk.making-1-18446744073709551615"), b"half").unwrap();
    fs::write(dir.path().join(".bashrc"), b"").unwrap();
    assert_eq!(Live.abandoned(dir.path()).unwrap().len(), 1);
    clone(&from, &dir.path().join("disk"), 64 * MIB).unwrap();
    assert_eq!(names(dir.path()), [".bashrc", "disk", "golden"]);
}

#[test]
fn a_missing_image_and_a_device_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("disk");
    assert!(clone(&dir.path().join("none"), &to, MIB).is_err());
    let error = format!("{:#}", clone(Path::new("/dev/null"), &to, MIB).unwrap_err());
    assert!(error.ends_with("'/dev/null' is not a regular file"), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_full_filesystem_is_told_with_what_is_needed_and_keeps_nothing() {
    if !root_for("a filesystem of one's own") {
        return;
    }
    with_private_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("golden");
        fs::write(&from, vec![7; 8 << 20]).unwrap();
        let small = dir.path().join("small");
        fs::create_dir(&small).unwrap();
        mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=2M")).unwrap();
        let error = format!("{:#}", clone(&from, &small.join("disk"), 8 * MIB).unwrap_err());
        assert!(error.contains(": not enough space in '"), "{error}");
        assert!(error.ends_with("': 8M are needed, 2M are free"), "{error}");
        assert!(names(&small).is_empty());
        nix::mount::umount(&small).unwrap();
    });
}

#[test]
fn a_filesystem_that_shares_blocks_does_so() {
    if !root_for("a filesystem of one's own") {
        return;
    }
    with_private_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("xfs"), dir.path().join("at"));
        File::create(&image).unwrap().set_len(320 * MIB).unwrap();
        fs::create_dir(&at).unwrap();
        let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            return skipped("no mkfs.xfs here");
        }
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).output().unwrap();
        if !mounted.status.success() {
            return skipped(&format!(
                "no loop-mounted XFS: {}",
                String::from_utf8_lossy(&mounted.stderr).trim()
            ));
        }
        let pieces = make_sparse(&at.join("golden"));
        let how = clone(&at.join("golden"), &at.join("disk"), 128 * MIB).unwrap();
        assert_eq!(how, CloneHow::Reflink);
        let file = File::open(at.join("disk")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 128 * MIB);
        let mut read = vec![0; 4096];
        file.read_exact_at(&mut read, pieces[1].0).unwrap();
        assert_eq!(read, pieces[1].1);
        drop(file);
        nix::mount::umount(&at).unwrap();
    });
}

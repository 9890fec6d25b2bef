//! Ends at any point, two at once, and collections under readers.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use gridgate::chunks::keep;

/// What no version names goes at once.
pub(crate) const NOTHING: keep::Keep = keep::Keep { grace: Duration::ZERO, backups: None };

use crate::lab::{BLOCK, Lab, disk, image, list, noise, said};
use crate::server::{Manner, Server};

#[test]
fn a_pull_that_is_killed_is_gone_on_with_and_fetches_only_the_rest() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let stalls = Server::of(&lab.store(), Manner::StallAfter(2 << 20));
    let words = ["--quiet", "image", "pull", "x", &stalls.url, "--insecure-unsigned"];
    let mut child = lab.gridgate("b").args(words).stderr(Stdio::null()).spawn().unwrap();
    let made = lab.host("b").images().join(".x.pull");
    // Nearly all that the server sends until it stalls.
    eventually(|| walk(&made) > 1_800_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!lab.host("b").image(&image("x")).exists());

    let second = lab.try_pull("b", &[&lab.store().display().to_string()]).unwrap();
    lab.has("b", &disk());
    assert!(second.received_bytes < 1_700_000, "{}", second.received_bytes);
}

#[test]
fn two_pulls_of_one_name_do_not_meet() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let stalls = Server::of(&lab.store(), Manner::StallAfter(1 << 20));
    let words = ["--quiet", "image", "pull", "x", &stalls.url, "--insecure-unsigned"];
    let mut child = lab.gridgate("b").args(words).stderr(Stdio::null()).spawn().unwrap();
    eventually(|| walk(&lab.host("b").images().join(".x.pull")) > 1 << 19);
    let error = format!("{:#}", lab.try_pull("b", &[&lab.store().display().to_string()]).unwrap_err());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(error.contains("another gridgate command is at work here"), "{error}");
}

#[test]
fn a_push_that_is_killed_at_any_time_leaves_the_old_version_or_the_new_one() {
    let lab = Lab::new();
    let mut disk = disk();
    lab.image("a", "x", &disk, 1);
    lab.push("a");
    let store = lab.store().display().to_string();
    for n in 0..12_u64 {
        disk[BLOCK * 10..BLOCK * 400].copy_from_slice(&noise(100 + n, 390 * BLOCK));
        lab.image("a", "x", &disk, 2 + n);
        let words = ["--quiet", "image", "push", "x", &store];
        let mut child = lab.gridgate("a").args(words).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 * n * n / 2));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(keep::verify(&lab.store(), &gridgate::progress::Progress::silent()).unwrap(), [""; 0]);
        lab.pull_from_store("b");
    }
    lab.push("a");
    lab.pull_from_store("b");
    lab.has("b", &disk);
    keep::collect(&lab.store(), NOTHING, false).unwrap();
    let mut images = list(&lab.host("a").images());
    images.retain(|name| name != ".lock");
    assert_eq!(images, ["x"]);
    assert!(list(&lab.store().join("packs")).iter().all(|name| name.ends_with(".pack")));
    lab.pull_from_store("c");
    lab.has("c", &disk);
}

#[test]
fn two_pushes_at_once_are_both_there_in_the_end() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    let mut other = disk();
    other[..BLOCK * 300].copy_from_slice(&noise(4, 300 * BLOCK));
    lab.image("b", "x", &other, 2);
    let store = lab.store().display().to_string();
    let push = |host: &str| {
        lab.gridgate(host).args(["image", "push", "x", &store]).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [push("a"), push("b")] {
        let run = child.wait_with_output().unwrap();
        assert!(run.status.success(), "{}", said(&run));
    }
    let versions = keep::list(&lab.store()).unwrap();
    let numbers: Vec<_> = versions.iter().map(|version| (version.head.sequence, version.latest)).collect();
    assert_eq!(numbers, [(2, true), (1, false)]);
    assert_eq!(keep::verify(&lab.store(), &gridgate::progress::Progress::silent()).unwrap(), [""; 0]);
    lab.pull_from_store("c");
}

#[test]
fn a_collection_keeps_what_readers_may_need_and_removes_the_rest_after_the_grace() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab.image_with("a", "x", &noise(5, 1 << 20), 2, b"another");
    lab.push("a");
    fs::write(lab.store().join("packs/left.pack.partial"), "cut").unwrap();
    let store = lab.store().display().to_string();
    let run = lab.run("a", &["image", "store", "gc", &store]);
    assert!(run.status.success() && run.stdout.is_empty(), "{}", said(&run));
    let run = lab.run("a", &["image", "store", "gc", &store, "--grace", "0s", "--dry-run"]);
    assert_eq!(run.status.code(), Some(3));
    let found = String::from_utf8_lossy(&run.stdout).lines().count();
    // Head, index, hashes and pack of the first version, and what was cut.
    assert_eq!(found, 5, "{}", String::from_utf8_lossy(&run.stdout));
    let run = lab.run("a", &["image", "store", "gc", &store, "--grace", "0s"]);
    assert!(run.status.success(), "{}", said(&run));
    assert_eq!(list(&lab.store().join("packs")).len(), 1);
    assert_eq!(list(&lab.store().join("images/x")).len(), 2);
    let wrong = keep::verify(&lab.store(), &gridgate::progress::Progress::silent()).unwrap();
    assert_eq!(wrong, [""; 0]);
    assert!(lab.pull_from_store("b").new);
}

#[test]
fn a_reader_whose_version_is_collected_goes_on_with_the_newest() {
    let lab = std::sync::Arc::new(Lab::new());
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let next = noise(6, 1 << 20);
    let server = Server::of(&lab.store(), Manner::Good);
    let (there, disk) = (std::sync::Arc::clone(&lab), next.clone());
    let mut done = false;
    server.before(move |path| {
        if path.starts_with("packs/") && !done {
            done = true;
            there.image_with("a", "x", &disk, 2, b"another");
            there.push("a");
            keep::collect(&there.store(), NOTHING, false).unwrap();
        }
    });
    lab.pull("b", &[&server.url]);
    lab.has("b", &next);
}

#[test]
fn a_directory_that_is_no_store_is_not_collected() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("packs")).unwrap();
    fs::write(lab.path("packs/mine.pack"), "").unwrap();
    let run = lab.run("a", &["image", "store", "gc", &lab.path("").display().to_string(), "--grace", "0s"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(said(&run).contains("is no store"), "{}", said(&run));
    assert!(lab.path("packs/mine.pack").exists());
}

/// Bytes that files below take up.
fn walk(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(|meta| meta.is_file()).map(|meta| meta.blocks() * 512).sum()
}

fn eventually(mut look: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(300);
    while !look() {
        assert!(std::time::Instant::now() < end, "it never happened");
        std::thread::sleep(Duration::from_millis(10));
    }
}

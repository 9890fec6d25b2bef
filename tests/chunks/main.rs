//! Golden images through a store: directories, web servers of every manner, ssh, and ends at any point.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod crashes;
mod faults;
mod lab;
mod server;
mod transports;
mod trust;

use std::fs;

use lab::{BLOCK, Lab, disk, noise};

#[test]
fn what_was_pushed_is_pulled_and_a_second_time_nothing_is_done() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    let pushed = lab.push("a");
    assert!(pushed.new);
    assert!(lab.pull_from_store("b").new);
    lab.has("b", &disk());
    let again = lab.push("a");
    assert_eq!((again.new, again.version, again.sent_bytes), (false, pushed.version, 0));
    let again = lab.pull_from_store("b");
    assert!(!again.new);
    assert!(again.received_bytes < 2000, "{}", again.received_bytes);
    lab.has("b", &disk());
}

#[test]
fn a_new_version_costs_what_changed() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab.pull_from_store("b");
    let mut changed = disk();
    changed[BLOCK * 20..BLOCK * 22].copy_from_slice(&noise(7, 2 * BLOCK));
    lab.image("a", "x", &changed, 2);
    let pushed = lab.push("a");
    // Both blocks, and one of the manifest.
    assert_eq!(pushed.new_bytes, 3 * BLOCK as u64);
    let pulled = lab.pull_from_store("b");
    assert!(pulled.new);
    assert!(pulled.received_bytes < 20_000, "{}", pulled.received_bytes);
    lab.has("b", &changed);
}

#[test]
fn blocks_that_moved_are_not_sent_again() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab.pull_from_store("b");
    let mut moved = noise(8, 3 * BLOCK);
    moved.extend(disk());
    lab.image("a", "x", &moved, 2);
    // Its text repeats each 11 blocks, so that all of it is there in any place.
    let pushed = lab.push("a");
    assert!(pushed.new_bytes <= 7 * BLOCK as u64, "{}", pushed.new_bytes);
    lab.pull_from_store("b");
    lab.has("b", &moved);
}

#[test]
fn a_disk_that_shrinks_or_loses_blocks_is_the_new_one_exactly() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab.pull_from_store("b");
    let mut smaller = disk();
    smaller.truncate(2 << 20);
    smaller[BLOCK * 5..BLOCK * 60].fill(0);
    lab.image("a", "x", &smaller, 2);
    assert_eq!(lab.push("a").new_bytes, BLOCK as u64);
    lab.pull_from_store("b");
    lab.has("b", &smaller);
}

#[test]
fn a_seed_that_is_named_saves_what_is_in_it_and_noise_does_no_harm() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let (seed, other) = (lab.path("seed"), lab.path("noise"));
    fs::write(&seed, disk()).unwrap();
    fs::write(&other, noise(3, 70_001)).unwrap();
    let store = lab.store().display().to_string();
    let pulled = lab.pull_with_seeds("b", &[&store], &[other, seed]).unwrap();
    // The kernel is in no seed, nor the manifest; what shares a frame with them comes along.
    assert!(pulled.received_bytes < 800_000, "{}", pulled.received_bytes);
    lab.has("b", &disk());
    let error = lab.pull_with_seeds("c", &[&store], &["/nowhere".into()]).unwrap_err();
    assert!(format!("{error:#}").contains("the seed '/nowhere' is not there"), "{error:#}");
}

#[test]
fn another_image_of_the_host_is_a_seed_for_one_that_is_new() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab.image("b", "y", &disk(), 1);
    let store = lab.store().display().to_string();
    let pulled = lab.pull("b", &[&store]);
    // The manifest is another one, and comes with its frame.
    assert!(pulled.received_bytes < 300_000, "{}", pulled.received_bytes);
}

#[test]
fn an_older_image_is_taken_only_when_asked_for() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 5);
    lab.push("a");
    let mut newer = disk();
    newer[0] ^= 1;
    lab.image("b", "x", &newer, 6);
    let store = lab.store().display().to_string();
    let error = format!("{:#}", lab.try_pull("b", &[&store]).unwrap_err());
    assert!(error.contains("was built later") && error.contains("hint: --older"), "{error}");
    let run = lab.run("b", &["image", "pull", "x", &store, "--insecure-unsigned", "--older"]);
    assert!(run.status.success(), "{}", lab::said(&run));
    lab.has("b", &disk());
}

#[test]
fn many_versions_are_built_upon_each_other_and_verified() {
    let lab = Lab::new();
    let mut disk = disk();
    for n in 1..6 {
        disk[BLOCK * 3 * n..][..BLOCK].copy_from_slice(&noise(20 + n as u64, BLOCK));
        lab.image("a", "x", &disk, n as u64);
        let new = lab.push("a").new_bytes;
        assert!(n == 1 || new == 2 * BLOCK as u64, "{n}: {new}");
    }
    lab.pull_from_store("b");
    lab.has("b", &disk);
    let store = lab.store().display().to_string();
    let run = lab.run("b", &["--json", "image", "store", "verify", &store]);
    assert!(run.status.success(), "{}", lab::said(&run));
    let run = lab.run("b", &["image", "store", "list", &store]);
    assert_eq!(String::from_utf8_lossy(&run.stdout).lines().count(), 6);

    let pack = lab::list(&lab.store().join("packs")).remove(0);
    let pack = lab.store().join("packs").join(pack);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[9] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let run = lab.run("b", &["image", "store", "verify", &store]);
    assert_eq!(run.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&run.stdout).contains("has changed since it was written"));
}

#[test]
fn an_export_is_what_casync_makes_the_disk_of() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    let out = lab.path("export");
    let run = lab.run("a", &["image", "export-casync", "x", &out.display().to_string()]);
    assert!(run.status.success(), "{}", lab::said(&run));
    let made = lab.path("made");
    let mut casync = std::process::Command::new("casync");
    casync.arg("extract").arg(format!("--store={}", out.join("default.castr").display()));
    match casync.arg(out.join("x.caibx")).arg(&made).output() {
        Err(_) => eprintln!("skipped: no casync here"),
        Ok(run) => {
            assert!(run.status.success(), "{}", lab::said(&run));
            assert!(fs::read(made).unwrap() == disk());
        }
    }
}

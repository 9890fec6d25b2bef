//! `kill -9` on either side of the store.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gridgate::chunks::keep;
use gridgate::progress::Progress;

use crate::made::{Machines, machines, noise};

/// Starts it, and kills it after that time. Whether it was killed.
fn killed_after(machines: &Machines, machine: &str, words: &[&str], moment: Duration) -> bool {
    let mut child =
        machines.command(machine, words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// How long that takes here, so that moments before its end are found on any machine.
fn took(what: impl FnOnce()) -> Duration {
    let began = Instant::now();
    what();
    began.elapsed()
}

#[test]
fn a_backup_that_is_killed_leaves_the_store_as_it_was_and_nothing_behind() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    let store = machines.store();
    let change = |seed: u64| fs::write(machines.disk("a", "ce"), noise(20 + seed, 4 << 20)).unwrap();
    change(10);
    let whole = took(|| drop(machines.back_up("a")));
    let mut killed = 0;
    for n in 0..10 {
        change(n.into());
        let words = ["--quiet", "site", "backup", "--to", &store];
        killed += usize::from(killed_after(&machines, "a", &words, whole * (n + 1) / 11));
        assert_eq!(keep::verify(Path::new(&store), &Progress::silent()).unwrap(), [""; 0], "{n}");
        machines.run("a", &["gc"]).exits(0);
        machines.is_tidy("a");
    }
    assert!(killed > 3, "{killed}");
    machines.back_up("a");
    machines.restore("b", &[]).exits(0);
    machines.is_like("a", "b");
}

#[test]
fn what_a_restore_left_that_was_killed_at_its_very_end_is_no_disk_of_the_machine() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let version = machines.back_up("a")["store_version"].as_str().unwrap().to_owned();
    machines.restore("b", &[]).exits(0);
    let (left, disk) = (machines.state("b").join(".restore").join(version), machines.disk("b", "ce"));
    fs::create_dir_all(&left).unwrap();
    fs::hard_link(&disk, left.join("ce.disk")).unwrap();
    // The guest went on, and the next restore does not get far.
    fs::write(&disk, noise(50, 8 << 20)).unwrap();
    let packs = machines.path("store/packs");
    fs::rename(&packs, machines.path("aside")).unwrap();
    machines.restore("b", &["--replace"]).exits(1);
    assert!(fs::read(&disk).unwrap() == noise(50, 8 << 20), "the disk is as it was");
    fs::rename(machines.path("aside"), &packs).unwrap();
    machines.restore("b", &["--replace"]).exits(0);
    machines.is_like("a", "b");
    machines.is_tidy("b");
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_machine_or_the_new_one() {
    let Some(machines) = machines() else { return };
    for machine in ["a", "b", "c"] {
        machines.make(machine);
    }
    fs::write(machines.disk("a", "ce"), noise(30, 8 << 20)).unwrap();
    fs::write(machines.path("a").join("site/guests/ui.toml"), "address = \"10.77.0.20\"\n").unwrap();
    machines.back_up("a");
    let (old, new) = (machines.what_is("b"), machines.what_is("a"));
    let store = machines.store();
    let whole = took(|| drop(machines.restore("c", &["--replace"]).exits(0)));
    let (mut killed, mut before) = (0, 0);
    for n in 0..60 {
        let moment = whole * n / 30;
        let words = ["--quiet", "site", "restore", &store, "--insecure-unsigned", "--replace"];
        killed += usize::from(killed_after(&machines, "b", &words, moment));
        // Whatever changes something next finishes what had begun.
        machines.run("b", &["gc"]).exits(0);
        let now = machines.what_is("b");
        assert!(now == old || now == new, "after {moment:?}: {now:#?}");
        if now == new {
            break;
        }
        before += 1;
    }
    assert!(killed > 3 && before > 3, "{killed} {before}");
    machines.restore("b", &["--replace"]).exits(0);
    machines.is_like("a", "b");
    machines.is_tidy("b");
}

//! `kill -9` on either side of the store.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

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

#[test]
fn a_backup_that_is_killed_leaves_the_store_as_it_was_and_nothing_behind() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    let store = machines.store();
    let mut killed = 0;
    for n in 0..10_u64 {
        fs::write(machines.disk("a", "ce"), noise(20 + n, 4 << 20)).unwrap();
        let words = ["--quiet", "site", "backup", "--to", &store];
        killed += usize::from(killed_after(&machines, "a", &words, Duration::from_millis(10 + 15 * n)));
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
fn a_restore_that_is_killed_leaves_the_old_machine_or_the_new_one() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.make("b");
    fs::write(machines.disk("a", "ce"), noise(30, 8 << 20)).unwrap();
    fs::write(machines.path("a").join("site/guests/ui.toml"), "address = \"10.77.0.20\"\n").unwrap();
    machines.back_up("a");
    let (old, new) = (machines.what_is("b"), machines.what_is("a"));
    let store = machines.store();
    let (mut killed, mut before) = (0, 0);
    for n in 0..40_u64 {
        let words = ["--quiet", "site", "restore", &store, "--insecure-unsigned", "--replace"];
        killed += usize::from(killed_after(&machines, "b", &words, Duration::from_millis(3 * n)));
        // Whatever changes something next finishes what had begun.
        machines.run("b", &["gc"]).exits(0);
        let now = machines.what_is("b");
        assert!(now == old || now == new, "after {} ms: {now:#?}", 3 * n);
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

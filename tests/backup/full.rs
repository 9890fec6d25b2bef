//! No room, on either side, and two at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gridgate::chunks::keep;
use gridgate::progress::Progress;

use crate::made::{Machines, machines, noise};

/// A filesystem of that size.
struct Small(PathBuf);

impl Small {
    fn at(dir: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir_all(&dir).unwrap();
        let options = format!("size={bytes},mode=0700");
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this machine lets nobody mount a tmpfs");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let ended = || Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        // A child that another test has just forked may have a file of it open.
        for _ in 0..3000 {
            if ended() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(std::thread::panicking(), "it stays mounted");
    }
}

fn whole(machines: &Machines) {
    let wrong = keep::verify(Path::new(&machines.store()), &Progress::silent()).unwrap();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_store_that_is_full_keeps_the_backup_that_it_has() {
    let Some(machines) = machines() else { return };
    let Some(_small) = Small::at(machines.path("store"), 8 << 20) else { return };
    machines.make("a");
    machines.back_up("a");
    let before = machines.what_is("a");
    fs::write(machines.disk("a", "ce"), noise(40, 6 << 20)).unwrap();
    let failed = machines.run("a", &["site", "backup", "--to", &machines.store()]).exits(1);
    failed.says("putting the backup of site 'dcu' into").says("No space left on device");
    machines.is_tidy("a");
    whole(&machines);
    machines.restore("b", &[]).exits(0);
    assert_eq!(machines.what_is("b"), before);
}

#[test]
fn a_machine_without_room_for_a_copy_says_so_before_anything_is_sent() {
    let Some(machines) = machines() else { return };
    let Some(_small) = Small::at(machines.state("a"), 8 << 20) else { return };
    machines.make("a");
    let failed = machines.run("a", &["site", "backup", "--to", &machines.store()]).exits(1);
    failed.says("not enough space in");
    machines.is_tidy("a");
    assert!(!machines.path("store/packs").exists());
}

#[test]
fn a_machine_without_room_for_the_site_stays_as_it_is() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    let Some(_small) = Small::at(machines.state("b"), 4 << 20) else { return };
    machines.restore("b", &[]).exits(1).says("not enough space in").says("are needed");
    assert!(!machines.state("b").join("guests").exists() && !machines.path("b").join("site").exists());
}

#[test]
fn two_backups_at_once_are_both_there_in_the_end() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let store = machines.store();
    let begin = || {
        let mut command = machines.command("a", &["site", "backup", "--to", &store]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [begin(), begin()] {
        let ran = child.wait_with_output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let listed = machines.run("a", &["--json", "site", "backup", "--list", "--to", &store]).exits(0).json();
    let backups = listed["backups"].as_array().unwrap().len();
    // Of the same second they are the same one.
    assert!((1..=2).contains(&backups), "{listed}");
    whole(&machines);
    machines.is_tidy("a");
    machines.restore("b", &[]).exits(0);
    machines.is_like("a", "b");
}

//! A disk for one guest, cloned from a golden image and personalised, against `cp` of the same image in turn: `cp
//! --sparse=always` where the filesystem cannot share blocks, `cp --reflink=always` on a loop-mounted XFS. The image is in
//! the page cache; neither side waits for the disk, as neither promises to.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use gridgate::config::site::Guest;
use gridgate::config::{self, LoadOptions};
use gridgate::host::Live;
use gridgate::host::disks::Disks;
use gridgate::identity::personalise::{self, Scrubbing};
use gridgate::paths::Paths;
use gridgate::progress::Progress;
use table::{Target, median, row};

const ROUNDS: usize = 7;
const DISK_BYTES: u64 = 2 << 30;

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: personalising a disk needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let image = prepared.join("images/debian-12/disk.ext4");
    let dir = table::scratch();
    table::heading("a disk from a golden image (1 guest, 2 GiB)");
    let targets = [Target::None, Target::RatioAnd(1.25, 60.0)];
    compare("copied", &image, dir.path(), "--sparse=always", targets);
    if let Err(e) = on_xfs(dir.path(), &image) {
        eprintln!("skipped: reflink on XFS: {e}");
    }
}

/// Alternates the two, so that whatever else the machine does meets both alike.
fn compare(how: &str, image: &Path, dir: &Path, option: &str, targets: [Target; 2]) {
    let theirs = dir.join("theirs");
    let paths = Paths::new(&dir.join("site"), &dir.join("state"));
    site(&paths, "");
    let site = config::load(&paths.site, &LoadOptions::default()).unwrap().site;
    let guest = &site.guests[0];
    let (mut clone, mut whole, mut cp) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let quiet = || {
            let _ = (fs::remove_dir_all(&paths.state), fs::remove_file(&theirs));
            fs::create_dir_all(paths.guest(&guest.name)).unwrap();
            rustix::fs::sync();
        };
        quiet();
        let cloned = table::time(|| {
            Live.clone_file(image, &paths.disk(&guest.name), DISK_BYTES, &Progress::silent()).unwrap();
        });
        let personalised = table::time(|| {
            personalise::disk(&Live, &paths, &site, guest, &Scrubbing::default()).unwrap();
        });
        clone.push(cloned);
        whole.push(cloned + personalised);
        quiet();
        cp.push(table::time(|| {
            assert!(Command::new("cp").arg(option).arg(image).arg(&theirs).status().unwrap().success());
        }));
    }
    let cp = median(cp);
    row(&format!("clone, {how} / cp {option}"), "ms", median(clone), Some(cp), targets[0]);
    row(&format!("clone and personalise, {how} / cp"), "ms", median(whole), Some(cp), targets[1]);
}

/// A site of one file of guests.
fn site(paths: &Paths, guests: &str) {
    let site = "name = 'bench'\n[networks.lan]\nmode = 'rehearsal'\nsubnet = '10.78.0.0/24'\n";
    fs::create_dir_all(paths.site.join("guests")).unwrap();
    fs::write(paths.site.join("site.toml"), site).unwrap();
    fs::write(paths.site.join("guests/ce.toml"), guests).unwrap();
}

/// Fifty guests of one image take five times as long as ten, and less where several processors work on them.
fn many(image: &Path, dir: &Path) {
    const FEW: usize = 10;
    const ALL: usize = 50;
    let paths = Paths::new(&dir.join("site"), &dir.join("state"));
    site(&paths, &format!("count = {ALL}\n"));
    let site = config::load(&paths.site, &LoadOptions::default()).unwrap().site;
    let one = |guest: &Guest| {
        fs::create_dir_all(paths.guest(&guest.name)).unwrap();
        Live.clone_file(image, &paths.disk(&guest.name), DISK_BYTES, &Progress::silent()).unwrap();
        personalise::disk(&Live, &paths, &site, guest, &Scrubbing::default()).unwrap();
    };
    let rounds = |work: &dyn Fn()| {
        let round = |_| {
            let _ = fs::remove_dir_all(&paths.state);
            rustix::fs::sync();
            table::time(work)
        };
        median((0..3).map(round).collect())
    };
    let few = rounds(&|| site.guests.iter().take(FEW).for_each(one));
    let all = rounds(&|| site.guests.iter().for_each(one));
    row(
        "50 guests, one by one / 5 x 10 guests",
        "ms",
        all,
        Some(few * (ALL / FEW) as f64),
        Target::Ratio(1.2),
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let together = rounds(&|| {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    while let Some(guest) = site.guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        one(guest);
                    }
                });
            }
        });
    });
    row(
        &format!("50 guests, {cores} at a time / one by one"),
        "ms",
        together,
        Some(all),
        Target::Ratio(0.75),
    );
}

/// In a mount namespace of this process, which takes the mount and its loop device with it.
fn on_xfs(dir: &Path, image: &Path) -> Result<(), String> {
    table::own_mounts();
    let (xfs, at) = (dir.join("xfs"), dir.join("at"));
    let made = File::create(&xfs).and_then(|file| file.set_len(4 << 30)).and_then(|()| fs::create_dir(&at));
    made.map_err(|e| e.to_string())?;
    for command in [
        Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&xfs),
        Command::new("mount").args(["-o", "loop"]).arg(&xfs).arg(&at),
        Command::new("cp").arg("--sparse=always").arg(image).arg(at.join("golden")),
    ] {
        let status = command.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("{command:?} failed"));
        }
    }
    let targets = [Target::None, Target::AtMost(100.0)];
    compare("reflink", &at.join("golden"), &at, "--reflink=always", targets);
    many(&at.join("golden"), &at.join("many"));
    nix::mount::umount(&at).map_err(|e| e.to_string())
}

//! A clone of a golden image against `cp`, in one run, as medians: `cp --sparse=always` where the filesystem cannot share
//! blocks, `cp --reflink=always` on a loop-mounted XFS.
//!
//! `GRIDGATE_BENCH_IMAGE` names the image; without it one of the same shape is made (1 GiB, 300 MiB of data in pieces).
//! `GRIDGATE_BENCH_DIR` says where; without it `target/` is used, since /tmp is often in memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gridgate::host::Live;
use gridgate::host::disks::Disks;
use gridgate::progress::Progress;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const ROUNDS: usize = 9;

fn main() {
    let base = std::env::var_os("GRIDGATE_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = match tempfile::tempdir_in(&base) {
        Ok(dir) => dir,
        Err(e) => return eprintln!("skipped: no directory in '{}': {e}", base.display()),
    };
    let golden = dir.path().join("golden");
    let done = match std::env::var_os("GRIDGATE_BENCH_IMAGE") {
        Some(image) => Command::new("cp").arg("--sparse=always").arg(image).arg(&golden).status().map(drop),
        None => make_image(&golden),
    };
    if let Err(e) = done {
        return eprintln!("skipped: no image to clone: {e}");
    }
    compare("copy", &golden, dir.path(), "--sparse=always", true);
    if let Err(e) = on_xfs(dir.path(), &golden) {
        eprintln!("skipped: reflink on XFS: {e}");
    }
}

fn make_image(path: &Path) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.set_len(1 << 30)?;
    let piece: Vec<u8> =
        (0..750 << 10).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3] | 1).collect();
    (0..410u64).try_for_each(|n| file.write_all_at(&piece, n * (2560 << 10)))
}

/// Alternates the two, so that whatever else the machine does meets both alike.
fn compare(what: &str, golden: &Path, dir: &Path, option: &str, sync: bool) {
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    let size = fs::metadata(golden).map_or(0, |meta| meta.len());
    let (mut us, mut cp) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let quiet = || {
            let _ = (fs::remove_file(&ours), fs::remove_file(&theirs));
            if sync {
                rustix::fs::sync();
            }
        };
        quiet();
        us.push(time(|| {
            Live.clone_file(golden, &ours, size, &Progress::silent()).map(drop).map_err(|e| e.to_string())
        }));
        quiet();
        cp.push(time(|| {
            let status = Command::new("cp").arg(option).arg(golden).arg(&theirs).status();
            if status.is_ok_and(|s| s.success()) { Ok(()) } else { Err("cp failed".to_owned()) }
        }));
    }
    let (us, cp) = (median(us), median(cp));
    let ratio = us.as_secs_f64() / cp.as_secs_f64();
    println!("clone ({what}): {us:.1?}, cp {option}: {cp:.1?}, ratio {ratio:.2} (median of {ROUNDS})");
}

fn time(work: impl FnOnce() -> Result<(), String>) -> Duration {
    let started = Instant::now();
    if let Err(e) = work() {
        eprintln!("failed: {e}");
        std::process::exit(1);
    }
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// In a mount namespace of this process, which takes the mount and its loop device with it.
fn on_xfs(dir: &Path, golden: &Path) -> Result<(), String> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| e.to_string())?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| e.to_string())?;
    let (image, at) = (dir.join("xfs"), dir.join("at"));
    let made = File::create(&image).and_then(|file| file.set_len(2 << 30)).and_then(|()| fs::create_dir(&at));
    made.map_err(|e| e.to_string())?;
    for command in [
        Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image),
        Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at),
        Command::new("cp").arg("--sparse=always").arg(golden).arg(at.join("golden")),
    ] {
        let status = command.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("{command:?} failed"));
        }
    }
    compare("reflink", &at.join("golden"), &at, "--reflink=always", true);
    nix::mount::umount(&at).map_err(|e| e.to_string())
}

//! A Debian tree into a new ext4 of 4 GiB, against other programs that do the same from archives of their own; and the archive read and
//! checked, against a program that only unpacks it. Every program has its archive in the page cache. A restore to a file does not wait
//! for the disk, and neither do most of the others, so that results are in the page cache too; rows with "and sync" end when all of the
//! file is on the disk, for both. Those that lose something are told apart.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::path::Path;
use std::process::{Command, Stdio};

use table::{Target, median, row};

const ROUNDS: usize = 5;

/// Makes the filesystem and mounts it on `$M`.
const NEW: &str = "truncate -s 4G disk; mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 disk; mount -o loop disk $M";
/// A peer: its program, how it makes its archive of the tree `$T` (or its filesystem `$I`), how it makes a filesystem of it, and what
/// it loses.
const PEERS: [(&str, &str, &str, &str); 5] = [
    (
        "zstd",
        "tar -C $T --xattrs --xattrs-include='*' --acls --numeric-owner -c . | zstd -3 -T0 -q -o $A",
        "$NEW; zstd -dcq $A | tar -C $M --xattrs --xattrs-include='*' --acls --numeric-owner -xp; umount $M",
        "",
    ),
    (
        "restore",
        "dump -0 -f - $(findmnt -no SOURCE $T) 2>/dev/null | zstd -3 -q -o $A",
        "$NEW; (cd $M; zstd -dcq $A | restore -rf - 2>/dev/null); umount $M",
        "part of times",
    ),
    (
        "unsquashfs",
        "mksquashfs $T $A -quiet -no-progress -comp zstd -Xcompression-level 3",
        "$NEW; unsquashfs -q -n -f -d $M $A; umount $M",
        "times, ACLs",
    ),
    (
        "fsarchiver",
        "fsarchiver -Z 3 savedir $A $T",
        "$NEW; fsarchiver restdir $A $M; umount $M",
        "part of times",
    ),
    (
        "bmaptool",
        "bmaptool -q create -o $A.bmap $I; zstd -3 -T0 -q -o $A $I",
        "bmaptool -q copy --bmap $A.bmap $A disk; truncate -s 4G disk; resize2fs disk 2>/dev/null",
        "smaller disks, and waits for the disk",
    ),
];

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: filesystems are made by root");
    }
    let Some(prepared) = table::prepared() else { return };
    table::own_mounts();
    let dir = table::scratch();
    let at = |name: &str| dir.path().join(name);
    let image = prepared.join("images/debian-12/disk.ext4");
    for name in ["t", "m"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    shell(&format!("mount -o loop,ro {} {}", image.display(), at("t").display()), dir.path(), &image);
    let gridgate = env!("CARGO_BIN_EXE_gridgate");
    shell(&format!("{gridgate} -q image pack --disk $I -o ours --fast --with-keys"), dir.path(), &image);
    let mut found = Vec::new();
    for (program, pack, restore, loses) in PEERS {
        if !Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
        {
            println!("{program}: not here");
            continue;
        }
        // fsarchiver gives its archives that ending, whatever they are called; bmaptool goes by it.
        let name = format!("{program}.{}", if program == "fsarchiver" { "fsa" } else { "zst" });
        shell(&pack.replace("$A", &name), dir.path(), &image);
        found.push((program, restore.replace("$A", &at(&name).display().to_string()), loses));
    }
    let restore = format!("{gridgate} -q image restore ours --to disk --size 4G --insecure-unsigned --yes");
    // In turn, so that whatever else the machine does meets all of them.
    let mut ours = Times::default();
    let mut theirs = vec![Times::default(); found.len()];
    let (mut verified, mut unpacked) = (Vec::new(), Vec::new());
    let time = |script: &str| {
        rustix::fs::sync();
        let took = table::time(|| shell(script, dir.path(), &image));
        let _ = std::fs::remove_file(at("disk"));
        took
    };
    let timed = |script: &str, loses: &str, times: &mut Times| {
        times.alone.push(time(script));
        if loses.is_empty() {
            times.synced.push(time(&format!("{script}; sync disk")));
        }
    };
    for _ in 0..ROUNDS {
        timed(&restore, "", &mut ours);
        for ((_, restore, loses), times) in found.iter().zip(&mut theirs) {
            timed(&restore.replace("$NEW", NEW), loses, times);
        }
        let verify = format!("{gridgate} -q image verify ours --insecure-unsigned");
        verified.push(table::time(|| shell(&verify, dir.path(), &image)));
        unpacked.push(table::time(|| shell("zstd -dcq ours > /dev/null", dir.path(), &image)));
    }
    table::heading("a Debian tree into a new ext4 of 4 GiB");
    for (what, of) in [("", Times::alone as fn(&Times) -> f64), (" and sync", Times::synced)] {
        let keeping = found.iter().zip(&theirs).filter(|((_, _, loses), _)| loses.is_empty());
        if let Some(best) = keeping.map(|(_, times)| of(times)).min_by(f64::total_cmp) {
            let what = format!("restore{what} / the best that keeps the same");
            row(&what, "ms", of(&ours), Some(best), Target::Ratio(0.9));
        }
    }
    for ((program, _, loses), times) in found.iter().zip(&theirs) {
        let what =
            if loses.is_empty() { (*program).to_owned() } else { format!("{program} (loses {loses})") };
        row(&format!("restore / {what}"), "ms", ours.alone(), Some(times.alone()), Target::None);
    }
    row("verify / zstd -dc", "ms", median(verified), Some(median(unpacked)), Target::Ratio(1.0));
    let _ = Command::new("umount").arg(at("t")).status();
}

/// Milliseconds of each round.
#[derive(Debug, Clone, Default)]
struct Times {
    alone: Vec<f64>,
    synced: Vec<f64>,
}

impl Times {
    fn alone(&self) -> f64 {
        median(self.alone.clone())
    }

    fn synced(&self) -> f64 {
        median(self.synced.clone())
    }
}

fn shell(script: &str, dir: &Path, image: &Path) {
    let at = |name: &str| dir.join(name).display().to_string();
    let script =
        script.replace("$T", &at("t")).replace("$M", &at("m")).replace("$I", &image.display().to_string());
    let ran =
        Command::new("sh").args(["-ec", &script]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

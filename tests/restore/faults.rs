//! What goes wrong, and what is left then.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::tree;
use super::{Bench, Disk, is_filesystem, said, sound};

/// A tree of many small and some large files that do not compress, so that an archive has several frames.
fn large(bench: &Bench) {
    tree::make(&bench.path("tree"), 9);
    let mut numbers = 1u64;
    for file in 0..40 {
        let bytes: Vec<u8> = (0..1_000_000)
            .map(|_| {
                numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (numbers >> 56) as u8
            })
            .collect();
        fs::write(bench.path(&format!("tree/noise-{file}")), bytes).unwrap();
    }
    bench.pack("tree", "a");
}

#[test]
fn nothing_is_overwritten_that_is_in_use_holds_something_or_is_not_trusted() {
    let Some(bench) = Bench::new() else { return };
    tree::make(&bench.path("tree"), 7);
    bench.pack("tree", "a");
    File::create(bench.path("file")).unwrap().set_len(300 << 20).unwrap();
    let ask =
        |to: &str| ["image", "restore", "a", "--to", to, "--insecure-unsigned"].map(str::to_owned).to_vec();
    let refused = |to: &str, why: &str| {
        let words = ask(to);
        bench.fails(&words.iter().map(String::as_str).collect::<Vec<_>>(), 4, why);
    };
    bench.fails(&["image", "restore", "a", "--to", "new"], 4, "allowed_signers");
    assert!(!bench.path("new").exists());

    let disk = Disk::over(&bench.path("file"));
    refused("file", "it is behind the loop device");
    bench.done(&Bench::restore("a", &disk.0, &[]));
    refused(&disk.0, "holds a filesystem");
    fs::create_dir(bench.path("at")).unwrap();
    assert!(Command::new("mount").arg(&disk.0).arg(bench.path("at")).status().unwrap().success());
    bench.fails(&Bench::restore("a", &disk.0, &[]), 4, "it is mounted on");
    refused("at", "is not empty");
    assert!(Command::new("umount").arg(bench.path("at")).status().unwrap().success());
    refused("/dev/null", "neither a file, nor a directory, nor a block device");
    refused("a", "the archive itself");
    fs::write(bench.path("mine"), "do not touch").unwrap();
    refused("mine", "hint: --yes");
    assert_eq!(fs::read(bench.path("mine")).unwrap(), b"do not touch");
    drop(disk);
    bench.clean();
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_with_salvage_only_what_it_hits_is_lost() {
    let Some(bench) = Bench::new() else { return };
    large(&bench);
    let whole = fs::read(bench.path("a")).unwrap();
    fs::write(bench.path("old"), "the old one").unwrap();
    let mut salvaged = 0;
    for step in 1..12 {
        let mut damaged = whole.clone();
        let at = whole.len() * step / 12;
        damaged[at] ^= 0x10;
        fs::write(bench.path("damaged"), &damaged).unwrap();
        let ran = bench.run(&Bench::restore("damaged", "old", &[]));
        assert_eq!(ran.status.code(), Some(1), "{at}: {}", said(&ran));
        assert_eq!(fs::read(bench.path("old")).unwrap(), b"the old one", "{at}");
        let ran = bench.run(&Bench::restore("damaged", "saved", &["--salvage", "--verify", "--json"]));
        if ran.status.code() == Some(5) {
            let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
            let lost = told["lost"].as_array().unwrap().len();
            assert!(lost > 0 && said(&ran).contains("lost: /"), "{at}: {}", said(&ran));
            sound(&bench.path("saved"));
            let against = bench.run(&["image", "verify", "a", "--against", "saved", "--insecure-unsigned"]);
            assert_eq!(against.status.code(), Some(3), "{}", said(&against));
            let out = String::from_utf8_lossy(&against.stdout).into_owned();
            let missing = out.lines().filter(|line| line.contains("it is missing")).count();
            assert!(missing > 0 && missing <= 50.min(lost), "{at}: {lost} lost\n{out}");
            salvaged += 1;
        }
        bench.clean();
    }
    assert!(salvaged > 5, "{salvaged}");
}

#[test]
fn an_archive_that_ends_early_leaves_a_disk_without_a_filesystem_and_a_file_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    large(&bench);
    let whole = fs::read(bench.path("a")).unwrap();
    File::create(bench.path("file")).unwrap().set_len(400 << 20).unwrap();
    let disk = Disk::over(&bench.path("file"));
    bench.done(&Bench::restore("a", &disk.0, &[]));
    assert!(is_filesystem(disk.0.as_ref()));
    for part in [3, 2] {
        fs::write(bench.path("short"), &whole[..whole.len() / part]).unwrap();
        bench.fails(&Bench::restore("short", &disk.0, &[]), 5, "holds no filesystem now");
        assert!(!is_filesystem(disk.0.as_ref()));
        bench.fails(&Bench::restore("short", "new", &[]), 1, "it ends");
        bench.fails(&Bench::restore("short", "dir/", &[]), 1, "it ends");
        assert!(!bench.path("new").exists() && !bench.path("dir").exists());
    }
    bench.done(&Bench::restore("a", &disk.0, &["--verify"]));
    drop(disk);
    bench.clean();
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    large(&bench);
    fs::create_dir(bench.path("small")).unwrap();
    for mib in [1, 10, 30] {
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(bench.path("small"));
        assert!(mount.status().unwrap().success());
        let ran = bench.run(&Bench::restore("a", "small/disk", &[]));
        let left = fs::read_dir(bench.path("small")).unwrap().count();
        let dir = bench.run(&Bench::restore("a", "small/dir/", &[]));
        let left_of_dir = fs::read_dir(bench.path("small")).unwrap().count();
        assert!(Command::new("umount").arg(bench.path("small")).status().unwrap().success());
        assert_eq!(ran.status.code(), Some(1), "{mib}: {}", said(&ran));
        assert_eq!(dir.status.code(), Some(1), "{mib}: {}", said(&dir));
        assert!(said(&dir).contains("No space left on device"), "{mib}: {}", said(&dir));
        assert_eq!((left, left_of_dir), (0, 0), "{mib}");
    }
    bench.clean();
}

#[test]
fn a_disk_that_is_cut_short_under_a_restore_is_no_filesystem() {
    let Some(bench) = Bench::new() else { return };
    large(&bench);
    let file = File::create(bench.path("file")).unwrap();
    file.set_len(400 << 20).unwrap();
    let disk = Disk::over(&bench.path("file"));
    // A disk that takes everything and keeps nothing is found out only when it is read.
    let mut restore = bench.command(&Bench::restore("-", &disk.0, &["--verify"]));
    let mut running = restore.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = running.stdin.take().unwrap();
    let whole = fs::read(bench.path("a")).unwrap();
    let most = whole.len() / 10 * 9;
    std::io::Write::write_all(&mut pipe, &whole[..most]).unwrap();
    // What has been written so far goes where it is then taken away.
    std::thread::sleep(Duration::from_secs(1));
    rustix::fs::sync();
    file.set_len(20 << 20).unwrap();
    let _ = std::io::Write::write_all(&mut pipe, &whole[most..]);
    drop(pipe);
    let ran = running.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(5), "{}", said(&ran));
    assert!(!is_filesystem(&bench.path("file")));
    drop(disk);
    bench.clean();
}

#[test]
fn killed_or_interrupted_at_any_moment_it_leaves_no_filesystem_and_the_next_run_works() {
    let Some(bench) = Bench::new() else { return };
    large(&bench);
    File::create(bench.path("file")).unwrap().set_len(400 << 20).unwrap();
    let disk = Disk::over(&bench.path("file"));
    // As long as it takes here, so that most moments are before its end, whatever the machine.
    let began = std::time::Instant::now();
    bench.done(&Bench::restore("a", &disk.0, &[]));
    let whole = began.elapsed();
    let mut unfinished = 0;
    for moment in 0..14u32 {
        let signal = if moment % 4 == 3 { "-INT" } else { "-KILL" };
        let to = if moment % 2 == 0 { disk.0.as_str() } else { "new" };
        let _ = fs::remove_file(bench.path("new"));
        let mut command = bench.command(&Bench::restore("a", to, &[]));
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * (moment + 1) / 15);
        Command::new("kill")
            .args([signal, &running.id().to_string()])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if running.wait().unwrap().success() {
            continue;
        }
        unfinished += 1;
        let at = bench.path(to);
        // A kill just behind the last write leaves the whole one.
        if at.exists() && is_filesystem(&at) {
            sound(&at);
        }
    }
    assert!(unfinished > 3, "{unfinished}");
    bench.done(&Bench::restore("a", &disk.0, &["--verify"]));
    bench.done(&Bench::restore("a", "new", &["--verify"]));
    sound(disk.0.as_ref());
    assert_eq!(File::open(bench.path("file")).unwrap().read_at(&mut [0], 0).unwrap(), 1);
    drop(disk);
    bench.clean();
}

//! What goes in comes out.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use super::server::Server;
use super::tree;
use super::{Bench, Disk, is_filesystem, sound};

/// The manifest without its first line, which tells when, where and of what it was packed.
fn entries(bench: &Bench, archive: &str) -> Vec<String> {
    let tar = Command::new("sh")
        .args(["-c", "zstd -dcq \"$0\" | tar -xO .gridgate/manifest.jsonl"])
        .arg(bench.path(archive))
        .output()
        .unwrap();
    let text = String::from_utf8(tar.stdout).unwrap();
    assert!(text.lines().count() > 20, "{archive}: {text}");
    text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn what_was_packed_restored_and_packed_again_has_the_same_manifest_on_every_filesystem() {
    let Some(bench) = Bench::new() else { return };
    for seed in [1, 2, 3] {
        let from = format!("tree{seed}");
        tree::make(&bench.path(&from), seed);
        bench.pack(&from, "first");
        let first = entries(&bench, "first");
        for kind in ["ext4", "btrfs", "xfs", "ext4"] {
            if kind != "ext4" && Command::new(format!("mkfs.{kind}")).arg("-V").output().is_err() {
                eprintln!("skipped: nothing here makes {kind}");
                continue;
            }
            let _ = fs::remove_file(bench.path("disk"));
            bench.done(&Bench::restore("first", "disk", &["--fs", kind, "--verify"]));
            bench.done(&["image", "pack", "--disk", "disk", "-o", "second", "--fast", "--with-keys"]);
            assert_eq!(first, entries(&bench, "second"), "seed {seed}, {kind}");
            bench.done(&["image", "verify", "first", "--against", "disk", "--insecure-unsigned"]);
        }
        bench.done(&Bench::restore("first", "out", &["--verify"]).to_vec());
        let _ = fs::remove_file(bench.path("out"));
        bench.done(&Bench::restore("first", "out/", &["--verify"]));
        bench.pack("out", "third");
        assert_eq!(first, entries(&bench, "third"), "seed {seed}, a directory");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
    bench.clean();
}

#[test]
fn a_disk_gets_its_filesystem_to_its_end_or_as_large_as_was_said_and_smaller_ones_are_told_the_minimum() {
    let Some(bench) = Bench::new() else { return };
    tree::make(&bench.path("tree"), 4);
    bench.pack("tree", "a");
    File::create(bench.path("file")).unwrap().set_len(700 << 20).unwrap();
    let disk = Disk::over(&bench.path("file"));
    let size = |json: String| {
        let told: serde_json::Value = serde_json::from_str(&json).unwrap();
        told["size_bytes"].as_u64().unwrap() >> 20
    };
    for (more, mib) in [(&[][..], 700), (&["--size", "300M"][..], 300)] {
        let told = bench.done(&Bench::restore("a", &disk.0, &[more, &["--verify", "--json"]].concat()));
        assert_eq!(size(told), mib);
        sound(disk.0.as_ref());
    }
    let fit = bench.done(&Bench::restore("a", &disk.0, &["--fit", "--json"]));
    let fit: serde_json::Value = serde_json::from_str(&fit).unwrap();
    let minimum = fit["minimum_bytes"].as_u64().unwrap();
    assert!(fit["size_bytes"].as_u64().unwrap() > minimum);
    // The minimum is enough.
    bench.done(&Bench::restore("a", &disk.0, &["--size", &minimum.to_string(), "--verify"]));
    sound(disk.0.as_ref());
    bench.fails(&Bench::restore("a", &disk.0, &["--size", "4M"]), 4, "at least");
    assert!(is_filesystem(disk.0.as_ref()));
    drop(disk);
    bench.clean();
}

#[test]
fn an_archive_comes_through_a_pipe_and_from_a_server_that_breaks_off() {
    let Some(bench) = Bench::new() else { return };
    tree::make(&bench.path("tree"), 5);
    bench.pack("tree", "a");
    let mut piped = bench.command(&Bench::restore("-", "piped", &["--verify"]));
    let ran = piped.stdin(Stdio::from(File::open(bench.path("a")).unwrap())).output().unwrap();
    assert!(ran.status.success(), "{}", super::said(&ran));
    sound(&bench.path("piped"));

    if Command::new("curl").arg("-V").output().is_err() {
        return eprintln!("skipped: no curl here");
    }
    let content = fs::read(bench.path("a")).unwrap();
    for breaks in [false, true] {
        let server = Server::of(content.clone(), breaks);
        bench.done(&Bench::restore(&server.url("a"), "fetched", &["--verify"]));
        sound(&bench.path("fetched"));
        bench.fails(&Bench::restore(&server.url("gone"), "none", &[]), 1, "404");
        assert!(!bench.path("none").exists());
    }
    bench.clean();
}

#[test]
fn an_archive_of_an_image_becomes_an_image_of_this_host() {
    let Some(bench) = Bench::new() else { return };
    tree::make(&bench.path("tree"), 6);
    bench.pack("tree", "a");
    bench.done(&["image", "restore", "a", "--as", "copy", "--insecure-unsigned"]);
    bench.done(&["image", "verify", "copy"]);
    sound(&bench.path("state/images/copy/disk.ext4"));
    bench.clean();
}

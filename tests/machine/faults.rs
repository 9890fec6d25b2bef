//! Disks that are full at every stage, kills, and two at a time: what is left then, and who finds it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::bundle::{Packed, said, succeeded};
use super::{Centre, kill_after, none_attached, succeeds, table};

/// A filesystem of so many MiB on a directory, as long as this lives.
struct Small(PathBuf);

impl Small {
    fn on(dir: &Path, mib: u64) -> Self {
        fs::create_dir_all(dir).unwrap();
        succeeds(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]).arg(dir));
        Self(dir.to_owned())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// `gc` of a state directory; what it has found.
fn gc(state: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    command.arg("--site").arg(state).arg("--state").arg(state).arg("gc");
    String::from_utf8(succeeds(&mut command)).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_disk_that_fills_up_under_a_machine_that_is_made_keeps_nothing_of_it() {
    let Some(centre) = Centre::new() else { return };
    let out = centre.at("out");
    let mut failures = 0;
    for mib in (1..).map(|n| n * n * 12) {
        let small = Small::on(&out, mib);
        let output = centre.install(&out.join("disk"), &["--size", "1G"]);
        let names = small.names();
        if output.status.success() {
            assert_eq!(names, ["disk"]);
            assert_eq!(table(&out.join("disk")).len(), 4);
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{mib}: {}", said(&output));
        assert_eq!(names, Vec::<String>::new(), "{mib}: {}", said(&output));
        none_attached(centre.dir.path());
        failures += 1;
        assert!(mib < 1500, "{}", said(&output));
    }
    assert!(failures >= 2, "{failures}");
}

#[test]
fn a_disk_that_fills_up_under_a_bundle_keeps_the_old_one() {
    let Some(packed) = Packed::new() else { return };
    let whole = fs::metadata(packed.packed("whole", &[])).unwrap().len();
    let dir = packed.centre.at("small");
    let mut failures = 0;
    for tenth in [0, 2, 5, 9, 13] {
        let mib = ((whole * tenth / 10) >> 20) + 1;
        let small = Small::on(&dir, mib);
        fs::write(dir.join("bundle"), "the old one").unwrap();
        let output = packed.pack("small/bundle", &[]);
        assert_eq!(small.names(), ["bundle"], "{mib}");
        match output.status.code() {
            Some(0) => assert!(fs::metadata(dir.join("bundle")).unwrap().len() > whole / 2),
            status => {
                assert_eq!(status, Some(1), "{mib}: {}", said(&output));
                assert!(said(&output).contains("No space left on device"), "{mib}: {}", said(&output));
                assert_eq!(fs::read(dir.join("bundle")).unwrap(), b"the old one");
                failures += 1;
            }
        }
        drop(small);
    }
    assert!(failures >= 3, "{failures}");
}

#[test]
fn a_state_directory_that_is_too_small_for_a_bundle_is_told_of_and_keeps_nothing() {
    let Some(packed) = Packed::new() else { return };
    let bundle = packed.packed("bundle", &[]);
    let state = packed.centre.at("elsewhere");
    for mib in [1, 4, 16] {
        let small = Small::on(&state, mib);
        let output = packed.install(&bundle, "out/disk", &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{mib}: {text}");
        assert!(
            text.contains("unpacking the bundle takes") && text.contains("hint: --state DIR"),
            "{mib}: {text}"
        );
        assert_eq!(packed.unpacked(), Vec::<PathBuf>::new(), "{mib}");
        drop(small);
    }
    assert_eq!(packed.centre.beside(), Vec::<String>::new());
}

#[test]
fn what_a_killed_command_left_wherever_it_was_is_found_by_gc() {
    let Some(packed) = Packed::new() else { return };
    let bundle = packed.packed("bundle", &[]);
    let (out, state) = (packed.centre.at("out"), packed.centre.at("elsewhere"));
    let signers = packed.centre.at("signers");
    let target = out.join("disk");
    let mut found = Vec::new();
    for lines in 1.. {
        let mut command = packed.elsewhere(&["install", bundle.to_str().unwrap(), "--size", "1G", "--to"]);
        command.arg(&target).arg("--allowed-signers").arg(&signers);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let killed = kill_after(&mut child, lines);
        none_attached(&out);
        if !killed || target.exists() {
            assert_eq!(table(&target).len(), 4, "it had its name after {lines} lines");
            break;
        }
        found.extend(gc(&state));
        assert_eq!(packed.centre.beside(), Vec::<String>::new(), "after {lines} lines");
        assert_eq!(packed.unpacked(), Vec::<PathBuf>::new(), "after {lines} lines");
        assert_eq!(gc(&state), Vec::<String>::new(), "after {lines} lines");
    }
    let of = |what: &str| found.iter().filter(|path| path.contains(what)).count();
    assert!(of("/bundles/.bundle.making-") > 1 && of("/out/.disk.making-") > 1, "{found:#?}");

    // And one that was being packed.
    let mut command = packed.centre.gridgate(&["pack", "-o", out.join("x").to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    while packed.centre.beside().iter().all(|name| !name.starts_with(".x.making-")) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it was never begun");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let found = gc(&packed.centre.at("state"));
    assert!(found.iter().any(|path| path.contains("/out/.x.making-")), "{found:?}");
    assert!(
        packed.centre.beside().iter().all(|name| !name.starts_with(".x")),
        "{:?}",
        packed.centre.beside()
    );
}

#[test]
fn two_that_pack_to_one_name_both_write_a_whole_bundle() {
    let Some(packed) = Packed::new() else { return };
    let to = packed.centre.at("both");
    let key = packed.centre.at("key");
    let begin = || {
        let mut command = packed.centre.gridgate(&["pack", "--fast", "-o", to.to_str().unwrap()]);
        command.arg("--sign").arg(&key).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (first, second) = (begin(), begin());
    for child in [first, second] {
        succeeded(&child.wait_with_output().unwrap());
    }
    succeeded(&packed.install(&to, "out/disk", &[]));
    let left = fs::read_dir(packed.centre.dir.path()).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().contains(".making-")).count();
    assert_eq!(left, 0);
}

#[test]
fn an_image_that_is_removed_while_machines_are_made_of_it_spoils_none() {
    let Some(centre) = Centre::new() else { return };
    let (images, aside) = (centre.at("state/images"), centre.at("aside"));
    succeeds(Command::new("cp").arg("-a").arg(&images).arg(&aside));
    let disk = centre.at("out/disk");
    let (mut made, mut refused) = (0, 0);
    for (name, lines) in
        [("gateway", 1), ("gateway", 2), ("small", 1), ("small", 2), ("small", 3), ("small", 4)]
    {
        let mut command = centre.gridgate(&["install", "--size", "1G", "--to", disk.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        for _ in 0..lines {
            stderr.read_line(&mut told).unwrap();
        }
        let mut remove = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        remove.arg("--state").arg(centre.at("state")).args(["image", "remove", name]);
        succeeds(&mut remove);
        std::io::Read::read_to_string(&mut stderr, &mut told).unwrap();
        let output: Output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(0) => {
                assert_eq!(table(&disk).len(), 4);
                fs::remove_file(&disk).unwrap();
                made += 1;
            }
            status => {
                assert_eq!(status, Some(1), "{told}");
                assert!(told.contains(&format!("'{name}'")), "{told}");
                refused += 1;
            }
        }
        assert_eq!(centre.beside(), Vec::<String>::new(), "{told}");
        fs::remove_dir_all(&images).unwrap();
        succeeds(Command::new("cp").arg("-a").arg(&aside).arg(&images));
    }
    assert_eq!(made + refused, 6);
    assert!(made > 0, "none was made");
}

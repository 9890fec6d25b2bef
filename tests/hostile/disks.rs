//! Filesystems that are full, closed or damaged, through the command and both ways to open them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use super::{LIMIT, Scene};

/// A small filesystem with the guest's files in it, and a state directory.
struct Disk {
    scene: Scene,
    file: PathBuf,
}

impl Disk {
    fn new(options: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: loop devices need root");
            return None;
        }
        let scene = Scene::new();
        let file = scene.outside().join("disk");
        fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let mut made = Command::new("mke2fs");
        made.args(["-q", "-t", "ext4"]).args(options).arg("-d").arg(scene.guest()).arg(&file);
        assert!(made.status().unwrap().success());
        Some(Self { scene, file })
    }

    fn personalise(&self, extra: &[&str]) -> Output {
        let began = Instant::now();
        let ran = Command::new(env!("CARGO_BIN_EXE_gridgate"))
            .arg("--state")
            .arg(self.scene.outside().join("state"))
            .args(["personalise", "--hostname", "wn7", "--disk"])
            .arg(&self.file)
            .args(extra)
            .output()
            .unwrap();
        assert!(began.elapsed() < LIMIT);
        ran
    }

    fn debugfs(&self, write: bool, command: &str) -> String {
        let mut debugfs = Command::new("debugfs");
        if write {
            debugfs.arg("-w");
        }
        let ran = debugfs.args(["-R", command]).arg(&self.file).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    fn is_sound(&self) -> bool {
        Command::new("e2fsck").arg("-fn").arg(&self.file).output().unwrap().status.success()
    }
}

fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

const WAYS: [&[&str]; 2] = [&[], &["--offline"]];

#[test]
fn a_full_filesystem_is_an_error_and_is_sound_afterwards() {
    for way in WAYS {
        let Some(disk) = Disk::new(&["-m", "0"]) else { return };
        let filler = disk.scene.outside().join("filler");
        let free = disk.debugfs(false, "stats");
        let number = |key: &str| -> u64 {
            let line = free.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
            line.split(':').nth(1).unwrap().trim().parse().unwrap()
        };
        let bytes = number("Free blocks") * number("Block size");
        fs::write(&filler, vec![7; bytes as usize]).unwrap();
        // As much as there is room for, which debugfs tells by an error and leaves in place.
        disk.debugfs(true, &format!("write {} filler", filler.display()));
        let _ = Command::new("e2fsck").arg("-fp").arg(&disk.file).output();
        let ran = disk.personalise(way);
        assert!(!ran.status.success(), "{way:?}: {ran:?}");
        assert!(disk.is_sound(), "{way:?}: {}", said(&ran));
        assert!(!disk.debugfs(false, "ls -p /etc").contains(".gridgate-"), "{way:?}");
    }
}

#[test]
fn a_filesystem_without_free_inodes_is_an_error_and_is_sound_afterwards() {
    for way in WAYS {
        let Some(disk) = Disk::new(&["-N", "80"]) else { return };
        let script: String = (0..200).map(|at| format!("mkdir d{at}\n")).collect();
        let commands = disk.scene.outside().join("commands");
        fs::write(&commands, script).unwrap();
        let _ = Command::new("debugfs").arg("-w").arg("-f").arg(&commands).arg(&disk.file).output();
        let ran = disk.personalise(way);
        assert!(!ran.status.success(), "{way:?}: {ran:?}");
        assert!(disk.is_sound(), "{way:?}: {}", said(&ran));
    }
}

#[test]
fn a_file_that_nobody_may_change_is_an_error_that_names_it() {
    let Some(disk) = Disk::new(&[]) else { return };
    // EXT4_IMMUTABLE_FL beside EXT4_EXTENTS_FL.
    disk.debugfs(true, "set_inode_field /etc/hostname flags 0x80010");
    let ran = disk.personalise(&[]);
    assert!(!ran.status.success() && said(&ran).contains("/etc/hostname"), "{ran:?}");
    assert_eq!(disk.debugfs(false, "cat /etc/hostname"), "oldname\n");
}

#[test]
fn a_disk_that_may_not_be_written_is_an_error_and_stays_as_it_is() {
    let Some(disk) = Disk::new(&[]) else { return };
    let before = fs::read(&disk.file).unwrap();
    // An undo file cannot be made where a directory is.
    fs::create_dir(disk.file.with_file_name("disk.gridgate-undo-0")).unwrap();
    let ran = disk.personalise(&["--offline"]);
    assert!(!ran.status.success(), "{ran:?}");
    assert!(fs::read(&disk.file).unwrap() == before);
}

#[test]
fn a_journal_that_was_not_replayed_is_replayed_before_anything_is_changed() {
    for way in WAYS {
        let Some(disk) = Disk::new(&[]) else { return };
        // A transaction that the filesystem itself does not know yet: a copy of a superblock's own block.
        let script = disk.scene.outside().join("journal");
        fs::write(&script, "journal_open\njournal_write -b 500 /dev/zero\njournal_close\n").unwrap();
        let ran = Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(&disk.file).output().unwrap();
        let dirty = disk.debugfs(false, "features").contains("needs_recovery");
        if !dirty {
            eprintln!("skipped: debugfs made no journal to replay: {ran:?}");
            return;
        }
        let ran = disk.personalise(way);
        assert!(ran.status.success(), "{way:?}: {ran:?}");
        assert_eq!(disk.debugfs(false, "cat /etc/hostname"), "wn7\n", "{way:?}");
        assert!(!disk.debugfs(false, "features").contains("needs_recovery"), "{way:?}");
    }
}

/// In user space, wherever the damage is: what the kernel does with any of these is not for a test to try on the machine it runs on.
#[test]
fn a_damaged_filesystem_is_an_error_or_comes_out_right_and_never_a_crash() {
    const OLD: &str = "^extents,^64bit,^metadata_csum";
    for options in [&[][..], &["-O", OLD, "-I", "128"], &["-O", "inline_data,^metadata_csum", "-b", "1024"]] {
        let Some(disk) = Disk::new(options) else { return };
        let whole = fs::read(&disk.file).unwrap();
        for at in (1024..600 << 10).step_by(33_331) {
            fs::write(&disk.file, &whole).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&disk.file).unwrap();
            let damage: Vec<u8> = whole[at..at + 48].iter().map(|byte| byte ^ 0x5a).collect();
            file.write_all_at(&damage, at as u64).unwrap();
            let ran = disk.personalise(&["--offline", "--new-identity"]);
            let code = ran.status.code();
            assert!(matches!(code, Some(0..=5)), "{options:?}, damage at {at}: {ran:?}");
            assert!(!said(&ran).contains("panicked"), "{options:?}, damage at {at}: {ran:?}");
        }
    }
}

/// Through the kernel, where each structure has a checksum that finds the damage, and a mount that turns read-only at once.
#[test]
fn a_damaged_structure_is_an_error_or_comes_out_right_when_it_is_mounted_and_nothing_is_left() {
    let Some(disk) = Disk::new(&["-b", "4096"]) else { return };
    let whole = fs::read(&disk.file).unwrap();
    let block = |inode: &str| -> u64 {
        let blocks = disk.debugfs(false, &format!("blocks {inode}"));
        blocks.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let inode = |inode: &str| -> u64 {
        let place = disk.debugfs(false, &format!("imap {inode}"));
        let word = |after: &str| {
            let rest = &place[place.find(after).unwrap() + after.len()..];
            rest.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty()).unwrap().to_owned()
        };
        let offset = u64::from_str_radix(word("offset").trim_start_matches("0x"), 16).unwrap();
        word("located at block").parse::<u64>().unwrap() * 4096 + offset
    };
    let damages = [
        ("counts in the superblock", 1024, 32),
        ("the superblock's features", 1024 + 0x5c, 12),
        ("the superblock's checksum", 1024 + 0x3fc, 4),
        ("a group's descriptor", 4096, 32),
        ("the inode of the top directory", inode("<2>"), 48),
        ("where the top directory is", inode("<2>") + 40, 24),
        ("the inode of /etc", inode("/etc"), 128),
        ("where /etc/hostname is", inode("/etc/hostname") + 40, 24),
        ("the top directory", block("<2>"), 64),
        ("the checksum of /etc", block("/etc") + 4084, 12),
        ("the journal's inode", inode("<8>"), 64),
        ("the journal's superblock", block("<8>"), 32),
    ];
    let mut refused = Vec::new();
    for (what, at, len) in damages {
        let mut bytes = whole.clone();
        bytes[at as usize..][..len].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&disk.file, &bytes).unwrap();
        let ran = disk.personalise(&["--new-identity"]);
        assert!(matches!(ran.status.code(), Some(0..=5)), "{what}: {ran:?}");
        assert!(!said(&ran).contains("panicked"), "{what}: {ran:?}");
        if ran.status.success() {
            assert_eq!(disk.debugfs(false, "cat /etc/hostname"), "wn7\n", "{what}");
        } else {
            refused.push(what);
        }
        crate::loops::are_gone_from(&disk.file);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(disk.file.to_str().unwrap()), "{what}");
        assert_eq!(fs::read_to_string(disk.scene.outside().join("victim")).unwrap(), super::VICTIM, "{what}");
    }
    // A test that damages nothing that anybody looks at tests nothing.
    assert!(refused.contains(&"a group's descriptor") && refused.len() >= 6, "{refused:?}");
}

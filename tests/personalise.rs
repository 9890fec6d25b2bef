//! `gridgate personalise` on disks, partitions and trees that are made for the test: no guest, no image.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A site directory and a state directory of the test's own.
struct Box {
    dir: tempfile::TempDir,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Box {
    fn new() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        made.gridgate(&["init", made.path("site").to_str().unwrap()]);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gridgate(&self, args: &[&str]) -> Ran {
        let ran = Command::new(env!("CARGO_BIN_EXE_gridgate"))
            .args([
                "--site",
                self.path("site").to_str().unwrap(),
                "--state",
                self.path("state").to_str().unwrap(),
            ])
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
    }

    fn tree(&self, name: &str) -> PathBuf {
        let tree = self.path(name);
        for dir in ["etc/ssh", "etc/network", "sbin", "var/lib/dbus", "root"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
        fs::write(tree.join("etc/hostname"), "oldname\n").unwrap();
        fs::write(tree.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(tree.join("etc/fstab"), "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n")
            .unwrap();
        fs::write(tree.join("sbin/ifup"), "").unwrap();
        tree
    }

    /// A filesystem with that tree in it, at an offset of a file that is large enough for a partition table before it.
    fn filesystem(&self, at: u64) -> Option<PathBuf> {
        self.filesystem_of(&self.tree("tree"), at)
    }

    fn filesystem_of(&self, tree: &Path, at: u64) -> Option<PathBuf> {
        self.filesystem_like(&["-t", "ext4"], tree, at)
    }

    fn filesystem_like(&self, form: &[&str], tree: &Path, at: u64) -> Option<PathBuf> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: loop devices need root");
            return None;
        }
        let (disk, part) = (self.path("disk"), self.path("part"));
        fs::File::create(&part).unwrap().set_len(32 << 20).unwrap();
        let made = Command::new("mke2fs")
            .args(form)
            .args(["-q", "-U", "11111111-2222-3333-4444-555555555555", "-d"])
            .args([tree, &part])
            .status();
        assert!(made.unwrap().success());
        fs::write(&disk, vec![0; at as usize]).unwrap();
        let whole = fs::OpenOptions::new().write(true).open(&disk).unwrap();
        whole.write_all_at(&fs::read(&part).unwrap(), at).unwrap();
        Some(disk)
    }
}

fn inside(disk: &Path, path: &str) -> String {
    let ran = Command::new("debugfs").arg("-R").arg(format!("cat {path}")).arg(disk).output().unwrap();
    // Of a file that is in its inode, all the room is shown.
    String::from_utf8(ran.stdout).unwrap().trim_end_matches('\0').to_owned()
}

const SOMEBODY: [&str; 8] = [
    "--hostname",
    "wn7",
    "--domain",
    "example.org",
    "--address",
    "192.0.2.7/24",
    "--mac",
    "52:54:00:00:00:07",
];

#[test]
fn a_tree_becomes_a_machine_without_root_and_a_second_run_touches_nothing_not_even_times() {
    let here = Box::new();
    let tree = here.tree("tree");
    let mut args = vec!["personalise", "--tree", tree.to_str().unwrap()];
    args.extend(SOMEBODY);
    let ran = here.gridgate(&args);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(fs::read_to_string(tree.join("etc/hostname")).unwrap(), "wn7\n");
    assert!(
        fs::read_to_string(tree.join("etc/hosts")).unwrap().ends_with("192.0.2.7\twn7.example.org wn7\n")
    );
    let times = || -> Vec<(PathBuf, i64, i64)> {
        let all = walkdir::WalkDir::new(&tree).sort_by_file_name().into_iter().map(Result::unwrap);
        all.map(|entry| {
            let meta = entry.metadata().unwrap();
            (entry.into_path(), meta.ctime(), meta.ctime_nsec())
        })
        .collect()
    };
    let before = times();
    let again = here.gridgate(&args);
    assert!(again.err.contains("wn7.example.org: nothing had to be changed"), "{again:?}");
    assert_eq!(times(), before);
}

#[test]
fn an_address_of_the_old_machine_that_stays_is_told_of_and_goes_when_it_is_asked_for() {
    let here = Box::new();
    let tree = here.tree("tree");
    let interfaces = tree.join("etc/network/interfaces");
    let old = "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n  address 192.0.2.99/24\n";
    fs::create_dir_all(tree.join("etc/systemd/network")).unwrap();
    fs::write(tree.join("etc/systemd/network/10-old.link"), "[Match]\nMACAddress=52:54:00:00:00:63\n")
        .unwrap();
    let args = |more: &[&'static str]| {
        [&["personalise", "--tree", tree.to_str().unwrap()], &SOMEBODY[..4], more].concat()
    };
    // One that is lent goes with its lease.
    fs::create_dir_all(tree.join("var/lib/dhcp")).unwrap();
    fs::write(tree.join("var/lib/dhcp/dhclient.leases"), "lease {\n  fixed-address 192.0.2.98;\n}\n")
        .unwrap();
    fs::write(tree.join("etc/hosts"), "192.0.2.98 oldname\n").unwrap();
    fs::write(&interfaces, "auto eth0\niface eth0 inet dhcp\n").unwrap();
    let lent = here.gridgate(&args(&["--diff"]));
    assert!(lent.status == 3 && !lent.err.contains("192.0.2.98"), "{lent:?}");

    fs::write(&interfaces, old).unwrap();
    let told = "no address was given, and it keeps 192.0.2.99 of the machine that it was\nhint: --address";
    let shown = here.gridgate(&args(&["--diff"]));
    assert!(shown.status == 3 && shown.err.contains(told), "{shown:?}");
    let ran = here.gridgate(&args(&[]));
    assert!(ran.status == 0 && ran.err.contains(told), "{ran:?}");
    assert_eq!(fs::read_to_string(&interfaces).unwrap(), old);
    // It is that machine by now, and the advice still holds.
    for said in ["2 files changed", "nothing had to be changed"] {
        let ran = here.gridgate(&args(&["--scrub", "network"]));
        assert!(ran.status == 0 && ran.err.contains(said) && !ran.err.contains("192.0.2.99"), "{ran:?}");
    }
    assert_eq!(fs::read_to_string(&interfaces).unwrap(), "auto lo\niface lo inet loopback\n");
    assert!(!tree.join("etc/systemd/network/10-old.link").exists());
}

#[test]
fn what_would_change_is_shown_with_status_3_and_is_not_changed() {
    let here = Box::new();
    let tree = here.tree("tree");
    let tree = tree.to_str().unwrap();
    let mut args = vec!["personalise", "--tree", tree, "--diff", "--json"];
    args.extend(SOMEBODY);
    let ran = here.gridgate(&args);
    assert_eq!(ran.status, 3, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    let paths: Vec<&str> =
        told["differences"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"/etc/hostname") && paths.contains(&"/etc/ssh/ssh_host_ed25519_key"),
        "{paths:?}"
    );
    assert!(!ran.out.contains("PRIVATE KEY"));
    assert_eq!(fs::read_to_string(Path::new(tree).join("etc/hostname")).unwrap(), "oldname\n");
    assert!(!here.path("state/identities/wn7.example.org.json").exists());
}

#[test]
fn a_disk_becomes_a_guest_with_its_uuid_and_all_that_names_it() {
    let here = Box::new();
    let Some(disk) = here.filesystem(0) else { return };
    let ran = here.gridgate(&["personalise", "--disk", disk.to_str().unwrap(), "--as", "ce"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(inside(&disk, "/etc/hostname"), "ce\n");
    let kept: Value =
        serde_json::from_slice(&fs::read(here.path("state/guests/ce/identity.json")).unwrap()).unwrap();
    let uuid: String = kept["filesystem_uuid"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| format!("{:02x}", b.as_u64().unwrap()))
        .collect();
    assert_eq!(inside(&disk, "/etc/fstab").replace('-', ""), format!("UUID={uuid} / ext4 defaults 0 1\n"));
    let check = Command::new("e2fsck").arg("-fn").arg(&disk).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    let again = here.gridgate(&["personalise", "--disk", disk.to_str().unwrap(), "--as", "ce", "--diff"]);
    assert_eq!((again.status, again.out.as_str()), (0, ""), "{again:?}");
}

#[test]
fn a_disk_is_personalised_without_a_mount_as_it_is_with_one() {
    for form in [
        &["-t", "ext4"][..],
        &["-t", "ext3", "-I", "128"],
        &["-t", "ext2", "-I", "128", "-b", "1024"],
        &["-t", "ext4", "-O", "inline_data", "-I", "256"],
    ] {
        let here = Box::new();
        let Some(disk) = here.filesystem_like(form, &here.tree("tree"), 0) else { return };
        let other = here.path("other");
        fs::copy(&disk, &other).unwrap();
        let run = |disk: &Path, extra: &[&str]| {
            let mut args = vec!["personalise", "--disk", disk.to_str().unwrap(), "--as", "ce"];
            args.extend(extra);
            here.gridgate(&args)
        };
        let ran = run(&disk, &["--offline"]);
        assert_eq!(ran.status, 0, "{form:?}: {ran:?}");
        assert_eq!(run(&other, &[]).status, 0, "{form:?}");
        for disk in [&disk, &other] {
            let again = run(disk, &["--diff"]);
            assert_eq!((again.status, again.out.as_str()), (0, ""), "{form:?}: {again:?}");
            assert_eq!(run(disk, &["--diff", "--offline"]).status, 0, "{form:?}");
            let check = Command::new("e2fsck").arg("-fn").arg(disk).output().unwrap();
            assert!(check.status.success(), "{form:?}: {check:?}");
        }
        for path in
            ["/etc/hostname", "/etc/fstab", "/etc/ssh/ssh_host_ed25519_key", "/etc/network/interfaces"]
        {
            assert_eq!(inside(&disk, path), inside(&other, path), "{form:?}: {path}");
        }
    }
}

#[test]
fn what_is_new_in_a_guest_with_a_policy_gets_its_label_and_what_is_replaced_keeps_its_own() {
    for way in [&[][..], &["--offline"]] {
        let here = Box::new();
        let policy = here.tree("tree").join("etc/selinux/targeted/contexts/files");
        fs::create_dir_all(&policy).unwrap();
        fs::write(here.path("tree/etc/selinux/config"), "SELINUX=enforcing\nSELINUXTYPE=targeted\n").unwrap();
        let rules = "/etc/.*\tu:r:etc_t:s0\n/etc/ssh/ssh_host.*_key\t--\tu:r:sshd_key_t:s0\n";
        fs::write(policy.join("file_contexts"), rules).unwrap();
        let Some(disk) = here.filesystem_of(&here.path("tree"), 0) else { return };
        let label = "ea_set /etc security.selinux u:r:etc_t:s0\nea_set /etc/hostname security.selinux u:r:mine_t:s0\n";
        let commands = here.path("commands");
        fs::write(&commands, label).unwrap();
        let set = Command::new("debugfs").arg("-w").arg("-f").arg(&commands).arg(&disk).output().unwrap();
        assert!(set.status.success());
        let mut args = vec!["personalise", "--disk", disk.to_str().unwrap(), "--as", "ce"];
        args.extend(way);
        let ran = here.gridgate(&args);
        assert_eq!(ran.status, 0, "{ran:?}");
        let label = |path: &str| {
            let command = format!("ea_get {path} security.selinux");
            let ran = Command::new("debugfs").arg("-R").arg(command).arg(&disk).output().unwrap();
            let text = String::from_utf8(ran.stdout).unwrap();
            text.split('"').nth(1).unwrap_or(&text).trim_end_matches("\\000").to_owned()
        };
        assert_eq!(inside(&disk, "/etc/hostname"), "ce\n");
        assert_eq!(label("/etc/hostname"), "u:r:mine_t:s0", "{way:?}");
        assert_eq!(label("/etc/ssh/ssh_host_ed25519_key"), "u:r:sshd_key_t:s0", "{way:?}");
        assert_eq!(label("/etc/resolv.conf"), "u:r:etc_t:s0", "{way:?}");
    }
}

#[test]
fn one_partition_of_a_disk_becomes_a_machine_and_the_rest_of_the_disk_stays() {
    let here = Box::new();
    let Some(disk) = here.filesystem(1 << 20) else { return };
    let table = Command::new("sh")
        .args(["-c", "printf 'label: dos\\nstart=2048\\n' | sfdisk -q \"$0\""])
        .arg(&disk)
        .status();
    assert!(table.unwrap().success());
    let head = fs::read(&disk).unwrap()[..1 << 20].to_vec();
    let disk_name = disk.to_str().unwrap();
    let guessed = here.gridgate(&["personalise", "--disk", disk_name, "--as", "ce"]);
    assert!(
        guessed.status == 1 && guessed.err.contains("hint: --partition N, one of 1 (32M)"),
        "{guessed:?}"
    );
    let command = ["personalise", "--disk", disk_name, "--partition", "1", "--as", "ce", "--keep-disk-ids"];
    let ran = here.gridgate(&command);
    assert_eq!(ran.status, 0, "{ran:?}");
    let all = fs::read(&disk).unwrap();
    assert!(all[..1 << 20] == head[..]);
    fs::write(here.path("part"), &all[1 << 20..]).unwrap();
    assert_eq!(inside(&here.path("part"), "/etc/hostname"), "ce\n");
}

#[test]
fn one_guests_disk_is_turned_into_another_guests_and_only_if_that_has_none() {
    let here = Box::new();
    let Some(disk) = here.filesystem(0) else { return };
    fs::create_dir_all(here.path("state/guests/ui")).unwrap();
    fs::rename(&disk, here.path("state/guests/ui/disk")).unwrap();
    let ran = here.gridgate(&["personalise", "ui", "--as", "wn"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(!here.path("state/guests/ui/disk").exists());
    assert_eq!(inside(&here.path("state/guests/wn/disk"), "/etc/hostname"), "wn\n");
    fs::copy(here.path("state/guests/wn/disk"), here.path("state/guests/ui/disk")).unwrap();
    let refused = here.gridgate(&["personalise", "ui", "--as", "wn"]);
    assert!(refused.status == 4 && refused.err.contains("guest 'wn' has a disk of its own"), "{refused:?}");
    assert_eq!(inside(&here.path("state/guests/ui/disk"), "/etc/hostname"), "wn\n");
}

#[test]
fn an_identity_is_taken_over_drawn_anew_and_refused_if_another_machine_has_it() {
    let here = Box::new();
    let tree = here.tree("tree");
    let tree_name = tree.to_str().unwrap();
    let id = || fs::read_to_string(tree.join("etc/machine-id")).unwrap();
    let old = id();
    let run = |extra: &[&str]| {
        let mut args = vec!["personalise", "--tree", tree_name];
        args.extend(extra);
        here.gridgate(&args)
    };
    assert_eq!(run(&["--hostname", "one", "--keep-identity"]).status, 0);
    assert_eq!(id(), old);
    let clash = run(&["--hostname", "two", "--keep-identity"]);
    assert!(
        clash.status == 4 && clash.err.contains("'two' and 'one' would have the same machine-id"),
        "{clash:?}"
    );
    assert_eq!(run(&["--hostname", "one", "--new-identity"]).status, 0);
    assert_ne!(id(), old);
}

#[test]
fn a_guests_disk_is_not_changed_behind_its_back() {
    let here = Box::new();
    let Some(disk) = here.filesystem(0) else { return };
    fs::create_dir_all(here.path("state/guests/ui")).unwrap();
    fs::rename(&disk, here.path("state/guests/ui/disk")).unwrap();
    let disk = here.path("state/guests/ui/disk");
    let ran = here.gridgate(&["personalise", "--disk", disk.to_str().unwrap(), "--as", "ce"]);
    assert!(ran.status == 4 && ran.err.contains("is the disk of guest 'ui'"), "{ran:?}");
}

#[test]
fn a_label_made_of_the_old_name_follows_with_what_finds_the_filesystem_by_it_in_both_engines() {
    for engine in [None, Some("--offline")] {
        let here = Box::new();
        let tree = here.tree("tree");
        fs::write(tree.join("etc/fstab"), "LABEL=oldname-root / ext4 defaults 0 1\n").unwrap();
        let Some(disk) = here.filesystem_of(&tree, 0) else { return };
        assert!(Command::new("e2label").arg(&disk).arg("oldname-root").status().unwrap().success());
        let mut args = vec!["personalise", "--disk", disk.to_str().unwrap()];
        args.extend(SOMEBODY);
        args.extend(engine);
        let ran = here.gridgate(&args);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let label = Command::new("e2label").arg(&disk).output().unwrap();
        assert_eq!(String::from_utf8(label.stdout).unwrap(), "wn7-root\n");
        assert_eq!(inside(&disk, "/etc/fstab"), "LABEL=wn7-root / ext4 defaults 0 1\n");
        let again = here.gridgate(&args);
        assert!(again.err.contains("nothing had to be changed"), "{}", again.err);
    }
}

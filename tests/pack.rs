//! `gridgate image pack` of a filesystem that holds everything that one can hold, and GNU tar's view of the result.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gridgate::host::Live;
use gridgate::host::filesystem::{Filesystems, Shape};
use serde_json::Value;
use std::os::fd::AsRawFd;

/// What tools of their own make of a filesystem, so that nothing here depends on ours.
const EVERYTHING: &str = r#"
umask 022
mkdir -p dir/empty deep "odd
name" default etc
printf hello > dir/file; ln dir/file dir/again; ln dir/file aaa
printf x > "$(printf 'not\377text')"; printf x > ' leading'; printf x > -dash
ln -s ../dir/file dir/link; ln -s "$(printf '/%0200d' 7)" long-link; ln -s "$(printf 'x%.0s' $(seq 59))" edge; ln -s "$(printf '\376')" odd-link
printf x > "deep/$(printf 'n%.0s' $(seq 255))"
d=deep; for i in $(seq 12); do d="$d/$(printf 'd%.0s' $(seq 40))"; done; mkdir -p "$d"; printf deepest > "$d/file"
mknod null c 1 3; mknod big b 259 1000000; mknod old c 5 1; mkfifo fifo; chmod 600 fifo
printf '#!/bin/sh\n' > setuid; chown 70000:4000000000 setuid; chmod 6755 setuid; mkdir sticky; chmod 1777 sticky
cp /bin/true cap; setcap cap_net_raw+ep cap
printf x > attrs; setfattr -n user.note -v text attrs; setfattr -n user.a=b%c -v eq attrs
setfattr -n trusted.thing -v 0x00ff attrs; setfattr -n security.selinux -v label attrs
setfattr -n user.large -v "0s$(head -c 400 /dev/zero | base64 -w0)" attrs; setfattr -n trusted.link -v l -h edge
setfacl -m u:1234:rw-,g:99999:r-- attrs; setfacl -d -m u:5:rwx default
truncate -s 5G huge; printf begin | dd of=huge conv=notrunc status=none; printf end | dd of=huge bs=1 seek=3000000000 conv=notrunc status=none
truncate -s 100000 hole; for i in $(seq 0 2 22); do printf x | dd of=hole bs=4096 seek=$i conv=notrunc status=none; done
fallocate -l 65536 set-aside; head -c 300000 /dev/urandom > noise; cp noise dir/noise; : > empty
touch -d '@-1.5' dir/file; touch -d '1901-12-14 00:00:00.000000001 UTC' noise; touch -d '2400-01-01 UTC' empty; touch -h -d '@7.25' edge
mkdir few; for i in 1 2 3 4 5; do printf x > "few/name-$i"; done; rm few/name-2; mkdir full; for i in $(seq 400); do : > "full/$i"; done
for i in 1 59 60 61 90 130 160 200; do head -c $i noise > "long-$i"; ln -s "$(printf "%0${i}d" 7)" "link-$i"; done
setfattr -n user.note -v text long-61; setfattr -n trusted.t -v t few; head -c 90 noise > shorter; truncate -s 50 shorter
touch -d '@1.5' dir/empty; touch -d '@99' .
chattr +a noise; chattr +i empty; chattr +d dir; chattr +A cap; chattr +S setuid
"#;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Option<Self> {
        let tools = ["setfattr", "setfacl", "setcap", "chattr", "mke2fs"];
        let missing = tools
            .iter()
            .find(|tool| !Command::new("which").arg(tool).stdout(Stdio::null()).status().unwrap().success());
        if !rustix::process::geteuid().is_root()
            || !Path::new("/dev/loop-control").exists()
            || missing.is_some()
        {
            eprintln!("skipped: it takes root, loop devices and {tools:?}");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A disk with a filesystem that the commands have filled.
    fn disk(&self, name: &str, options: &[&str], commands: &str) -> PathBuf {
        let disk = self.path(name);
        File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let mut make = Command::new("mke2fs");
        assert!(
            make.args(if options.contains(&"-t") { &[][..] } else { &["-t", "ext4"] })
                .args(["-q", "-L", "packed"])
                .args(options)
                .arg(&disk)
                .status()
                .unwrap()
                .success()
        );
        Live.edit_disk(&disk, Shape::default(), &mut |root, _| {
            let top = format!("/proc/{}/fd/{}", std::process::id(), root.as_fd().as_raw_fd());
            let mut shell = Command::new("bash");
            let ran = shell.args(["-ec", commands]).current_dir(top).output().unwrap();
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            // A socket, which the shell has no word for.
            let place = format!("/proc/self/fd/{}/socket", root.as_fd().as_raw_fd());
            drop(std::os::unix::net::UnixListener::bind(place).unwrap());
            Ok(())
        })
        .unwrap();
        disk
    }

    fn pack(&self, args: &[&str], output: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.args(["--quiet", "image", "pack"]).args(args).arg("-o").arg(self.path(output));
        let ran = command.output().unwrap();
        (ran.status.code().unwrap(), String::from_utf8_lossy(&ran.stderr).into_owned())
    }

    fn packed(&self, args: &[&str], output: &str) -> Vec<u8> {
        let (status, told) = self.pack(args, output);
        assert_eq!(status, 0, "{told}");
        fs::read(self.path(output)).unwrap()
    }

    fn entry(&self, archive: &str, path: &str) -> Value {
        let manifest = tar(&["-xOf", self.path(archive).to_str().unwrap(), ".gridgate/manifest.jsonl"]);
        let mut lines = manifest.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|entry| entry["path"] == path).unwrap_or_else(|| panic!("no '{path}' in {manifest}"))
    }
}

fn unpacked(archive: &[u8]) -> Vec<u8> {
    let (mut archive, mut tar) = (archive, Vec::new());
    let mut zstd =
        Command::new("zstd").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = zstd.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut archive, &mut to).unwrap());
        zstd.stdout.take().unwrap().read_to_end(&mut tar).unwrap();
    });
    assert!(zstd.wait().unwrap().success());
    tar
}

fn tar(args: &[&str]) -> String {
    let ran = Command::new("tar").args(args).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn path_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_disk_is_packed_to_the_same_bytes_with_a_mount_and_without() {
    let Some(lab) = Lab::new() else { return };
    for (name, options) in [
        ("a", &["-b", "4096"][..]),
        ("b", &["-b", "1024", "-I", "128"]),
        ("c", &["-O", "^64bit,^metadata_csum"]),
        ("d", &["-t", "ext2", "-b", "1024"]),
        ("e", &["-t", "ext3", "-b", "1024", "-I", "128"]),
        ("f", &["-t", "ext3", "-b", "4096", "-O", "^dir_index"]),
        ("g", &["-O", "^extents,^64bit,metadata_csum"]),
        ("h", &["-O", "inline_data", "-I", "256"]),
        ("i", &["-O", "inline_data,^metadata_csum", "-I", "512", "-b", "1024"]),
    ] {
        // Lists of blocks have no word for space that is set aside.
        let has_extents =
            !options.iter().any(|word| ["ext2", "ext3"].contains(word) || word.contains("^extents"));
        let set_aside =
            if has_extents { "fallocate -l 65536 set-aside" } else { "truncate -s 65536 set-aside" };
        let commands = EVERYTHING.replace("fallocate -l 65536 set-aside", set_aside);
        // Inodes of 128 bytes hold neither fractions of a second nor years after 2038.
        let disk = lab.disk(name, options, &commands);
        let mounted = lab.packed(&["--disk", path_str(&disk)], "mounted");
        let offline = lab.packed(&["--disk", path_str(&disk), "--offline"], "offline");
        let differ = mounted.iter().zip(&offline).position(|(a, b)| a != b);
        assert!(mounted == offline, "{name}: first difference at {differ:?}");
    }
}

#[test]
fn the_manifest_keeps_everything() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.disk("disk", &[], EVERYTHING);
    lab.packed(&["--disk", path_str(&disk)], "archive.tar.zst");
    let entry = |path: &str| lab.entry("archive.tar.zst", path);
    assert_eq!(entry("aaa")["mtime"], serde_json::json!([-2, 500_000_000]));
    assert_eq!(
        entry("dir/file"),
        serde_json::json!({"path": "dir/file", "type": "hardlink", "target": "aaa"})
    );
    assert_eq!(entry("setuid")["mode"], "6755");
    assert_eq!(
        (&entry("setuid")["uid"], &entry("setuid")["gid"]),
        (&70_000.into(), &4_000_000_000_u64.into())
    );
    assert_eq!(entry("socket")["type"], "socket");
    assert_eq!(entry("big")["device"], serde_json::json!([259, 1_000_000]));
    assert_eq!((&entry("empty")["flags"], &entry("noise")["flags"]), (&0x10.into(), &0x20.into()));
    assert_eq!(entry("noise")["mtime"], serde_json::json!([-2_147_472_000_i64, 1]));
    assert_eq!(entry("empty")["mtime"][0], 13_569_465_600_i64);
    let names = |path: &str| {
        let attributes = entry(path)["xattrs"].as_array().unwrap().clone();
        attributes.iter().map(|pair| pair[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = [
        "security.selinux",
        "system.posix_acl_access",
        "trusted.thing",
        "user.a=b%c",
        "user.large",
        "user.note",
    ];
    assert_eq!(names("attrs"), all);
    assert_eq!(
        (names("cap"), names("edge")),
        (vec!["security.capability".into()], vec!["trusted.link".to_owned()])
    );
    assert_eq!(names("default"), ["system.posix_acl_default"]);
    assert_eq!(entry("huge")["len"], 5_u64 << 30);
    assert_eq!(entry("huge")["data"].as_array().unwrap().len(), 2);
    assert_eq!(entry("hole")["data"].as_array().unwrap().len(), 12);
}

#[test]
fn gnu_tar_extracts_the_same_tree() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.disk("disk", &[], EVERYTHING);
    for name in ["archive.tar.zst", "archive.tar.gz"] {
        lab.packed(&["--disk", path_str(&disk)], name);
        let archive = lab.path(name);
        let out = lab.disk(&format!("{name}.out"), &[], "");
        Live.edit_disk(&out, Shape::default(), &mut |root, _| {
            let top = format!("/proc/{}/fd/{}", std::process::id(), root.as_fd().as_raw_fd());
            fs::remove_file(format!("{top}/socket")).unwrap();
            // tar(1) leaves a link's attributes alone, and has no flags and sockets.
            tar(&[
                "--warning=no-timestamp",
                "-xpf",
                path_str(&archive),
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
                "-C",
                &top,
            ]);
            let top = Path::new(&top);
            let file = fs::metadata(top.join("dir/file")).unwrap();
            assert_eq!((file.mtime(), file.mtime_nsec(), file.nlink()), (-2, 500_000_000, 3));
            let setuid = fs::metadata(top.join("setuid")).unwrap();
            assert_eq!((setuid.mode() & 0o7777, setuid.uid(), setuid.gid()), (0o6755, 70_000, 4_000_000_000));
            let huge = fs::metadata(top.join("huge")).unwrap();
            assert!(huge.len() == 5 << 30 && huge.blocks() < 100, "{} blocks", huge.blocks());
            assert_eq!(
                fs::symlink_metadata(top.join("big")).unwrap().rdev(),
                rustix::fs::makedev(259, 1_000_000)
            );
            assert!(fs::symlink_metadata(top.join("fifo")).unwrap().file_type().is_fifo());
            assert_eq!(fs::read_link(top.join("long-link")).unwrap().as_os_str().len(), 201);
            let list = |program: &str, args: &[&str]| {
                let ran = Command::new(program).args(args).current_dir(top).output().unwrap();
                assert!(ran.status.success());
                String::from_utf8_lossy(&ran.stdout).into_owned()
            };
            let attributes = list("getfattr", &["-d", "-m", "-", "attrs"]);
            for one in [
                "user.a\\075b%c=\"eq\"",
                "trusted.thing=0sAP8=",
                "security.selinux=\"label\"",
                "user.note=\"text\"",
            ] {
                assert!(attributes.contains(one), "{attributes}");
            }
            let access = list("getfacl", &["-n", "attrs", "default"]);
            assert!(access.contains("user:1234:rw-") && access.contains("group:99999:r--"), "{access}");
            assert!(access.contains("default:user:5:rwx"), "{access}");
            assert!(list("getcap", &["cap"]).contains("cap_net_raw"));
            let same = list("sh", &["-c", "cmp noise dir/noise && cat deep/*/*/*/*/*/*/*/*/*/*/*/*/file"]);
            assert_eq!(same, "deepest");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn private_keys_are_refused_unless_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("etc/ssh")).unwrap();
    let key = tree.join("etc/ssh/ssh_host_ed25519_key");
    let mut make = Command::new("ssh-keygen");
    assert!(make.args(["-q", "-t", "ed25519", "-N", "", "-f", path_str(&key)]).status().unwrap().success());
    let (status, told) = lab.pack(&["--tree", path_str(&tree)], "archive");
    assert_eq!(status, 4, "{told}");
    assert!(told.contains("\n  /etc/ssh/ssh_host_ed25519_key\nhint: "), "{told}");
    assert!(fs::read_dir(lab.dir.path()).unwrap().count() == 1, "something is left");
    lab.packed(&["--tree", path_str(&tree), "--with-keys"], "archive.tar.zst");
    let head = tar(&["-xOf", path_str(&lab.path("archive.tar.zst")), ".gridgate/manifest.jsonl"]);
    let head: Value = serde_json::from_str(head.lines().next().unwrap()).unwrap();
    let (private, public) = ("etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub");
    assert_eq!(
        head["audit"],
        serde_json::json!({"clean": false, "private_keys": [private], "identity": [private, public]})
    );
}

#[test]
fn an_archive_goes_into_a_pipe_and_is_the_tar_of_that_of_the_file() {
    let Some(lab) = Lab::new() else { return };
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "x").unwrap();
    let file = lab.packed(&["--tree", path_str(&tree), "--fast"], "file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    let piped = command
        .args(["-q", "image", "pack", "--fast", "-o", "-", "--tree", path_str(&tree)])
        .output()
        .unwrap();
    assert!(piped.status.success());
    // The room that a file has for its manifest is more than it takes, which no unpacked byte shows.
    assert_eq!(unpacked(&piped.stdout), unpacked(&file));
    let mut json = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    let refused =
        json.args(["--json", "image", "pack", "-o", "-", "--tree", path_str(&tree)]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn an_archive_is_signed_as_it_is_packed_into_a_file_and_down_a_pipe() {
    let Some(lab) = Lab::new() else { return };
    let (tree, key, allowed) = (lab.path("tree"), lab.path("key"), lab.path("allowed"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "x").unwrap();
    let mut keygen = Command::new("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", path_str(&key)]).status().unwrap().success());
    fs::write(&allowed, format!("ops {}", fs::read_to_string(lab.path("key.pub")).unwrap())).unwrap();
    let gridgate =
        |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_gridgate")).args(words).output().unwrap();
    let file = lab.path("file");
    for more in [&[][..], &["--gzip"]] {
        let words = ["--json", "image", "pack", "--key", path_str(&key), "--tree", path_str(&tree)];
        let packed = gridgate(&[&words[..], &["-o", path_str(&file)], more].concat());
        let told: Value = serde_json::from_slice(&packed.stdout).unwrap();
        assert_eq!(told["signed"], true);
        let piped = gridgate(&[&words[1..], &["-o", "-"], more].concat()).stdout;
        fs::write(lab.path("piped"), piped).unwrap();
        for archive in [&file, &lab.path("piped")] {
            let ran =
                gridgate(&["image", "verify", path_str(archive), "--allowed-signers", path_str(&allowed)]);
            assert!(ran.status.success(), "{archive:?}: {}", String::from_utf8_lossy(&ran.stderr));
        }
    }
    let plain = gridgate(&["image", "pack", "--tree", path_str(&tree), "-o", path_str(&file)]);
    let said = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(said.contains("note: it is not signed, and restoring it is refused"), "{said}");
}

#[test]
fn an_archive_with_private_keys_is_readable_for_its_owner_alone() {
    let Some(lab) = Lab::new() else { return };
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("etc/ssh")).unwrap();
    let key = tree.join("etc/ssh/ssh_host_ed25519_key");
    let mut keygen = Command::new("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", path_str(&key)]).status().unwrap().success());
    lab.packed(&["--tree", path_str(&tree), "--with-keys"], "file");
    assert_eq!(fs::metadata(lab.path("file")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn two_packs_to_one_name_leave_one_whole_archive() {
    let Some(lab) = Lab::new() else { return };
    let trees: Vec<_> = ["a", "b"].map(|name| lab.path(name)).into();
    for (number, tree) in trees.iter().enumerate() {
        fs::create_dir(tree).unwrap();
        fs::write(tree.join("file"), vec![number as u8; 3 << 20]).unwrap();
    }
    let output = lab.path("out");
    let start = |tree: &PathBuf| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command
            .args(["-q", "image", "pack", "--tree", path_str(tree), "-o", path_str(&output)])
            .spawn()
            .unwrap()
    };
    let mut both: Vec<_> = trees.iter().map(start).collect();
    assert!(both.iter_mut().all(|one| one.wait().unwrap().success()));
    let whole = fs::read(&output).unwrap();
    let alone: Vec<_> = trees.iter().map(|tree| lab.packed(&["--tree", path_str(tree)], "alone")).collect();
    assert!(alone.contains(&whole));
    assert_eq!(fs::read_dir(lab.dir.path()).unwrap().count(), 4);
}

#[test]
fn what_is_no_place_to_write_to_or_read_from_is_told() {
    let Some(lab) = Lab::new() else { return };
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join(".gridgate")).unwrap();
    let (status, told) = lab.pack(&["--tree", path_str(&tree)], "out");
    assert!(status == 1 && told.contains("the archive's own files; hint: remove it"), "{told}");
    let (status, told) = lab.pack(&["--tree", path_str(&lab.path("none"))], "out");
    assert!(status == 1 && told.contains("opening the tree"), "{told}");
    fs::remove_dir(tree.join(".gridgate")).unwrap();
    let (status, told) = lab.pack(&["--tree", path_str(&tree)], "none/out");
    assert!(status == 1 && told.contains("none/out'"), "{told}");
    let (status, _) = lab.pack(&[], "out");
    assert_eq!(status, 2);
    assert_eq!(fs::read_dir(lab.dir.path()).unwrap().count(), 1);
}

#[test]
fn a_killed_pack_leaves_no_archive_and_the_next_one_clears_up() {
    let Some(lab) = Lab::new() else { return };
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    let mut noise = vec![0; 60 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(tree.join("file"), noise).unwrap();
    let output = lab.path("out");
    let words = ["-q", "image", "pack", "--tree", path_str(&tree), "-o", path_str(&output)];
    // A machine that is busy elsewhere may let it end before it is killed; then once more.
    let killed = (0..20).any(|_| {
        let _ = fs::remove_file(&output);
        let mut pack = Command::new(env!("CARGO_BIN_EXE_gridgate")).args(words).spawn().unwrap();
        let half_made = || fs::read_dir(lab.dir.path()).unwrap().count() == 2;
        while !half_made() && pack.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        pack.kill().unwrap();
        pack.wait().unwrap().code().is_none() && !output.exists()
    });
    assert!(killed);
    lab.packed(&["--tree", path_str(&tree)], "out");
    assert_eq!(fs::read_dir(lab.dir.path()).unwrap().count(), 2);
}

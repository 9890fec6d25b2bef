//! A disk with partitions that was one machine and becomes another: ids of the table and of all that is in the partitions.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod faults;
#[path = "../support/loops.rs"]
mod loops;
mod lvm;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ROOT: &str = "11111111-2222-3333-4444-555555555555";
const DATA: &str = "22222222-2222-3333-4444-555555555555";
const SWAP: &str = "33333333-2222-3333-4444-555555555555";
const DISK: &str = "AAAAAAAA-2222-3333-4444-555555555555";
const DATA_PART: &str = "BBBBBBBB-2222-3333-4444-555555555555";
const MIB: u64 = 1 << 20;
/// Where each partition begins, and how long it is.
const PARTS: [(u64, u64); 4] =
    [(MIB, 40 * MIB), (41 * MIB, 32 * MIB), (73 * MIB, 8 * MIB), (81 * MIB, 16 * MIB)];

struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    /// A disk as an installer makes them: EFI system partition, root, swap, data.
    fn new(table: &str) -> Option<Self> {
        if lacks(&["mkfs.fat", "mcopy", "sfdisk", "mkswap"]) {
            return None;
        }
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let disk = fs::File::create(stage.path("disk")).unwrap();
        disk.set_len(100 * MIB).unwrap();
        let done = run("sfdisk", &["-q", stage.name("disk").as_str()], table.as_bytes());
        assert!(done.status.success(), "{done:?}");

        let (esp, swap) = (stage.sized("esp", PARTS[0].1), stage.sized("swap", PARTS[2].1));
        good("mkfs.fat", &["-F", "32", "-i", "1234abcd", &esp]);
        good("mmd", &["-i", &esp, "::/EFI", "::/EFI/debian"]);
        let menu = format!("search.fs_uuid {ROOT} root\n");
        assert!(run("mcopy", &["-i", &esp, "-", "::/EFI/debian/grub.cfg"], menu.as_bytes()).status.success());
        good("mkswap", &["-q", "-U", SWAP, &swap]);
        for sub in ["root/etc/initramfs-tools/conf.d", "root/boot/grub", "data/grub"] {
            fs::create_dir_all(stage.path(sub)).unwrap();
        }
        let part = |number: usize| stage.part_uuid(number);
        let fstab = format!(
            "UUID={ROOT} / ext4 defaults 0 1\nUUID={SWAP} none swap sw 0 0\nUUID=1234-ABCD /boot/efi vfat\nPARTUUID={} /data ext4\n",
            part(4)
        );
        fs::write(stage.path("root/etc/fstab"), fstab).unwrap();
        fs::write(stage.path("root/etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(stage.path("root/etc/initramfs-tools/conf.d/resume"), format!("RESUME=UUID={SWAP}\n"))
            .unwrap();
        let linux = format!("linux /vmlinuz root=PARTUUID={} resume=UUID={SWAP}\n", part(2));
        fs::write(stage.path("root/boot/grub/grub.cfg"), linux).unwrap();
        fs::write(stage.path("data/grub/grub.cfg"), format!("search --fs-uuid {ROOT}\n")).unwrap();
        for (tree, uuid, number) in [("root", ROOT, 1), ("data", DATA, 3)] {
            let image = stage.sized(&format!("{tree}.img"), PARTS[number].1);
            good("mke2fs", &["-q", "-t", "ext4", "-U", uuid, "-d", &stage.name(tree), &image]);
            disk.write_all_at(&fs::read(&image).unwrap(), PARTS[number].0).unwrap();
        }
        disk.write_all_at(&fs::read(&esp).unwrap(), PARTS[0].0).unwrap();
        disk.write_all_at(&fs::read(&swap).unwrap(), PARTS[2].0).unwrap();
        Some(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn sized(&self, name: &str, len: u64) -> String {
        fs::File::create(self.path(name)).unwrap().set_len(len).unwrap();
        self.name(name)
    }

    fn gridgate(&self, extra: &[&str]) -> Output {
        let (site, state, disk) = (self.name("site"), self.name("state"), self.name("disk"));
        let all = ["--site", &site, "--state", &state, "personalise", "--disk", &disk, "--partition", "2"];
        run(env!("CARGO_BIN_EXE_gridgate"), &[&all[..], extra].concat(), b"")
    }

    fn table(&self) -> serde_json::Value {
        let ran = run("sfdisk", &["--json", &self.name("disk")], b"");
        serde_json::from_slice::<serde_json::Value>(&ran.stdout).unwrap()["partitiontable"].clone()
    }

    fn part_uuid(&self, number: usize) -> String {
        let table = self.table();
        let id = table["id"].as_str().unwrap().trim_start_matches("0x").to_owned();
        let uuid = table["partitions"][number - 1]["uuid"].as_str().map(str::to_lowercase);
        uuid.unwrap_or_else(|| format!("{id}-{number:02x}"))
    }

    /// The id of what a partition holds, by another program.
    fn content_id(&self, number: usize) -> String {
        let offset = PARTS[number - 1].0.to_string();
        let ran = run("blkid", &["-p", "-o", "value", "-s", "UUID", "-O", &offset, &self.name("disk")], b"");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn file(&self, number: usize, path: &str) -> String {
        let part = self.path("part");
        let mut bytes = vec![0; PARTS[number - 1].1 as usize];
        fs::File::open(self.path("disk")).unwrap().read_exact_at(&mut bytes, PARTS[number - 1].0).unwrap();
        fs::write(&part, bytes).unwrap();
        let ran = run("debugfs", &["-R", &format!("cat {path}"), part.to_str().unwrap()], b"");
        String::from_utf8(ran.stdout).unwrap()
    }

    fn disk(&self) -> Vec<u8> {
        fs::read(self.path("disk")).unwrap()
    }
}

fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn good(program: &str, args: &[&str]) {
    let ran = run(program, args, b"");
    assert!(ran.status.success(), "{program} {args:?}: {ran:?}");
}

fn gpt() -> String {
    let line = |(start, len): (u64, u64)| format!("start={}, size={}", start / 512, len / 512);
    let [esp, root, swap, data] = PARTS.map(line);
    format!(
        "label: gpt\nlabel-id: {DISK}\n{esp}, type=uefi\n{root}\n{swap}, type=swap\n{data}, uuid={DATA_PART}\n"
    )
}

/// What may be missing, by name; told of if it is.
fn lacks(programs: &[&str]) -> bool {
    let is_there = |name: &&str| run("sh", &["-c", &format!("command -v {name}")], b"").status.success();
    let lacks = programs.iter().find(|name| !is_there(name));
    let is_root = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !is_root || lacks.is_some() {
        eprintln!("skipped: this takes root, loop devices and {programs:?}");
    }
    !is_root || lacks.is_some()
}

const SOMEBODY: [&str; 6] = ["--hostname", "wn7", "--address", "192.0.2.7/24", "--mac", "52:54:00:00:00:07"];

#[test]
fn every_id_of_the_disk_is_another_and_whatever_names_it_follows() {
    let mbr =
        gpt().replace("label: gpt", "label: dos").replace(DISK, "0x1234abcd").replace("type=uefi", "type=ef");
    let mbr = mbr.replace("type=swap", "type=82").replace(&format!(", uuid={DATA_PART}"), "");
    for (table, is_gpt) in [(gpt(), true), (mbr, false)] {
        let Some(stage) = Stage::new(&table) else { return };
        let before = (stage.table(), [1, 2, 3, 4].map(|number| stage.content_id(number)));
        let untouched = stage.disk();
        let shown = stage.gridgate(&[&SOMEBODY[..], &["--diff"]].concat());
        let text = String::from_utf8(shown.stdout).unwrap();
        assert_eq!(shown.status.code(), Some(3), "{text}");
        assert!(text.contains(&format!("disk:3 changed\nUUID of swap space {SWAP} becomes ")), "{text}");
        assert!(stage.disk() == untouched);

        let ran = stage.gridgate(&SOMEBODY);
        assert!(ran.status.success(), "{ran:?}");
        let ids = [1, 2, 3, 4].map(|number| stage.content_id(number));
        for (old, new) in before.1.iter().zip(&ids) {
            assert!(!new.is_empty() && old != new, "{old} is {new}");
        }
        assert_ne!(stage.table()["id"], before.0["id"]);
        for (old, new) in before.0["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .zip(stage.table()["partitions"].as_array().unwrap())
        {
            assert_eq!(
                (&old["start"], &old["size"], &old["type"]),
                (&new["start"], &new["size"], &new["type"])
            );
            assert!(!is_gpt || old["uuid"] != new["uuid"]);
        }
        let [esp, root, swap, _] = &ids;
        let fstab = format!(
            "UUID={root} / ext4 defaults 0 1\nUUID={swap} none swap sw 0 0\nUUID={esp} /boot/efi vfat\nPARTUUID={} /data ext4\n",
            stage.part_uuid(4)
        );
        assert_eq!(stage.file(2, "/etc/fstab"), fstab);
        assert_eq!(stage.file(2, "/etc/initramfs-tools/conf.d/resume"), format!("RESUME=UUID={swap}\n"));
        let linux = format!("linux /vmlinuz root=PARTUUID={} resume=UUID={swap}\n", stage.part_uuid(2));
        assert_eq!(stage.file(2, "/boot/grub/grub.cfg"), linux);
        assert_eq!(stage.file(4, "/grub/grub.cfg"), format!("search --fs-uuid {root}\n"));
        let offset = format!("{}@@{}", stage.name("disk"), PARTS[0].0);
        let menu = run("mtype", &["-i", &offset, "::/EFI/debian/grub.cfg"], b"");
        assert_eq!(String::from_utf8(menu.stdout).unwrap(), format!("search.fs_uuid {root} root\n"));

        let once = stage.disk();
        let again = stage.gridgate(&SOMEBODY);
        let said = String::from_utf8(again.stderr).unwrap();
        assert!(again.status.success() && said.contains("nothing had to be changed"), "{said}");
        // A mount writes into the superblock when it was.
        let (from, end) = (PARTS[1].0 as usize, PARTS[2].0 as usize);
        let now = stage.disk();
        assert!(now[..from] == once[..from] && now[end..] == once[end..], "the second run changed something");
    }
}

#[test]
fn an_old_id_that_the_disk_still_has_is_found() {
    let Some(stage) = Stage::new(&gpt()) else { return };
    let old = format!(r#"{{"version": 1, "uuids": ["{SWAP}", "{}"]}}"#, DATA_PART.to_lowercase());
    fs::write(stage.path("old.json"), old).unwrap();
    let audit = |stage: &Stage| {
        let old = stage.name("old.json");
        let ran = stage.gridgate(&["--audit", "--hostname", "wn7", "--old", &old, "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        let on_disk = |one: &&serde_json::Value| one["path"].as_str().unwrap().starts_with("disk:");
        findings
            .iter()
            .filter(on_disk)
            .map(|one| one["found"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let found = audit(&stage);
    let part = format!("partition's UUID {}", DATA_PART.to_lowercase());
    assert_eq!(found, [format!("UUID of swap space {SWAP}"), part]);
    assert!(stage.gridgate(&SOMEBODY).status.success());
    assert_eq!(audit(&stage), [""; 0]);
}

#[test]
fn what_has_ids_that_cannot_be_replaced_is_refused_before_anything_is_changed() {
    let raid = [0xfc, 0x4e, 0x2b, 0xa9];
    for (at, magic) in [(4096, &raid[..]), (0, b"LUKS\xba\xbe\x00\x02")] {
        let Some(stage) = Stage::new(&gpt()) else { return };
        let disk = fs::OpenOptions::new().write(true).open(stage.path("disk")).unwrap();
        disk.write_all_at(&[0; 8192], PARTS[3].0).unwrap();
        disk.write_all_at(magic, PARTS[3].0 + at).unwrap();
        let before = stage.disk();
        let refused = stage.gridgate(&SOMEBODY);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains("partition 4 of ") && said.contains("hint: --keep-disk-ids"), "{said}");
        assert!(stage.disk() == before);
        let kept = stage.gridgate(&[&SOMEBODY[..], &["--keep-disk-ids"]].concat());
        assert!(kept.status.success(), "{kept:?}");
        assert_eq!(stage.content_id(3), SWAP);
    }
}

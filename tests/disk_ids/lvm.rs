//! A disk whose root is a logical volume: ids of physical volume, group and volumes, and of what the volumes hold.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{MIB, SOMEBODY, good, lacks, loops, run};

const ROOT: &str = "11111111-aaaa-4333-8444-555555555555";
const BOOT: &str = "22222222-aaaa-4333-8444-555555555555";
const SWAP: &str = "33333333-aaaa-4333-8444-555555555555";
const HOME: &str = "44444444-aaaa-4333-8444-555555555555";
/// Partitions: `/boot`, and the physical volume.
const PARTS: [(u64, u64); 2] = [(MIB, 16 * MIB), (17 * MIB, 80 * MIB)];
/// Where each logical volume begins, and how long it is: extents of 4 MiB, from 1 MiB into the physical volume on.
const ROOT_AT: (u64, u64) = (18 * MIB, 24 * MIB);
const SWAP_AT: (u64, u64) = (42 * MIB, 4 * MIB);
const HOME_AT: (u64, u64) = (46 * MIB, 12 * MIB);

/// The disk and all around it.
pub(super) struct Stage {
    dir: tempfile::TempDir,
}

/// What a disk is known by, and how files name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) ids: Vec<String>,
    pub(super) files: Vec<String>,
}

impl Stage {
    pub(super) fn new() -> Option<Self> {
        if lacks(&["lvm", "sfdisk", "mkswap", "losetup", "cpio"]) {
            return None;
        }
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let disk = fs::File::create(stage.path("disk")).unwrap();
        disk.set_len(100 * MIB).unwrap();
        let line = |(start, len): (u64, u64)| format!("start={}, size={}\n", start / 512, len / 512);
        let table = format!("label: gpt\n{}{}", line(PARTS[0]), line(PARTS[1]));
        assert!(run("sfdisk", &["-q", &stage.name("disk")], table.as_bytes()).status.success());
        stage.lvm(&["pvcreate DEVICE", "vgcreate vg0 DEVICE"]);
        for (name, extents) in [("root", 6), ("swap", 1), ("home", 3)] {
            stage.lvm(&[&format!("lvcreate -an -Zn -Wn -y -n {name} -l {extents} vg0")]);
        }
        stage.fill();
        Some(stage)
    }

    fn fill(&self) {
        for dir in [
            "root/etc/lvm/devices",
            "root/etc/lvm/backup",
            "boot/grub",
            "home/me",
            "main/conf/conf.d",
            "early/kernel",
        ] {
            fs::create_dir_all(self.path(dir)).unwrap();
        }
        let [pv, vg, root] = self.lvm_ids();
        let compact = |id: &str| id.replace('-', "");
        let fstab = format!(
            "/dev/mapper/vg0-root / ext4\n/dev/disk/by-id/dm-uuid-LVM-{}{} /x ext4\nUUID={SWAP} none swap\nUUID={BOOT} /boot ext4\n\
             UUID={HOME} /home ext4\n# /dev/disk/by-id/lvm-pv-uuid-{pv}\n",
            compact(&vg),
            compact(&root)
        );
        fs::write(self.path("root/etc/fstab"), fstab).unwrap();
        fs::write(self.path("root/etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(self.path("root/etc/lvm/devices/system.devices"), format!("PVID={}\n", compact(&pv)))
            .unwrap();
        let menu = format!(
            "set root='lvmid/{vg}/{root}'\nlinux /vmlinuz root=/dev/mapper/vg0-root resume=UUID={SWAP}\n"
        );
        fs::write(self.path("boot/grub/grub.cfg"), menu).unwrap();
        fs::write(self.path("main/conf/conf.d/resume"), format!("RESUME=UUID={SWAP}\n")).unwrap();
        let script = "head -c 9000 /dev/urandom >early/kernel/microcode
            (cd early && find . | cpio --quiet -o -H newc) >boot/initrd.img-6.1
            wc -c <boot/initrd.img-6.1 >early.len
            (cd main && find . | cpio --quiet -o -H newc | gzip) >>boot/initrd.img-6.1";
        good("sh", &["-ec", &format!("cd {} && {script}", self.dir.path().display())]);
        for (tree, uuid, at) in [("root", ROOT, ROOT_AT), ("boot", BOOT, PARTS[0]), ("home", HOME, HOME_AT)] {
            let image = self.sized(&format!("{tree}.img"), at.1);
            good("mke2fs", &["-q", "-t", "ext4", "-U", uuid, "-d", &self.name(tree), &image]);
            self.put(&image, at.0);
        }
        let swap = self.sized("swap.img", SWAP_AT.1);
        good("mkswap", &["-q", "-U", SWAP, &swap]);
        self.put(&swap, SWAP_AT.0);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn sized(&self, name: &str, len: u64) -> String {
        fs::File::create(self.path(name)).unwrap().set_len(len).unwrap();
        self.name(name)
    }

    fn put(&self, image: &str, at: u64) {
        let disk = fs::OpenOptions::new().write(true).open(self.path("disk")).unwrap();
        disk.write_all_at(&fs::read(image).unwrap(), at).unwrap();
    }

    /// Runs commands of lvm(8) on the physical volume alone; what they printed.
    fn lvm(&self, commands: &[&str]) -> String {
        let (offset, len) = PARTS[1];
        let sizes = [offset.to_string(), len.to_string()];
        let ran = run(
            "losetup",
            &["-f", "--show", "-o", &sizes[0], "--sizelimit", &sizes[1], &self.name("disk")],
            b"",
        );
        let device = String::from_utf8(ran.stdout).unwrap().trim().to_owned();
        let config = format!(
            "devices {{ use_devicesfile=0 filter=[\"a|^{device}$|\",\"r|.*|\"] }} global {{ use_lvmpolld=0 locking_dir=\"{0}\" }} \
             activation {{ monitoring=0 udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }}",
            self.dir.path().display()
        );
        let mut printed = String::new();
        for command in commands {
            let command = command.replace("DEVICE", &device);
            let mut lvm = Command::new("/usr/sbin/lvm");
            lvm.args(command.split(' ')).args(["--config", &config, "--driverloaded", "n"]);
            let ran = lvm.env("LVM_SYSTEM_DIR", self.dir.path()).output().unwrap();
            assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
            printed.push_str(&String::from_utf8(ran.stdout).unwrap());
        }
        good("losetup", &["-d", &device]);
        loops::are_gone_from(self.dir.path());
        printed
    }

    /// Ids of the physical volume, the group and volume root as LVM itself shows them, which also checks the group.
    fn lvm_ids(&self) -> [String; 3] {
        let ask = "pvs --noheadings --segments -S lv_name=root -o pv_uuid,vg_uuid,lv_uuid";
        let printed = self.lvm(&["vgck vg0", ask]);
        let ids: Vec<String> = printed.split_whitespace().map(str::to_owned).collect();
        ids.try_into().unwrap()
    }

    pub(super) fn gridgate(&self, extra: &[&str]) -> Output {
        run(env!("CARGO_BIN_EXE_gridgate"), &[&self.words()[..], extra].concat(), b"")
    }

    /// The command's first words.
    pub(super) fn words(&self) -> [&str; 9] {
        let leaked = |name: &str| -> &'static str { Box::leak(self.name(name).into_boxed_str()) };
        [
            "--site",
            leaked("site"),
            "--state",
            leaked("state"),
            "personalise",
            "--disk",
            leaked("disk"),
            "--volume",
            "vg0/root",
        ]
    }

    fn uuid(&self, at: u64) -> String {
        let ran = run(
            "blkid",
            &["-p", "-o", "value", "-s", "UUID", "-O", &at.to_string(), &self.name("disk")],
            b"",
        );
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn file(&self, at: (u64, u64), path: &str) -> Vec<u8> {
        let mut bytes = vec![0; at.1 as usize];
        fs::File::open(self.path("disk")).unwrap().read_exact_at(&mut bytes, at.0).unwrap();
        fs::write(self.path("part"), bytes).unwrap();
        run("debugfs", &["-R", &format!("cat {path}"), &self.name("part")], b"").stdout
    }

    /// What the initramfs says where to resume from.
    fn resume(&self) -> String {
        fs::write(self.path("initrd"), self.file(PARTS[0], "/initrd.img-6.1")).unwrap();
        let script = format!(
            "cd {}; tail -c +$(($(cat early.len) + 1)) initrd | gzip -dc | cpio --quiet -i --to-stdout conf/conf.d/resume",
            self.dir.path().display()
        );
        String::from_utf8(run("sh", &["-c", &script], b"").stdout).unwrap()
    }

    /// All of it, as other programs see it.
    pub(super) fn known(&self) -> Known {
        let [pv, vg, root] = self.lvm_ids();
        let table = run("sfdisk", &["--json", &self.name("disk")], b"").stdout;
        let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
        let table = &table["partitiontable"];
        let in_table = [&table["id"], &table["partitions"][0]["uuid"], &table["partitions"][1]["uuid"]];
        let mut ids = vec![pv, vg, root];
        ids.extend([ROOT_AT, PARTS[0], SWAP_AT, HOME_AT].map(|at| self.uuid(at.0)));
        ids.extend(in_table.map(|id| id.as_str().unwrap().to_owned()));
        let text = |at, path| String::from_utf8_lossy(&self.file(at, path)).into_owned();
        let files = vec![text(ROOT_AT, "/etc/fstab"), text(PARTS[0], "/grub/grub.cfg"), self.resume()];
        Known { ids, files }
    }
}

#[test]
fn a_root_on_a_logical_volume_gets_every_id_anew_and_whatever_names_one_follows() {
    let Some(stage) = Stage::new() else { return };
    let (before, untouched) = (stage.known(), fs::read(stage.path("disk")).unwrap());
    let shown = stage.gridgate(&[&SOMEBODY[..], &["--diff"]].concat());
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(3), "{text}");
    assert!(
        text.contains(&format!("disk:vg0 changed\nid of the volume group {} becomes ", before.ids[1])),
        "{text}"
    );
    assert!(text.contains(&format!("disk:vg0/swap changed\nUUID of swap space {SWAP} becomes ")), "{text}");
    assert!(fs::read(stage.path("disk")).unwrap() == untouched);

    let ran = stage.gridgate(&SOMEBODY);
    assert!(ran.status.success(), "{ran:?}");
    let now = stage.known();
    for (old, new) in before.ids.iter().zip(&now.ids) {
        assert!(!new.is_empty() && old != new, "{old} is {new}");
    }
    let renamed = |text: &String| {
        let compact = |id: &String| id.replace('-', "");
        before.ids.iter().zip(&now.ids).fold(text.clone(), |text, (old, new)| {
            text.replace(old, new).replace(&compact(old), &compact(new))
        })
    };
    assert_eq!(now.files, before.files.iter().map(renamed).collect::<Vec<_>>());
    assert_eq!(now.files[2], format!("RESUME=UUID={}\n", now.ids[5]));
    assert_eq!(stage.file(ROOT_AT, "/etc/lvm/devices/system.devices"), b"");

    let again = stage.gridgate(&SOMEBODY);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.success() && said.contains("nothing had to be changed"), "{said}");
    assert_eq!(stage.known(), now);
}

#[test]
fn an_id_of_lvm_that_the_disk_still_has_is_found_and_may_be_kept() {
    let Some(stage) = Stage::new() else { return };
    let group = stage.known().ids[1].clone();
    fs::write(stage.path("old.json"), format!(r#"{{"version": 1, "uuids": ["{group}"]}}"#)).unwrap();
    let audit = || {
        let old = stage.name("old.json");
        let ran = stage.gridgate(&["--audit", "--hostname", "wn7", "--old", &old]);
        String::from_utf8(ran.stdout).unwrap().contains(&format!("id of the volume group {group}"))
    };
    assert!(audit());
    let kept = stage.gridgate(&[&SOMEBODY[..], &["--keep-disk-ids"]].concat());
    assert!(kept.status.success(), "{kept:?}");
    assert_eq!(stage.known().ids[1], group);
    assert!(audit());
    assert!(stage.gridgate(&SOMEBODY).status.success());
    assert!(!audit());
}

#[test]
fn a_volume_that_cannot_be_reached_is_refused_before_anything_is_changed() {
    let refused = |prepare: &dyn Fn(&Stage), words: &[&str], status: i32, told: &str| {
        let Some(stage) = Stage::new() else { return };
        prepare(&stage);
        let before = fs::read(stage.path("disk")).unwrap();
        let disk = stage.name("disk");
        let all = [&["personalise", "--disk", &disk], words, &SOMEBODY].concat();
        let ran = run(
            env!("CARGO_BIN_EXE_gridgate"),
            &[&["--state", &stage.name("state")], &all[..]].concat(),
            b"",
        );
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(status), "{said}");
        assert!(said.contains(told), "{said}");
        assert!(fs::read(stage.path("disk")).unwrap() == before);
    };
    let more = |stage: &Stage| {
        stage.lvm(&["lvcreate -an -Zn -Wn -y -n pieces -l 1 vg0", "lvcreate -an -Zn -Wn -y -n gap -l 1 vg0"]);
        stage.lvm(&["lvextend -l +1 vg0/pieces"]);
    };
    let volume = |name| ["--volume", name];
    refused(&more, &volume("vg0/pieces"), 4, "volume 'vg0/pieces' of ");
    refused(&more, &volume("vg0/root"), 4, "volume 'vg0/pieces' of ");
    refused(&|_| (), &volume("vg0/none"), 1, "hint: --volume takes one of vg0/root, vg0/swap, vg0/home");
    refused(&|_| (), &[], 1, "its logical volumes are vg0/root, vg0/swap, vg0/home");
    let loader = |stage: &Stage| {
        fs::create_dir_all(stage.path("root/boot/grub/i386-pc")).unwrap();
        fs::write(stage.path("root/boot/grub/i386-pc/core.img"), "packed").unwrap();
        let image = stage.sized("root.img", ROOT_AT.1);
        good("mke2fs", &["-q", "-t", "ext4", "-d", &stage.name("root"), &image]);
        stage.put(&image, ROOT_AT.0);
    };
    for words in [&["--volume", "vg0/root"][..], &["--volume", "vg0/root", "--diff"]] {
        refused(&loader, words, 4, "finds '/boot/grub/i386-pc/core.img' by ids of LVM");
    }
}

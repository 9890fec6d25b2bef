//! Whole machines made as files and on devices, without starting them (`tests/lab` does that): what is on the disk then, and
//! what is left when it is cut short. The images are small ones, made for the occasion.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod bundle;
mod faults;
#[path = "../support/one_file.rs"]
mod server;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gridgate::host::Live;
use gridgate::host::filesystem::Filesystems;
use gridgate::host::root::Root;
use gridgate::host::volume::Volume;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const SITE: &str = r#"
    name = "dcu"
    domain = "dcu.example.org"
    admin_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJXeJ1dUZ5yZ1wBNWgGEKGFVLyLJS8vJOJ1jD3pE4mOk admin"]
    [host]
    hostname = "gw"
    mac = "52:54:00:12:34:58"
    address = "192.0.2.5/24"
    gateway = "192.0.2.1"
    [defaults]
    image = "small"
    profile = "base"
    disk = "96M"
    [networks.lan]
    mode = "nat"
    subnet = "10.77.0.0/24"
    gateway = "10.77.0.1"
"#;

/// A centre with a site of two guests and both images; `None`, said loudly, where no machine can be made.
struct Centre {
    dir: tempfile::TempDir,
}

impl Centre {
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: making a machine needs root and loop devices");
            return None;
        }
        for program in ["sfdisk", "mkfs.fat", "mcopy", "mkfs.xfs", "mke2fs"] {
            if Command::new(program).arg("--version").output().is_err() {
                eprintln!("skipped: making a machine needs '{program}'");
                return None;
            }
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let centre = Self { dir };
        fs::create_dir_all(centre.at("site/guests")).unwrap();
        fs::write(centre.at("site/site.toml"), SITE).unwrap();
        for guest in ["ce", "ui"] {
            fs::write(centre.at(&format!("site/guests/{guest}.toml")), "").unwrap();
        }
        let tree = centre.at("tree");
        system(&tree);
        centre.image("small", &tree);
        bootable(&tree);
        centre.image("gateway", &tree);
        fs::create_dir(centre.at("out")).unwrap();
        Some(centre)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn image(&self, name: &str, tree: &Path) {
        let dir = self.at("state/images").join(name);
        fs::create_dir_all(&dir).unwrap();
        let disk = dir.join("disk.ext4");
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-O", "metadata_csum_seed", "-d"]).arg(tree).arg(&disk).arg("64M");
        succeeds(&mut mke2fs);
        let bytes = fs::read(&disk).unwrap();
        let manifest = json!({
            "format_version": 1, "name": name, "definition_digest": "d", "kernel": null, "initrd": null,
            "packages": [], "built_at_epoch_seconds": 0, "built_by": "a test", "tools": [],
            "disk": {
                "file": "disk.ext4", "size_bytes": bytes.len(), "allocated_bytes": 8 * MIB,
                "blake3": blake3::hash(&bytes).to_hex().to_string(), "uuid": "",
            },
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    }

    fn gridgate(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--site").arg(self.at("site")).arg("--state").arg(self.at("state"));
        command.args(["--json", "site"]).args(args).stdin(Stdio::null());
        command
    }

    fn install(&self, to: &Path, more: &[&str]) -> Output {
        self.gridgate(&["install", "--to", to.to_str().unwrap()]).args(more).output().unwrap()
    }

    fn report(&self, to: &Path, more: &[&str]) -> Value {
        let output = self.install(to, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Names of what is beside a disk that is made.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("out")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Enough of a system to be given an identity and a profile.
fn system(tree: &Path) {
    for dir in [
        "etc/ssh",
        "etc/systemd/system/multi-user.target.wants",
        "lib/systemd/system",
        "usr/bin",
        "root",
        "var/lib",
        "run",
        "tmp",
    ] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::write(tree.join("lib/systemd/system/systemd-networkd.service"), "").unwrap();
    fs::write(tree.join("etc/machine-id"), "").unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\n").unwrap();
}

/// And of one that starts a machine, as far as that is looked at.
fn bootable(tree: &Path) {
    for dir in ["boot/gridgate/bios", "boot/gridgate/efi/BOOT"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let mut sector = vec![0xeb; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(tree.join("boot/gridgate/bios/boot.img"), sector).unwrap();
    let mut core = vec![0xc0; 1024];
    core[508..510].copy_from_slice(&1u16.to_le_bytes());
    fs::write(tree.join("boot/gridgate/bios/core.img"), core).unwrap();
    fs::write(tree.join("boot/gridgate/efi/BOOT/BOOTX64.EFI"), "shim").unwrap();
    fs::write(tree.join("boot/vmlinuz-1"), "kernel").unwrap();
    fs::write(tree.join("boot/initrd.img-1"), "initrd").unwrap();
    symlink("boot/vmlinuz-1", tree.join("vmlinuz")).unwrap();
    symlink("boot/initrd.img-1", tree.join("initrd.img")).unwrap();
}

fn succeeds(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What sfdisk finds: number, name, first byte, length; nothing where there is no table.
fn table(disk: &Path) -> Vec<(String, u64, u64)> {
    let output = Command::new("sfdisk").arg("--json").arg(disk).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let parts = printed["partitiontable"]["partitions"].as_array().cloned().unwrap_or_default();
    let sectors = |value: &Value| value.as_u64().unwrap() * 512;
    parts
        .iter()
        .map(|part| {
            (part["name"].as_str().unwrap().to_owned(), sectors(&part["start"]), sectors(&part["size"]))
        })
        .collect()
}

fn look(disk: &Path, partition: &str, mut look: impl FnMut(&Root)) {
    let found = table(disk);
    let (_, offset, len) = found.iter().find(|(name, ..)| name == partition).unwrap();
    let volume = Volume { file: disk.to_owned(), offset: *offset, len: Some(*len) };
    Live.look_at_volume(&volume, &mut |root, _| {
        look(root);
        Ok(())
    })
    .unwrap();
}

fn text(root: &Root, path: &str) -> String {
    let bytes = root.read(Path::new(path)).unwrap();
    String::from_utf8(bytes.unwrap_or_else(|| panic!("there is no '{path}'"))).unwrap()
}

/// A disk that is a device. It is detached when its last user is gone.
struct Device(PathBuf);

impl Device {
    fn of(file: &Path) -> Self {
        File::create(file).unwrap().set_len(1 << 30).unwrap();
        let made = succeeds(Command::new("losetup").args(["--find", "--show"]).arg(file));
        Self(PathBuf::from(String::from_utf8(made).unwrap().trim()))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Loop devices whose file is in that directory.
fn attached(dir: &Path) -> Vec<String> {
    let files = fs::read_dir("/sys/block").unwrap().flatten();
    let files = files.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file.trim()).starts_with(dir)).collect()
}

#[test]
fn a_machine_that_was_made_has_its_names_its_keys_its_guests_and_gridgate() {
    let Some(centre) = Centre::new() else { return };
    let disk = centre.at("out/disk");
    let report = centre.report(&disk, &["--size", "1G"]);
    assert_eq!(centre.beside(), ["disk"]);
    none_attached(centre.dir.path());
    let names: Vec<String> = table(&disk).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["bios", "esp", "gridgate-root", "gridgate-data"]);
    let machines = report["machines"].as_array().unwrap();
    let fqdns: Vec<&str> = machines.iter().map(|machine| machine["fqdn"].as_str().unwrap()).collect();
    assert_eq!(fqdns, ["gw.dcu.example.org", "ce.dcu.example.org", "ui.dcu.example.org"]);
    let known = fs::read_to_string(report["known_hosts"].as_str().unwrap()).unwrap();

    look(&disk, "gridgate-root", |root| {
        assert_eq!(text(root, "/etc/hostname"), "gw\n");
        assert!(
            text(root, "/etc/systemd/network/20-gridgate-card.network").contains("Address=192.0.2.5/24\n")
        );
        assert!(text(root, "/root/.ssh/authorized_keys").contains(" admin\n"));
        assert!(text(root, "/etc/gridgate/site.toml").contains("name = \"dcu\""));
        assert!(text(root, "/boot/grub/grub.cfg").contains("linux /vmlinuz root=UUID="));
        assert!(text(root, "/usr/local/lib/systemd/system/gridgate.target").contains("[Unit]"));
        let public = text(root, "/etc/ssh/ssh_host_ed25519_key.pub");
        let key = public.split(' ').nth(1).unwrap();
        assert!(known.contains(&format!("gw,gw.dcu.example.org,192.0.2.5 ssh-ed25519 {key}")), "{known}");
    });
    look(&disk, "gridgate-data", |root| {
        let data = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&root.as_fd())));
        for guest in ["ce", "ui"] {
            let own = data.join("guests").join(guest).join("disk");
            let volume = Volume::whole(&own);
            Live.look_at_volume(&volume, &mut |root, _| {
                assert_eq!(text(root, "/etc/hostname"), format!("{guest}\n"));
                let public = text(root, "/etc/ssh/ssh_host_ed25519_key.pub");
                assert!(known.contains(public.split(' ').nth(1).unwrap()), "{guest}: {known}");
                Ok(())
            })
            .unwrap();
        }
    });
    let boot = fs::File::open(&disk).unwrap();
    let mut sector = [0; 512];
    boot.read_exact_at(&mut sector, 0).unwrap();
    assert_eq!((sector[0], &sector[510..]), (0xeb, &[0x55, 0xaa][..]), "GRUB's first sector is there");
}

#[test]
fn a_machine_that_is_made_again_is_known_by_the_same_keys() {
    let Some(centre) = Centre::new() else { return };
    let disk = centre.at("out/disk");
    let keys = |report: Value| {
        report["machines"].as_array().unwrap().iter().map(|m| m["host_keys"].clone()).collect::<Vec<_>>()
    };
    let first = keys(centre.report(&disk, &["--size", "1G"]));
    let refused = centre.install(&disk, &[]);
    assert_eq!(refused.status.code(), Some(4), "what is there is not replaced unasked");
    assert_eq!(keys(centre.report(&disk, &["--yes"])), first);
    assert_eq!(centre.beside(), ["disk"]);
}

#[test]
fn a_disk_that_is_in_use_or_too_small_is_refused_and_left_as_it_is() {
    let Some(centre) = Centre::new() else { return };
    let file = centre.at("out/backing");
    let device = Device::of(&file);
    succeeds(Command::new("mke2fs").arg("-q").arg(device.path()));
    let mounted = centre.at("mounted");
    fs::create_dir(&mounted).unwrap();
    succeeds(Command::new("mount").arg(device.path()).arg(&mounted));
    let refused = centre.install(device.path(), &["--yes"]);
    succeeds(Command::new("umount").arg(&mounted));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("is in use") && said.contains(mounted.to_str().unwrap()), "{said}");
    let small = centre.install(&centre.at("out/small"), &["--size", "400M"]);
    let said = String::from_utf8_lossy(&small.stderr);
    assert_eq!(small.status.code(), Some(1), "{said}");
    assert!(said.contains("is too small for this machine"), "{said}");
    assert_eq!(centre.beside(), ["backing"]);
}

#[test]
fn a_link_to_a_disks_file_stays_one_and_the_file_is_the_machine() {
    let Some(centre) = Centre::new() else { return };
    let (file, link) = (centre.at("out/file"), centre.at("out/link"));
    fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    centre.report(&link, &["--yes"]);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
    assert_eq!(table(&file).len(), 4);
    assert_eq!(centre.beside(), ["file", "link"]);
}

#[test]
fn an_image_that_starts_nothing_is_refused_before_anything_is_touched() {
    let Some(centre) = Centre::new() else { return };
    let disk = centre.at("out/disk");
    let refused = centre.install(&disk, &["--size", "1G", "--image", "small"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("image 'small' cannot start a machine"), "{said}");
    assert_eq!(centre.beside(), Vec::<String>::new());
}

#[test]
fn a_gateways_data_partition_is_kept_with_its_guests_and_their_identities() {
    let Some(centre) = Centre::new() else { return };
    let disk = centre.at("out/disk");
    let first = centre.report(&disk, &["--size", "1G"]);
    let before = table(&disk);
    let (_, at, len) = before[3].clone();
    let volume = Volume { file: disk.clone(), offset: at, len: Some(len) };
    Live.edit_volume(&volume, Default::default(), &mut |root, _| {
        root.write(Path::new("/kept"), b"for years", gridgate::host::root::FileMode::KeepOr(0o600)).map(drop)
    })
    .unwrap();
    // Another centre, that never heard of the site.
    fs::remove_dir_all(centre.at("state/sites")).unwrap();
    let second = centre.report(&disk, &["--yes", "--saved-partition", "gridgate-data"]);
    assert_eq!(table(&disk)[3], before[3]);
    look(&disk, "gridgate-data", |root| assert_eq!(text(root, "/kept"), "for years"));
    let keys = |report: &Value, at: usize| report["machines"][at]["host_keys"].clone();
    for guest in [1, 2] {
        assert_eq!(keys(&first, guest), keys(&second, guest));
    }
}

/// Runs it on the target until it has said so many lines, and kills it; whether that came before its end.
fn killed_after(centre: &Centre, target: &Path, more: &[&str], lines: usize) -> bool {
    let mut command = centre.gridgate(&["install", "--yes", "--to", target.to_str().unwrap()]);
    let mut child = command.args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let killed = kill_after(&mut child, lines);
    none_attached(target);
    killed
}

/// Waits until it has said so many lines, kills it, and says whether that came before its end. How far something has come is
/// told every few seconds, so that a slow machine says more lines.
pub fn kill_after(child: &mut std::process::Child, lines: usize) -> bool {
    BufReader::new(child.stderr.take().unwrap()).lines().take(lines).count();
    let _ = child.kill();
    child.wait().unwrap().code().is_none()
}

/// A program that a killed command ran may outlive it for a moment, and holds a loop device so long; so does somebody who looks
/// for a free one.
pub fn none_attached(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !attached(path).is_empty() {
        assert!(Instant::now() < deadline, "a loop device is left: {:?}", attached(path));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_disk_is_no_machine_whenever_it_is_cut_short_and_the_next_attempt_makes_one() {
    let Some(centre) = Centre::new() else { return };
    let disk = centre.at("out/disk");
    let mut kills = 0;
    while killed_after(&centre, &disk, &["--size", "1G"], kills + 1) {
        if disk.exists() {
            // The kill came when there was nothing left to do but to end.
            assert_eq!(table(&disk).len(), 4, "it had its name after {kills} lines");
            break;
        }
        kills += 1;
    }
    assert!(kills >= 3, "it was cut short only {kills} times");
    let file = centre.at("backing");
    let device = Device::of(&file);
    for lines in 1..=kills {
        centre.report(device.path(), &["--yes"]);
        assert_eq!(table(device.path()).len(), 4);
        if !killed_after(&centre, device.path(), &[], lines) {
            assert_eq!(table(device.path()).len(), 4);
            continue;
        }
        let found = table(device.path());
        // The first line is said before anything is touched, the last one when only writing it to the disk is left.
        let untouched = (lines == 1 || lines == kills) && found.len() == 4;
        assert!(found.is_empty() || untouched, "cut short after {lines} lines it has {found:?}");
    }
    centre.report(device.path(), &["--yes"]);
    assert_eq!(table(device.path()).len(), 4);
    drop(device);
    assert!(disk.exists() || centre.install(&disk, &["--size", "1G"]).status.success());
    assert_eq!(centre.beside(), ["disk"]);
}

#[test]
fn a_partition_that_is_kept_is_found_whenever_making_the_rest_is_cut_short() {
    let Some(centre) = Centre::new() else { return };
    let file = centre.at("backing");
    let device = Device::of(&file);
    centre.report(device.path(), &["--yes"]);
    let kept = table(device.path())[3].clone();
    for lines in 1..6 {
        killed_after(&centre, device.path(), &["--saved-partition", "4"], lines);
        let found = table(device.path());
        assert!(found.contains(&kept), "cut short after {lines} lines it has {found:?}");
        assert!(found.len() == 1 || found.len() == 4, "{found:?}");
    }
    centre.report(device.path(), &["--yes", "--saved-partition", "4"]);
    assert_eq!(table(device.path()).len(), 4);
}

#[test]
fn a_dry_run_says_all_that_would_be_done_and_does_none_of_it() {
    let Some(centre) = Centre::new() else { return };
    let output = centre.install(&centre.at("out/disk"), &["--size", "1G", "--dry-run"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = printed["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap(), "write the partition table");
    assert_eq!(printed["plan"]["layout"]["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(centre.beside(), Vec::<String>::new());
    assert!(!centre.at("state/sites").exists());
}

#[test]
fn a_table_makes_its_machines_side_by_side_and_one_that_fails_stops_no_other() {
    let Some(centre) = Centre::new() else { return };
    fs::create_dir_all(centre.at("other/guests")).unwrap();
    fs::write(centre.at("other/site.toml"), SITE.replace("\"dcu\"", "\"ucc\"")).unwrap();
    fs::write(centre.at("other/guests/wn.toml"), "").unwrap();
    fs::write(centre.at("sites.csv"), "site,target,size\nsite,out/dcu,1G\nother,out/ucc,1G\n").unwrap();
    let rows = centre.at("sites.csv");
    let run = |more: &[&str]| {
        centre.gridgate(&["install", "--table", rows.to_str().unwrap()]).args(more).output().unwrap()
    };
    let output = run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sites: Vec<&Value> =
        printed["machines"].as_array().unwrap().iter().map(|made| &made["report"]["site"]).collect();
    assert_eq!(sites, ["dcu", "ucc"]);
    for disk in ["out/dcu", "out/ucc"] {
        assert_eq!(table(&centre.at(disk)).len(), 4);
    }
    // The second cannot be made: somebody makes it at this moment.
    let lock = File::create(centre.at("state/sites/ucc/lock")).unwrap();
    nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
        .map(|held| {
            let output = run(&["--yes"]);
            assert_eq!(output.status.code(), Some(5));
            let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(printed["machines"][0]["report"]["site"], "dcu");
            assert!(printed["machines"][1]["error"].is_string(), "{printed}");
            drop(held);
        })
        .unwrap();
}

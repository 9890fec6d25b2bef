//! `gridgate image import` by the command itself: directories, tars of every program and compression, disks with and without
//! partitions; what is refused, and what is left when it goes wrong.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

#[path = "support/loops.rs"]
mod loops;
#[path = "support/one_file.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A small system that holds everything that a tar can hold.
const SYSTEM: &str = r#"
umask 022
mkdir -p etc/ssl usr/bin boot var/lib/dpkg dev empty "odd
name" default
echo 'root:x:0:0::/root:/bin/sh' > etc/passwd; echo 'root:x:0:' > etc/group
printf 'Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n' > var/lib/dpkg/status
echo kernel-9 > boot/vmlinuz-6.1.0-9-amd64; echo kernel-10 > boot/vmlinuz-6.1.0-10-amd64; echo initrd-10 > boot/initrd.img-6.1.0-10-amd64
printf hello > usr/bin/file; ln usr/bin/file usr/bin/again; ln usr/bin/file aaa; ln -s ../usr/bin/file etc/link
printf x > "$(printf 'not\377text')"; printf x > ' leading'; printf x > -dash
printf x > "etc/$(printf 'n%.0s' $(seq 255))"; ln -s "$(printf '/%0200d' 7)" long-link
mknod dev/null c 1 3; mknod dev/sda b 8 0; mkfifo fifo
printf '#!/bin/sh\n' > setuid; chown 70000:4000000000 setuid; chmod 6755 setuid; mkdir sticky; chmod 1777 sticky
cp /bin/true cap; setcap cap_net_raw+ep cap
printf x > attrs; setfattr -n user.note -v text attrs; setfattr -n user.a=b%c -v eq attrs; setfattr -n trusted.thing -v 0x00ff0a attrs
setfattr -n security.selinux -v label attrs; setfacl -m u:1234:rw-,g:99999:r-- attrs; setfacl -d -m u:5:rwx default
truncate -s 3G huge; printf begin | dd of=huge conv=notrunc status=none; printf end | dd of=huge bs=1 seek=2000000000 conv=notrunc status=none
truncate -s 100000 hole; for i in $(seq 0 2 22); do printf x | dd of=hole bs=4096 seek=$i conv=notrunc status=none; done
head -c 300000 /dev/urandom > noise; : > zero
touch -d '@-1.5' noise; touch -h -d '@7.25' etc/link; touch -d '@1.000000001' etc; touch -d '@99' .
"#;

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// With a system in `root`.
    fn new() -> Option<Self> {
        let missing = ["setfattr", "setfacl", "setcap", "tar"].into_iter().find(|tool| !is_there(tool));
        if !rustix::process::geteuid().is_root()
            || !Path::new("/dev/loop-control").exists()
            || missing.is_some()
        {
            eprintln!("skipped: it takes root, loop devices, and {missing:?}");
            return None;
        }
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("root")).unwrap();
        lab.shell(&format!("cd root\n{SYSTEM}"));
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, commands: &str) {
        let ran = Command::new("bash").args(["-ec", commands]).current_dir(self.dir.path()).output().unwrap();
        assert!(ran.status.success(), "{commands}: {}", said(&ran));
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--state").arg(self.path("state")).arg("--site").arg(self.path("site"));
        command.args(words).current_dir(self.dir.path()).env("TMPDIR", self.dir.path()).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert!(ran.status.success(), "{words:?}: {}", said(&ran));
        said(&ran)
    }

    /// Ends with that status, says that, and leaves no image and nothing half made.
    fn fails(&self, words: &[&str], status: i32, with: &str) {
        let ran = self.run(words);
        assert_eq!(ran.status.code(), Some(status), "{words:?}: {}", said(&ran));
        assert!(said(&ran).contains(with), "{words:?}: '{with}' is not in:\n{}", said(&ran));
        self.holds(&[]);
    }

    /// Just these images, and nothing half made.
    fn holds(&self, images: &[&str]) {
        let read = fs::read_dir(self.path("state/images")).into_iter().flatten().flatten();
        let mut names: Vec<String> = read.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        assert_eq!(names, images);
        loops::are_gone_from(self.dir.path());
    }

    fn manifest(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(&format!("state/images/{name}/manifest.json"))).unwrap())
            .unwrap()
    }

    /// Every file of the image is that of `root`, with all that it has.
    fn is_root(&self, name: &str) {
        let disk = self.path(&format!("state/images/{name}/disk.ext4"));
        let ran = Command::new("e2fsck").arg("-fn").arg(&disk).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        let archive = self.path("packed.tar.zst").to_str().unwrap().to_owned();
        self.done(&["image", "pack", "--tree", "root", "-o", &archive, "--fast", "--with-keys"]);
        let against = disk.to_str().unwrap();
        self.done(&["image", "verify", &archive, "--insecure-unsigned", "--against", against]);
    }

    /// A disk of partitions, each ext4 with what the commands put into it.
    fn partitioned(&self, name: &str, parts: &[&str]) {
        let mut table = "label: gpt\n".to_owned();
        parts.iter().for_each(|_| table += "size=48MiB\n");
        let mut commands =
            format!("truncate -s {}M {name}\nsfdisk -q {name} <<<'{table}'\n", parts.len() * 48 + 2);
        for (number, fill) in parts.iter().enumerate() {
            commands += &format!(
                "rm -rf part; mkdir part; (cd part; {fill}\n); mke2fs -q -t ext4 -d part part.img 48M\n\
                 dd if=part.img of={name} bs=1M seek={} conv=notrunc,sparse status=none; rm part.img\n",
                1 + number * 48
            );
        }
        self.shell(&commands);
    }
}

fn is_there(tool: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success()
}

fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

#[test]
fn a_directory_becomes_an_image_with_everything_that_is_in_it() {
    let Some(lab) = Lab::new() else { return };
    lab.shell("cd root; chattr +a noise; chattr +d empty; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'");
    let said = lab.done(&["image", "import", "one", "root"]);
    assert!(said.contains("image 'one' is imported"), "{said}");
    lab.is_root("one");
    let manifest = lab.manifest("one");
    assert_eq!(manifest["origin"]["kind"], "directory");
    assert_eq!(manifest["origin"]["source"], lab.path("root").canonicalize().unwrap().to_str().unwrap());
    assert_eq!(manifest["packages"][0]["name"], "bash");
    assert_eq!(manifest["packages"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(lab.path("state/images/one/vmlinuz")).unwrap(), b"kernel-10\n");
    assert_eq!(fs::read(lab.path("state/images/one/initrd.img")).unwrap(), b"initrd-10\n");
    lab.done(&["image", "verify", "one", "--insecure-unsigned"]);
    lab.shell("chattr -a root/noise");
    lab.holds(&["one"]);
}

#[test]
fn an_image_that_is_there_is_replaced_by_force_alone() {
    let Some(lab) = Lab::new() else { return };
    lab.done(&["image", "import", "one", "root"]);
    let uuid = lab.manifest("one")["disk"]["uuid"].clone();
    let again = lab.run(&["image", "import", "one", "root", "--json"]);
    assert!(said(&again).contains("is there already"), "{}", said(&again));
    let document: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((document["imported"].as_bool(), &document["image"]["disk"]["uuid"]), (Some(false), &uuid));
    lab.shell("cp -a root other");
    let other = lab.run(&["image", "import", "one", "other"]);
    assert_eq!(other.status.code(), Some(4), "{}", said(&other));
    lab.done(&["image", "import", "one", "root", "--force"]);
    assert_ne!(lab.manifest("one")["disk"]["uuid"], uuid);
    lab.holds(&["one"]);
}

#[test]
fn a_tar_of_every_program_and_form_loses_nothing() {
    let Some(lab) = Lab::new() else { return };
    let usual = "tar -C root --xattrs --xattrs-include='*' --acls --numeric-owner --sparse --format=posix";
    // bsdtar writes fractions of times before 1970 in a way of its own.
    for (number, (what, command)) in [
        ("pax, sparse 1.0", format!("{usual} --sparse-version=1.0 -cf x.tar .")),
        ("pax, sparse 0.1", format!("{usual} --sparse-version=0.1 -cf x.tar .")),
        ("pax, sparse 0.0", format!("{usual} --sparse-version=0.0 -cf x.tar .")),
        ("bsdtar", "touch -d @-1 root/noise; bsdtar -C root --format pax --numeric-owner --no-fflags -cf x.tar . 2>/dev/null".to_owned()),
    ]
    .iter()
    .enumerate()
    {
        if *what == "bsdtar" && !is_there("bsdtar") {
            eprintln!("skipped: no bsdtar here");
            continue;
        }
        let name = format!("tar{number}");
        lab.shell(command);
        eprintln!("{what}");
        lab.done(&["image", "import", &name, "x.tar"]);
        lab.is_root(&name);
        let digest = blake3::hash(&fs::read(lab.path("x.tar")).unwrap()).to_hex().to_string();
        assert_eq!(lab.manifest(&name)["origin"]["blake3"], digest);
        lab.done(&["image", "remove", &name]);
    }
}

#[test]
fn old_forms_of_tar_lose_only_what_they_have_no_place_for() {
    let Some(lab) = Lab::new() else { return };
    lab.shell(
        "cd root; setfattr -x user.note attrs; setfattr -x user.a=b%c attrs; setfattr -x trusted.thing attrs
         setfattr -x security.selinux attrs; setfacl -b attrs; setfacl -b default; setcap -r cap
         find . -depth -exec touch -h -d @1234567890 {} +",
    );
    lab.shell("tar -C root --format=gnu --numeric-owner --sparse -cf x.tar .");
    lab.done(&["image", "import", "gnu", "x.tar"]);
    lab.is_root("gnu");
    // The oldest has neither long names nor large numbers, nor devices.
    lab.shell(
        "cd root; rm -r fifo huge setuid long-link etc/nnn* dev; tar --format=v7 --numeric-owner -cf ../v7.tar .",
    );
    lab.done(&["image", "import", "v7", "v7.tar"]);
    lab.holds(&["gnu", "v7"]);
}

#[test]
fn every_compression_is_known_by_its_content_and_a_pipe_is_read_too() {
    let Some(lab) = Lab::new() else { return };
    lab.shell("rm root/huge; tar -C root --xattrs --xattrs-include='*' --acls --numeric-owner --format=posix -cf x.tar .");
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        if !is_there(program) {
            eprintln!("skipped: no {program} here");
            continue;
        }
        lab.shell(&format!("{program} -c x.tar > misnamed.img"));
        lab.done(&["image", "import", program, "misnamed.img"]);
        assert_eq!(lab.manifest(program)["origin"]["kind"], "tar");
        lab.shell(&format!("head -c -20 misnamed.img > cut; cat cut | {} image import cut - --state state2 2>&1 && exit 1 || true; test -z \"$(ls state2/images)\"", env!("CARGO_BIN_EXE_gridgate")));
    }
    lab.is_root("xz");
    lab.shell(&format!(
        "cat misnamed.img | {} --state state image import piped -",
        env!("CARGO_BIN_EXE_gridgate")
    ));
    assert_eq!(lab.manifest("piped")["origin"]["source"], "-");
}

#[test]
fn a_tar_is_read_from_a_web_server_whose_answers_break_off() {
    let Some(lab) = Lab::new() else { return };
    if !is_there("curl") {
        return eprintln!("skipped: no curl here");
    }
    lab.shell("rm root/huge; tar -C root --xattrs --xattrs-include='*' --acls --numeric-owner --format=posix -czf x.tar .");
    let server = server::Server::of(fs::read(lab.path("x.tar")).unwrap(), true);
    lab.fails(&["image", "import", "none", &server.url("gone")], 1, "404");
    lab.done(&["image", "import", "fetched", &server.url("a")]);
    lab.is_root("fetched");
    assert_eq!(lab.manifest("fetched")["origin"]["source"], server.url("a"));
}

#[test]
fn a_tar_that_leads_out_or_is_no_system_is_refused_and_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.shell(
        "rm root/huge; mkdir deep; cp -a root deep/rootfs; tar -C deep -cf deep.tar rootfs; tar -C root/etc -cf etc.tar .",
    );
    lab.fails(&["image", "import", "x", "deep.tar"], 1, "there is one in 'rootfs'");
    lab.fails(&["image", "import", "x", "etc.tar"], 1, "not the root of a system");
    lab.shell("tar -C root -Pcf out.tar . --transform 's,^./attrs,../attrs,'");
    lab.fails(&["image", "import", "x", "out.tar"], 1, "climbs out of the top");
    lab.shell("mkdir link; ln -s /etc link/usr; tar -C link -cf link.tar usr; tar -C root -rf link.tar usr/bin/file etc");
    lab.fails(&["image", "import", "x", "link.tar"], 1, "it is inside 'usr', which is no directory");
    lab.shell("tar -C root -cf cut.tar etc usr noise; truncate -s -20k cut.tar");
    lab.fails(&["image", "import", "x", "cut.tar"], 1, "cut short");
    lab.done(&["image", "pack", "--tree", "root", "-o", "own.tar.zst"]);
    lab.fails(&["image", "import", "x", "own.tar.zst"], 1, "hint: gridgate image restore");
}

#[test]
fn private_keys_are_refused_and_sealing_takes_them_out() {
    let Some(lab) = Lab::new() else { return };
    lab.shell(
        "mkdir -p root/etc/ssh root/etc/wireguard; echo ce01.old.org > root/etc/hostname
         echo 0123456789abcdef0123456789abcdef > root/etc/machine-id
         printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\\n' > root/etc/ssh/ssh_host_ed25519_key
         printf '[Interface]\\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\\n' > root/etc/wireguard/wg0.conf",
    );
    lab.fails(&["image", "import", "x", "root"], 4, "/etc/wireguard/wg0.conf");
    lab.fails(&["image", "import", "x", "root"], 4, "hint: --seal");
    lab.done(&["image", "import", "kept", "root", "--with-keys"]);
    let origin = &lab.manifest("kept")["origin"];
    assert_eq!(origin["audit"]["clean"], false);
    assert_eq!(origin["audit"]["private_keys"].as_array().unwrap().len(), 2);
    lab.is_root("kept");
    lab.done(&["image", "import", "sealed", "root", "--seal"]);
    let origin = &lab.manifest("sealed")["origin"];
    assert_eq!(
        (origin["sealed"].as_bool(), &origin["audit"]["private_keys"]),
        (Some(true), &Value::Array(Vec::new()))
    );
    let disk = lab.path("state/images/sealed/disk.ext4");
    let audit = lab.run(&["personalise", "--disk", disk.to_str().unwrap(), "--audit"]);
    let found = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(!found.contains("machine-id") && !found.contains("wireguard"), "{found}");
    lab.shell("mkdir -p root/srv; cp root/etc/ssh/ssh_host_ed25519_key root/srv/deploy");
    let refused = lab.run(&["image", "import", "y", "root", "--seal"]);
    assert!(
        said(&refused).contains("/srv/deploy") && !said(&refused).contains("ssh_host"),
        "{}",
        said(&refused)
    );
    lab.holds(&["kept", "sealed"]);
}

#[test]
fn a_disk_is_imported_whole_or_by_the_partition_that_holds_the_system() {
    let Some(lab) = Lab::new() else { return };
    if !is_there("sfdisk") {
        return eprintln!("skipped: no sfdisk here");
    }
    lab.shell("rm root/huge");
    let system = "cp -a ../root/. .; echo 'UUID=1 /home ext4' > etc/fstab";
    lab.partitioned("disk.img", &["mkdir grub", system]);
    let said = lab.done(&["image", "import", "part", "disk.img"]);
    assert!(said.contains("on partition 2") && said.contains("'/home'"), "{said}");
    assert_eq!(lab.manifest("part")["origin"]["partition"], 2);
    assert_eq!(lab.manifest("part")["packages"][0]["name"], "bash");
    lab.done(&["image", "remove", "part"]);
    lab.fails(&["image", "import", "x", "disk.img", "--partition", "1"], 1, "not the root of a system");
    lab.fails(&["image", "import", "x", "disk.img", "--partition", "3"], 1, "has no partition 3");
    lab.partitioned("two.img", &[system, "mkdir -p usr etc; touch etc/passwd"]);
    lab.fails(&["image", "import", "x", "two.img"], 4, "there are several systems on it");
    lab.shell("mke2fs -q -t ext4 -d root bare.img 64M; dumpe2fs -h bare.img 2>/dev/null | grep -oP 'UUID: *\\K.*' > uuid");
    lab.done(&["image", "import", "bare", "bare.img"]);
    let uuid = fs::read_to_string(lab.path("uuid")).unwrap();
    assert_eq!(lab.manifest("bare")["disk"]["uuid"], uuid.trim());
    lab.done(&["image", "remove", "bare"]);
    lab.shell("truncate -s 10M zeros; debugfs -w -R 'feature needs_recovery' bare.img 2>/dev/null");
    lab.fails(&["image", "import", "x", "zeros"], 1, "holds neither a tar");
    lab.fails(&["image", "import", "x", "bare.img"], 1, "was not unmounted");
}

#[test]
fn a_disk_of_qemu_is_imported_unless_it_names_another_file() {
    let Some(lab) = Lab::new() else { return };
    if !is_there("qemu-img") || !is_there("sfdisk") {
        return eprintln!("skipped: no qemu-img or sfdisk here");
    }
    lab.shell("rm root/huge");
    lab.partitioned("disk.img", &["mkdir grub", "cp -a ../root/. ."]);
    lab.shell("qemu-img convert -c -O qcow2 disk.img disk; qemu-img create -q -f qcow2 -F raw -b disk.img over.qcow2");
    lab.fails(&["image", "import", "x", "over.qcow2"], 1, "differs from another disk");
    lab.shell("qemu-img create -q -f qcow2 -o data_file=outside,data_file_raw=on data.qcow2 1M");
    lab.fails(&["image", "import", "x", "data.qcow2"], 1, "reading '");
    lab.done(&["image", "import", "q", "disk"]);
    assert_eq!(lab.manifest("q")["origin"]["partition"], 2);
    let disk = lab.path("state/images/q/disk.ext4");
    let read = Command::new("debugfs").args(["-R", "cat /usr/bin/file"]).arg(disk).output().unwrap();
    assert_eq!(read.stdout, b"hello");
    lab.holds(&["q"]);
}

#[test]
fn a_guest_s_disk_is_copied_with_what_is_in_its_journal_and_the_copy_goes() {
    let Some(lab) = Lab::new() else { return };
    lab.shell("rm root/huge; mkdir -p state/guests/ce; mke2fs -q -t ext4 -d root state/guests/ce/disk 64M; sha256sum state/guests/ce/disk > sum");
    lab.done(&["image", "import", "of-ce", "--guest", "ce"]);
    let origin = &lab.manifest("of-ce")["origin"];
    assert_eq!((origin["kind"].as_str(), origin["source"].as_str()), (Some("guest"), Some("ce")));
    assert_eq!(lab.manifest("of-ce")["packages"][0]["name"], "bash");
    lab.shell("sha256sum -c --quiet sum; test -z \"$(find state -name '*.making-*')\"");
    assert_eq!(lab.run(&["image", "import", "x", "--guest", "se"]).status.code(), Some(1));
    assert_eq!(lab.run(&["image", "import", "x", "root", "--guest", "ce"]).status.code(), Some(2));
    lab.holds(&["of-ce"]);
}

#[test]
fn where_the_disk_is_full_nothing_is_left_and_an_older_image_stays() {
    let Some(lab) = Lab::new() else { return };
    lab.shell("rm root/huge; head -c 30M /dev/urandom > root/large; mkdir state small; mount -t tmpfs -o size=24M none state");
    let unmount = || lab.shell("umount state");
    let all = || {
        lab.shell("mkdir older; cp -a root/etc root/usr older; tar -C root -cf x.tar .");
        lab.done(&["image", "import", "one", "older", "--size", "8M"]);
        let before = lab.manifest("one");
        for source in ["root", "x.tar"] {
            for name in ["one", "two"] {
                let ran = lab.run(&["image", "import", name, source, "--force"]);
                assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
                lab.holds(&["one"]);
            }
        }
        assert_eq!(lab.manifest("one"), before);
        lab.done(&["image", "verify", "one", "--insecure-unsigned"]);
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(all));
    unmount();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_killed_import_leaves_what_the_next_one_removes() {
    let Some(lab) = Lab::new() else { return };
    lab.shell("rm root/huge; tar -C root -cf x.tar .; mkfifo pipe");
    let mut killed = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    killed.arg("--state").arg(lab.path("state")).args(["image", "import", "x", "-"]);
    let mut running = killed.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let half = fs::read(lab.path("x.tar")).unwrap();
    std::io::Write::write_all(running.stdin.as_mut().unwrap(), &half[..half.len() / 2]).unwrap();
    let started = std::time::Instant::now();
    let made = || fs::read_dir(lab.path("state/images")).is_ok_and(|dir| dir.flatten().count() > 1);
    while !made() {
        assert!(started.elapsed().as_secs() < 90, "it did not begin");
        std::thread::yield_now();
    }
    running.kill().unwrap();
    running.wait().unwrap();
    lab.done(&["image", "import", "y", "x.tar"]);
    lab.holds(&["y"]);
}

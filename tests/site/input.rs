//! What is found before anything is changed, and a disk that fills up while it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::support::{TestSite, prepared};

/// Without the images that all tests share, so that there is something to spoil.
fn without_images() -> Option<TestSite> {
    let site = TestSite::quick(&["ce"], "")?;
    fs::remove_file(site.paths.images()).unwrap();
    Some(site)
}

fn no_disk(site: &TestSite) {
    assert!(!site.paths.disk(&"ce".parse().unwrap()).exists());
    assert_eq!(site.left(), [""; 0]);
}

#[test]
fn a_missing_image_is_told_with_the_command_that_builds_it() {
    let Some(site) = without_images() else { return };
    let ran = site.run(&["up"]).exits(1).says("image 'debian-12' is not in ");
    ran.says("hint: gridgate image build debian-12");
    no_disk(&site);
}

#[test]
fn a_truncated_image_is_not_cloned() {
    let Some(site) = without_images() else { return };
    let (from, to) = (prepared().unwrap().join("images/debian-12"), site.paths.images().join("debian-12"));
    fs::create_dir_all(&to).unwrap();
    for name in ["manifest.json", "vmlinuz", "initrd.img"] {
        symlink(from.join(name), to.join(name)).unwrap();
    }
    fs::write(to.join("disk.ext4"), b"short").unwrap();
    let ran =
        site.run(&["up"]).exits(1).says("image 'debian-12' is damaged: 'disk.ext4' has 5 bytes instead of ");
    ran.says("hint: gridgate image build --force debian-12");
    no_disk(&site);
}

#[test]
fn a_missing_program_is_named_with_the_package_that_brings_it() {
    let Some(site) = TestSite::quick(&["ce"], "backend = \"qemu\"") else { return };
    // A system without QEMU: the only program of /usr/bin is the one that limits probes.
    let path = site.paths.state.join("bin");
    fs::create_dir(&path).unwrap();
    symlink("/usr/bin/timeout", path.join("timeout")).unwrap();
    let mut up = site.command(&["up"]);
    up.env("PATH", &path);
    let ran = site.spawn(up).end().exits(1);
    ran.says("guest 'ce': backend 'qemu' does not work here: 'qemu-system-x86_64' is not installed")
        .says("hint: ");
    no_disk(&site);
}

#[test]
fn a_missing_kernel_of_user_mode_linux_is_found_before_anything_is_made() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    fs::remove_file(site.paths.state.join("kernels")).unwrap();
    let path = site.paths.state.join("bin");
    fs::create_dir(&path).unwrap();
    symlink("/usr/bin/timeout", path.join("timeout")).unwrap();
    let mut up = site.command(&["up"]);
    up.env("PATH", &path);
    let ran = site.spawn(up).end().exits(1);
    ran.says("guest 'ce': backend 'uml' does not work here: 'linux.uml' is not installed")
        .says("gridgate doctor");
    no_disk(&site);
}

#[test]
fn a_kernel_that_vanished_since_it_was_tried_fails_the_start_and_all_is_undone() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    site.run(&["up"]).exits(0);
    site.run(&["down"]).exits(0);
    // As it was planned before: the spec stays, what it names does not.
    let spec = site.paths.spec(&"ce".parse().unwrap());
    let text = fs::read_to_string(&spec).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["engine"]["kernel"] = "/nonexistent/linux".into();
    fs::write(&spec, record.to_string()).unwrap();
    let mut start = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    start.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state).args(["network", "up"]);
    site.spawn(start).end().exits(0);
    site.run(&["launch", "ce"]).exits(1).says("running '/nonexistent/linux': No such file or directory");
    assert!(site.record("ce").is_none());
    site.run(&["up"]).exits(0);
}

/// A small filesystem in memory, gone with the test.
struct Small(PathBuf);

impl Small {
    fn new(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", &at, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(at)
    }

    fn grow(&self, size: &str) {
        mount_remount(&self.0, MountFlags::empty(), format!("size={size}")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn disks_that_do_not_fit_are_refused_before_anything_is_made() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    let host = fs::read(site.paths.state.join("host.json")).unwrap();
    let small = Small::new(site.paths.state.clone(), "50M");
    let prepared = prepared().unwrap();
    for shared in ["images", "kernels"] {
        symlink(prepared.join(shared), site.paths.state.join(shared)).unwrap();
    }
    fs::write(site.paths.state.join("host.json"), host).unwrap();
    let ran = site.run(&["up"]).exits(1).says("the new disks take up to ").says("where ");
    ran.says("hint: make room, or keep the state elsewhere with --state DIR");
    assert!(!site.paths.disk(&"ce".parse().unwrap()).exists());
    drop(small);
}

#[test]
fn a_disk_that_fills_up_while_guests_are_cloned_leaves_nothing_half_made() {
    let Some(site) = TestSite::quick(&["ce", "se"], "") else { return };
    // The check before looks at the state directory, where there is room; the disks do not fit both.
    let small = Small::new(site.paths.guests(), "450M");
    let ran = site.run(&["up"]);
    assert!(matches!(ran.status.code(), Some(1 | 5)), "{ran:#?}");
    let ran = ran.says("not enough space in ").says(" are needed, ");
    let code = ran.status.code();
    if code == Some(1) {
        ran.says("nothing was changed, or all was undone");
    } else {
        ran.says("done and kept:").says("hint: when the cause is mended, the same command goes on from here");
    }
    assert!(!site.traces().iter().any(|trace| trace.starts_with("half made")), "{:?}", site.traces());
    small.grow("2G");
    site.run(&["up"]).exits(0);
    site.run(&["down"]).exits(0);
    drop(small);
}

/// Runs a script in a network namespace of its own; `$G` is gridgate on the site.
fn in_own_network(site: &TestSite, script: &str) -> crate::support::Ran {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-euc", script]).env("G", env!("CARGO_BIN_EXE_gridgate"));
    command.env("GRIDGATE_SITE", &site.paths.site).env("GRIDGATE_STATE", &site.paths.state);
    site.spawn(command).end()
}

#[test]
fn a_bridge_name_that_somebody_else_has_is_refused_and_left_alone() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    site.replace("site.toml", "\"rehearsal\"", "\"isolated\"");
    let script = "ip link add gg-lan type veth peer name other; $G up && exit 99; status=$?; ip link show gg-lan >/dev/null; exit $status";
    let ran = in_own_network(&site, script).exits(1);
    ran.says("the name 'gg-lan' is taken by an interface that gridgate did not make")
        .says("another bridge name");
    no_disk(&site);
}

#[test]
fn an_address_that_an_interface_of_the_host_has_is_refused() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    site.replace("site.toml", "\"rehearsal\"", "\"isolated\"");
    let script =
        "ip link add other type veth peer name far; ip address add 10.77.0.10/24 dev other; exec $G up";
    let ran = in_own_network(&site, script).exits(1);
    ran.says("address 10.77.0.10 of guest 'ce' is in use: interface 'other' on the host has it")
        .says("give the guest another address");
    no_disk(&site);
}

#[test]
fn an_address_that_another_machine_has_is_found_before_the_guest_takes_it() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    site.replace("site.toml", "\"rehearsal\"", "\"bridge\"\nbridge = \"wire\"");
    // The other machine is a namespace at the far end of a cable that is in the administrator's bridge. It ends with
    // the process that holds it.
    let script = "ip link set lo up; ip link add wire type bridge; ip link set wire up
        unshare --net sleep 60 & other=$!
        while [ \"$(readlink /proc/$other/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link add cable type veth peer name far netns $other
        ip link set cable master wire; ip link set cable up
        nsenter --net=/proc/$other/ns/net sh -c 'ip link set far address 52:54:00:ff:00:01;
            ip address add 10.77.0.10/24 dev far; ip link set far up'
        status=0; $G up || status=$?; kill $other; exit $status";
    let ran = in_own_network(&site, script).exits(1);
    ran.says("address 10.77.0.10 is in use: the machine with hardware address 52:54:00:ff:00:01 has it")
        .says("nothing was changed, or all was undone");
    no_disk(&site);
}

//! Guests that run, and write, while they are backed up. On a filesystem that shares blocks, which is made for that, and on
//! one that does not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{TestSite, eventually, kill, name, prepared};

/// An XFS of its own, in a file beside what was prepared.
struct Xfs {
    dir: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl Xfs {
    fn new() -> Option<Self> {
        let beside = prepared()?;
        let file = tempfile::NamedTempFile::new_in(beside.parent().unwrap()).unwrap();
        file.as_file().set_len(6 << 30).unwrap();
        let dir =
            tempfile::Builder::new().prefix("xfs-").tempdir_in(beside.parent().unwrap()).unwrap().keep();
        let made = Command::new("mkfs.xfs").arg("-q").arg(file.path()).status();
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(file.path()).arg(&dir).status();
        match (made, mounted) {
            (Ok(made), Ok(mounted)) if made.success() && mounted.success() => Some(Self { dir, _file: file }),
            other => {
                eprintln!("skipped: no XFS can be made and mounted here: {other:?}");
                fs::remove_dir(&dir).unwrap();
                None
            }
        }
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(&self.dir).status().is_ok_and(|status| status.success());
        assert!(ended && fs::remove_dir(&self.dir).is_ok() || std::thread::panicking());
    }
}

const SITE: &str = r#"
name = "quick"
[defaults]
image = "debian-12"
memory = "192M"
disk = "1G"
ready = ["login", "tcp:22"]
restart = "never"
[networks.lan]
mode = "rehearsal"
subnet = "10.77.0.0/24"
gateway = "10.77.0.1"
"#;

/// Writes numbers, each of which is on the disk before the next one.
const WRITER: &str = "(n=0; while :; do n=$((n+1)); echo $n >>/root/log; sync; done) >/dev/null 2>&1 &";

fn guests(site: &TestSite, backends: &[(&str, &str, &str)]) {
    site.write("site.toml", SITE);
    for (number, (guest, backend, more)) in backends.iter().enumerate() {
        let address = 10 + number;
        let text = format!("address = \"10.77.0.{address}\"\nbackend = \"{backend}\"\n{more}\n");
        site.write(&format!("guests/{guest}.toml"), &text);
    }
}

fn ssh(site: &TestSite, guest: &str, command: &str) -> String {
    site.run(&["ssh", guest, command]).exits(0).out.trim_end().to_owned()
}

#[test]
fn a_guest_that_runs_becomes_an_image_as_it_is_and_goes_on() {
    let Some(xfs) = Xfs::new() else { return };
    let Some(site) = TestSite::bare_in(1, &xfs.dir) else { return };
    // Images of its own, since one is made.
    let (images, shared) = (site.paths.images(), site.paths.images().canonicalize().unwrap());
    fs::remove_file(&images).unwrap();
    fs::create_dir(&images).unwrap();
    std::os::unix::fs::symlink(shared.join("debian-12"), images.join("debian-12")).unwrap();
    guests(&site, &[("ce", "uml", "")]);
    site.run(&["up"]).exits(0);
    ssh(&site, "ce", "echo here >/usr/local/mark; sync");
    site.run(&["image", "import", "now", "--guest", "ce"]).exits(4);
    let told = site.run(&["--json", "image", "import", "now", "--guest", "ce", "--seal"]).exits(0).json();
    let origin = &told["image"]["origin"];
    assert_eq!(
        (origin["kind"].as_str(), origin["audit"]["private_keys"].as_array().unwrap().len()),
        (Some("guest"), 0)
    );
    let shown = site.run(&["image", "show", "now"]).exits(0).out;
    let dir = shown.lines().find_map(|line| line.strip_prefix("directory")).unwrap().trim();
    let disk = std::path::Path::new(dir).join("disk.ext4");
    let read = Command::new("debugfs").args(["-R", "cat /usr/local/mark"]).arg(disk).output().unwrap();
    assert_eq!(read.stdout, b"here\n");
    assert_eq!(ssh(&site, "ce", "cat /usr/local/mark"), "here");
    site.run(&["down"]).exits(0);
}

#[test]
fn guests_that_write_are_held_for_milliseconds_and_come_up_elsewhere_as_themselves() {
    let Some(xfs) = Xfs::new() else { return };
    let Some(site) = TestSite::bare_in(2, &xfs.dir) else { return };
    let first_line = "ready = [\"console:Linux version\"]\nstop_timeout = \"1s\"";
    guests(&site, &[("ce", "uml", ""), ("se", "nspawn", ""), ("ui", "qemu", first_line)]);
    site.run(&["up"]).exits(0);
    let whoami = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; hostname -f";
    let mut before = Vec::new();
    for guest in ["ce", "se"] {
        ssh(&site, guest, WRITER);
        before.push(ssh(&site, guest, whoami));
    }
    let written =
        |site: &TestSite, guest: &str| -> u64 { ssh(site, guest, "tail -n1 /root/log").parse().unwrap() };
    let at_least = ["ce", "se"].map(|guest| written(&site, guest));

    let store = xfs.dir.join("store");
    let store = store.to_str().unwrap();
    let back_up = || site.run(&["--json", "site", "backup", "--to", store]).exits(0).json();
    let first = back_up();
    let second = back_up();
    for guest in second["guests"].as_array().unwrap() {
        let (name, paused) = (&guest["name"], guest["paused_ms"].as_f64().unwrap());
        eprintln!("{name}: held for {paused:.1} ms ({})", guest["held"]);
        let how = match name.as_str().unwrap() {
            "se" => ("filesystem", true),
            _ => ("machine", false),
        };
        assert_eq!((guest["held"].as_str().unwrap(), guest["clean"].as_bool().unwrap()), how, "{guest}");
    }
    let (all, new) = (first["sent_bytes"].as_u64().unwrap(), second["sent_bytes"].as_u64().unwrap());
    eprintln!("the first backup sent {all} bytes, the second one {new}");
    assert!(new * 4 < all, "{new} of {all}");
    // They go on.
    for (guest, at_least) in ["ce", "se"].into_iter().zip(at_least) {
        eventually("the guest writes", || (written(&site, guest) > at_least + 2).then_some(()));
    }
    assert_eq!(site.status("ui")["observed"], "running");

    let Some(other) = TestSite::bare_in(0, &xfs.dir) else { return };
    other.run(&["site", "restore", store, "--insecure-unsigned"]).exits(0);
    // Only the first byte of its console was waited for, so that there was no time for anything to be lost.
    other.run(&["up", "ce", "se"]).exits(0);
    for ((guest, before), at_least) in ["ce", "se"].into_iter().zip(before).zip(at_least) {
        assert_eq!(ssh(&other, guest, whoami), before);
        assert!(written(&other, guest) >= at_least, "{guest}");
    }
    other.run(&["down"]).exits(0);
    for guest in ["ce", "se", "ui"] {
        let disk = other.paths.disk(&name(guest));
        // The one that never came up has its journal still to be replayed.
        Command::new("e2fsck").arg("-p").arg(&disk).output().unwrap();
        let check = Command::new("e2fsck").arg("-fn").arg(&disk).output().unwrap();
        assert!(check.status.success(), "{guest}: {}", String::from_utf8_lossy(&check.stdout));
    }
    // While the guests of the one run, the other can be made anew, and not this one.
    site.run(&["site", "restore", store, "--insecure-unsigned", "--replace"])
        .exits(4)
        .says("guests run here");
    site.run(&["down"]).exits(0);
}

/// The process whose command line ends so, among those that have this one as an ancestor.
fn guard(site: &TestSite) -> Option<i32> {
    let state = site.paths.state.to_str().unwrap();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.contains(state) && line.contains(" guard ")).then_some(pid)
    })
}

#[test]
fn a_guest_never_stays_held_whoever_is_killed() {
    let Some(site) = TestSite::bare(2) else { return };
    guests(&site, &[("ce", "uml", ""), ("se", "nspawn", "")]);
    site.run(&["up"]).exits(0);
    let store = site.paths.state.parent().unwrap().join("store");
    let store = store.to_str().unwrap();
    let refused = site.run(&["site", "backup", "--to", store]);
    if refused.status.success() {
        eprintln!(
            "skipped: what was prepared is on a filesystem that shares blocks, and nobody is held for long there"
        );
        return;
    }
    refused.exits(4).says("--allow-long-pause").says("ce (");
    // Begins a backup, and stops it as soon as the guest is held: for as long as its disk is copied. Who looks too late tries again.
    let begun = |guest: &str| {
        let mark = site.paths.still_mark(&name(guest));
        eventually("it is held", || {
            let backup = site.start(&["site", "backup", guest, "--to", store, "--allow-long-pause"]);
            eventually("it is held, or over", || (mark.exists() || backup.is_over()).then_some(()));
            backup.signal(Signal::STOP);
            eventually("it has stopped", || (backup.is('T') || backup.is_over()).then_some(()));
            if mark.exists() {
                return Some(backup);
            }
            backup.signal(Signal::CONT);
            backup.end();
            None
        })
    };
    for guest in ["se", "ce"] {
        let mark = site.paths.still_mark(&name(guest));
        let begun = || begun(guest);
        let goes_on = || {
            eventually("it goes on", || (!mark.exists()).then_some(()));
            assert_eq!(ssh(&site, guest, "echo on >/root/on && sync && cat /root/on"), "on");
            eventually("the guard has ended", || guard(&site).is_none().then_some(()));
            assert!(!site.traces().iter().any(|trace| trace.contains(" site backup ")));
        };

        let backup = begun();
        backup.signal(Signal::KILL);
        backup.end();
        goes_on();

        // Both at once.
        let backup = begun();
        kill(guard(&site).unwrap(), Signal::KILL);
        backup.signal(Signal::KILL);
        backup.end();
        assert!(mark.exists());
        site.run(&["gc"]).exits(0);
        goes_on();

        // The guard alone: whoever holds it still lets it go on.
        let backup = begun();
        kill(guard(&site).unwrap(), Signal::KILL);
        backup.signal(Signal::CONT);
        backup.end().exits(0);
        goes_on();

        // Ctrl-C.
        let backup = begun();
        backup.signal(Signal::INT);
        backup.signal(Signal::CONT);
        backup.end().exits(1).says("interrupted");
        goes_on();
    }
    // One that hangs: the guard does not wait for ever, and what was copied then is no backup.
    let mark = site.paths.still_mark(&name("se"));
    let backup = begun("se");
    eventually("it goes on", || (!mark.exists()).then_some(()));
    assert_eq!(ssh(&site, "se", "echo on >/root/on && cat /root/on"), "on");
    backup.signal(Signal::CONT);
    backup.end().exits(1).says("went on before its disk was copied");
    // And one that is held can be stopped.
    let backup = begun("se");
    kill(guard(&site).unwrap(), Signal::KILL);
    backup.signal(Signal::KILL);
    backup.end();
    site.run(&["stop", "se"]).exits(0).says("se: shut itself down in ");
    site.run(&["gc"]).exits(0);
    site.run(&["down"]).exits(0);
}

//! A whole identity into one disk, by both engines, against the bare `losetup`, `mount`, `umount` and detach of the same disk,
//! against debugfs and systemd-firstboot, which write a small part of one, and against the appliances where they are
//! installed. The disk is in the page cache. Each round makes the disk another machine.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

#[path = "../tests/support/described.rs"]
mod described;
mod table;

use std::path::Path;
use std::process::{Command, Stdio};

use described::loaded;
use gridgate::host::Live;
use gridgate::host::filesystem::Shape;
use gridgate::host::volume::Volume;
use gridgate::identity::assigned::Assigned;
use gridgate::identity::personalise::{Plan, Scrubbing};
use gridgate::identity::target::Target as Disk;
use gridgate::identity::wanted::Identity;
use table::{Target, median, row};

const ROUNDS: usize = 9;

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: the mount engine and its peers need root");
    }
    let Some(prepared) = table::prepared() else { return };
    let dir = table::scratch();
    let disk = dir.path().join("disk");
    let image = prepared.join("images/debian-12/disk.ext4");
    assert!(Command::new("cp").arg("--sparse=always").arg(image).arg(&disk).status().unwrap().success());
    // What is still to be written would be waited for by whoever mounts first.
    rustix::fs::sync();

    table::heading("a whole identity into one disk (300 MB Debian)");
    let rounds = |work: &mut dyn FnMut()| median((0..ROUNDS).map(|_| table::time(&mut *work)).collect());
    let at = dir.path().join("at");
    std::fs::create_dir(&at).unwrap();
    let bare = rounds(&mut || shell(&format!("{}:", mounting(&disk, &at))));
    let mount = rounds(&mut || personalise(&Disk::Volume(Volume::whole(&disk))));
    row(
        "mount engine / losetup, mount, umount, detach",
        "ms",
        mount,
        Some(bare),
        Target::RatioAnd(2.0, 15.0),
    );
    let looped = rounds(&mut || {
        shell(&format!(
            "{}echo wn > {1}/etc/hostname; echo x > {1}/etc/hosts",
            mounting(&disk, &at),
            at.display()
        ));
    });
    row("mount engine / a script that writes two files", "ms", mount, Some(looped), Target::None);
    let offline = rounds(&mut || personalise(&Disk::Offline(disk.clone())));
    let debugfs = rounds(&mut || {
        shell(&format!(
            "printf 'rm /etc/hostname\\ncd /etc\\nwrite /etc/hostname hostname\\n' | debugfs -w -f - {}",
            disk.display()
        ));
    });
    row("without a mount / debugfs, one file", "ms", offline, Some(debugfs), Target::AtMost(20.0));
    peer(
        "systemd-firstboot, name and machine-id alone",
        &["systemd-firstboot", "--force", "--hostname=wn", "--setup-machine-id"],
        &disk,
        "--image=",
        mount,
    );
    peer("virt-customize, the name alone", &["virt-customize", "-q", "--hostname", "wn"], &disk, "-a", mount);
    peer("virt-sysprep", &["virt-sysprep", "-q", "--hostname", "wn"], &disk, "-a", mount);
}

/// A peer that takes its time is measured once; where its hypervisor hangs (KVM that does not work here), not without end:
/// `LIBGUESTFS_BACKEND_SETTINGS=force_tcg` helps then.
fn peer(what: &str, words: &[&str], disk: &Path, option: &str, ours: f64) {
    let mut command = Command::new("timeout");
    // Without a daemon, as in scripts.
    command
        .env("LIBGUESTFS_BACKEND", "direct")
        .args(["--kill-after=5", "180"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match option.strip_suffix('=') {
        Some(_) => command.arg(format!("{option}{}", disk.display())),
        None => command.arg(option).arg(disk),
    };
    let mut worked = false;
    let time = table::time(|| worked = command.status().is_ok_and(|status| status.success()));
    match worked {
        true => row(&format!("mount engine / {what}"), "ms", ours, Some(time), Target::Ratio(1.0)),
        false => println!(
            "{:<46} skipped: '{}' is not here, does not work, or takes more than three minutes",
            format!("mount engine / {what}"),
            words[0]
        ),
    }
}

/// Commands that open the disk, and close it when the shell ends.
fn mounting(disk: &Path, at: &Path) -> String {
    let (disk, at) = (disk.display(), at.display());
    format!(
        "loop=$(losetup --find --show {disk}) && trap 'umount {at}; losetup --detach $loop' EXIT && mount $loop {at} && "
    )
}

fn shell(commands: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-ec", commands]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(shell.status().unwrap().success(), "{commands}");
}

fn personalise(disk: &Disk) {
    let assigned = Assigned::draw("wn7").unwrap();
    let shape = Shape { uuid: Some(assigned.filesystem_uuid), grow: false };
    let described = "name = 's'\ndomain = 'example.org'\ndns = ['192.0.2.2']\n\
        [networks.lan]\nmode = 'isolated'\nsubnet = '192.0.2.0/24'\ngateway = '192.0.2.1'\n";
    let site = loaded(&[("site.toml", described), ("guests/wn7.toml", "")]);
    let mut identity = Identity::of(&site, &site.guests[0], assigned, "ssh-ed25519 AAAA admin");
    let work = &mut |tree: &dyn gridgate::host::tree::Tree, uuid| {
        Plan::make(tree, &mut identity, uuid, &Scrubbing::default())?.apply(tree).map(drop)
    };
    disk.edit(&Live, shape, work).unwrap();
}

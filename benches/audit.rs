//! What is left of an old identity in a golden image's tree, looked for in every form, against `grep -rF` for the forms that
//! are text, in turn. The tree is in the page cache.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gridgate::host::root::Root;
use gridgate::identity::audit::{self, Now, Old};
use gridgate::identity::scrub::{self, Policy};
use table::{Target, median, row, time};

const ROUNDS: usize = 7;

const TEXT: [&str; 14] = [
    "ce01.old-site.example",
    "ce01",
    "old-site.example",
    "10.66.5.4",
    "4.5.66.10.in-addr.arpa",
    "52:54:00:ab:cd:1f",
    "52-54-00-ab-cd-1f",
    "525400abcd1f",
    "8f3a5c7e91b24d06a8c1e2f304152637",
    "8f3a5c7e-91b2-4d06-a8c1-e2f304152637",
    "6d1f7a52-93c8-4b0e-8a77-1c2d3e4f5061",
    "6d1f7a5293c84b0e8a771c2d3e4f5061",
    "AAAAC3NzaC1lZDI1NTE5AAAAIOVnDVjOsotmpNyLmS0QHFCDjcTQV1nEcrZyE6WSprRZ",
    "iqn.1993-08.org.debian:01:5ca1ab1e",
];

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: mounting an image needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let scratch = table::scratch();
    let dir = scratch.path().join("tree");
    fs::create_dir_all(&dir).unwrap();
    table::own_mounts();
    let image = prepared.join("images/debian-12/disk.ext4");
    let mounted = Command::new("mount").args(["-o", "loop,ro,noload"]).arg(&image).arg(&dir).status();
    assert!(mounted.unwrap().success());
    let root = Root::open(&dir).unwrap();
    let old = Old {
        names: [TEXT[0], TEXT[1]].map(str::to_owned).into(),
        domain: Some(TEXT[2].to_owned()),
        addresses: [TEXT[3].parse().unwrap()].into(),
        macs: [[0x52, 0x54, 0x00, 0xab, 0xcd, 0x1f]].into(),
        machine_ids: [TEXT[8].to_owned()].into(),
        uuids: [TEXT[10].to_owned()].into(),
        labels: [TEXT[13].to_owned()].into(),
        keys: [format!("ssh-ed25519 {} root@ce01", TEXT[12])].into(),
        ..Old::default()
    };
    let audit = || audit::run(&root, &old, &Now::default(), &Policy::same_machine(), &[]).unwrap();
    let report = audit();
    assert!(report.is_clean(), "{report}");
    table::heading(&format!(
        "what is left in a golden image's tree ({} files, {} MB)",
        report.looked_at.files,
        report.looked_at.bytes / 1_000_000
    ));
    let (mut ours, mut theirs, mut scrubs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(time(|| grep(&dir)));
        ours.push(time(|| drop(audit())));
        scrubs.push(time(|| drop(scrub::edits(&root, &Policy::another_machine(), &[]).unwrap())));
    }
    row("audit, against grep -rF", "ms", median(ours), Some(median(theirs)), Target::AtMost(1500.0));
    row("looking for what a scrub takes away", "ms", median(scrubs), None, Target::None);
    row("peak memory", "MiB", peak_mib(), None, Target::AtMost(32.0));
    drop(root);
    nix::mount::umount(&dir).unwrap();
}

fn grep(dir: &Path) {
    let mut command = Command::new("grep");
    command.args(["-r", "-F", "-i", "-l"]).args(TEXT.iter().flat_map(|text| ["-e", text]));
    command.arg(dir).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}

/// Most memory that this process had at a time (proc_pid_status(5)).
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

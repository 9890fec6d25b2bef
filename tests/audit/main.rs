//! A filesystem that was one machine becomes another or nobody's, and nothing of the old one is left.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod containers;
#[path = "../support/described.rs"]
mod described;
mod hostile;
mod seeded;

use std::fs;
use std::path::Path;

use described::loaded;
use gridgate::host::root::Root;
use gridgate::identity::assigned::Assigned;
use gridgate::identity::audit::{self, Now, Old, Report};
use gridgate::identity::scrub::Policy;
use gridgate::identity::wanted::Identity;

const MACHINE_ID: &str = "8f3a5c7e91b24d06a8c1e2f304152637";
const UUID: &str = "6d1f7a52-93c8-4b0e-8a77-1c2d3e4f5061";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOVnDVjOsotmpNyLmS0QHFCDjcTQV1nEcrZyE6WSprRZ root@ce01";

/// A machine with one of everything.
fn old() -> Old {
    Old {
        names: ["ce01.old.org", "ce01"].map(str::to_owned).into(),
        domain: Some("old.org".to_owned()),
        addresses: ["10.66.5.4", "2001:db9::54"].map(|a| a.parse().unwrap()).into(),
        macs: [[0x52, 0x54, 0x00, 0xab, 0xcd, 0x1f]].into(),
        machine_ids: [MACHINE_ID.to_owned()].into(),
        uuids: [UUID.to_owned()].into(),
        labels: ["iqn.1993-08.org.debian:01:5ca1ab1e".to_owned()].into(),
        keys: [KEY.to_owned()].into(),
        ..Old::default()
    }
}

/// The machine that it becomes.
fn new_identity() -> Identity {
    let described = "name = 's'\ndomain = 'new.example'\ndns = ['10.99.1.2']\n\
        [networks.lan]\nmode = 'isolated'\nsubnet = '10.99.1.0/24'\ngateway = '10.99.1.1'\n";
    let guest = "address = '10.99.1.7'\nmac = '52:54:00:11:22:33'\n";
    let site = loaded(&[("site.toml", described), ("guests/wn7.toml", guest)]);
    Identity::of(&site, &site.guests[0], Assigned::draw("wn7").unwrap(), "ssh-ed25519 AAAA admin")
}

fn put(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What is found by content alone.
fn audited(dir: &Path, old: &Old) -> Report {
    audit::run(&Root::open(dir).unwrap(), old, &Now::default(), &Policy::same_machine(), &[]).unwrap()
}

fn lines(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

//! A filesystem that was one machine becomes another or nobody's, and nothing of the old one is left.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod containers;
mod hostile;
mod seeded;

use std::fs;
use std::path::Path;

use gridgate::config::interface::{Automatic, Interface, InterfaceKind};
use gridgate::host::root::Root;
use gridgate::identity::assigned::Assigned;
use gridgate::identity::audit::{self, Now, Old, Report};
use gridgate::identity::scrub::Policy;
use gridgate::identity::wanted::{HostLine, Identity};

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
    let names = vec!["wn7.new.example".to_owned(), "wn7".to_owned()];
    Identity {
        hostname: "wn7".to_owned(),
        fqdn: "wn7.new.example".to_owned(),
        domain: "new.example".to_owned(),
        hosts: vec![HostLine { address: "10.99.1.7".parse().unwrap(), names }],
        interfaces: vec![Interface {
            name: "eth0".parse().unwrap(),
            kind: InterfaceKind::Ethernet,
            mac: Some("52:54:00:11:22:33".parse().unwrap()),
            addresses: vec!["10.99.1.7/24".parse().unwrap()],
            gateways: vec!["10.99.1.1".parse().unwrap()],
            automatic: Automatic::default(),
            routes: Vec::new(),
            mtu: None,
            network: None,
        }],
        dns: vec!["10.99.1.2".parse().unwrap()],
        search: vec!["new.example".to_owned()],
        ntp: Vec::new(),
        authorized_keys: vec!["ssh-ed25519 AAAA admin".to_owned()],
        assigned: Assigned::draw("wn7").unwrap(),
    }
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

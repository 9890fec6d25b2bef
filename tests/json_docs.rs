//! docs/json.md names every field that `--json` prints.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use gridgate::console::record::{Cause, EndedBy, ExitRecord};
use gridgate::facts::doctor::{Check, Diagnosis};
use gridgate::image::manifest::{Disk, Manifest, Origin, Package, Part, Remains};
use gridgate::profile::compile::tasks::{State, TaskState};
use gridgate::profile::record::Compiled;
use gridgate::service::limits::Ignored;
use serde_json::{Value, json, to_value};

const DOCS: &str = include_str!("../docs/json.md");

fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| fields(value, into)),
        Value::Object(object) => {
            for (name, value) in object {
                into.insert(name.clone());
                fields(value, into);
            }
        }
        _ => {}
    }
}

fn told(value: &Value) {
    let mut names = BTreeSet::new();
    fields(value, &mut names);
    assert!(names.contains("version"), "{value}");
    // What a guest's readiness is made of is shown as a whole there.
    let missing: Vec<&String> =
        names.iter().filter(|name| !DOCS.contains(&format!("`{name}`")) && *name != "tcp").collect();
    assert!(missing.is_empty(), "docs/json.md does not tell of {missing:?}");
}

fn printed(site: &Path, args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    command.arg("--site").arg(site).arg("--state").arg(site.join("state")).arg("--json").args(args);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn every_field_of_check_and_status_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    assert!(Command::new(env!("CARGO_BIN_EXE_gridgate")).arg("init").arg(&site).status().unwrap().success());
    told(&printed(&site, &["check"]));
    told(&printed(&site, &["check", "--explain", "memory"]));
    told(&printed(&site, &["check", "--set", "ce.memroy=1G"]));
    told(&printed(&site, &["profile", "list"]));
    told(&printed(&site, &["profile", "render", "ce", "/etc/motd"]));
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let tree = tree.to_str().unwrap();
    told(&printed(&site, &["profile", "render", "ce", "--diff", "--tree", tree]));
    told(&printed(&site, &["status"]));
    told(&printed(&site, &["limit", "ce"]));
    told(&printed(&site, &["clone", "ui", "ui2"]));
    let ignored = Ignored { limit: "cpu", why: "no".to_owned() };
    let task = TaskState {
        name: "t".to_owned(),
        about: "do it".to_owned(),
        state: State::Done,
        ended_at_epoch_seconds: Some(1),
        exit_status: Some(0),
    };
    let compiled = Compiled { tasks: vec![task], ..Compiled::default() };
    told(&json!({"version": 1, "profile": to_value(compiled).unwrap()}));
    told(&json!({"version": 1, "limits_ignored": [to_value(ignored).unwrap()]}));
    let exit = ExitRecord {
        at_ms: 1,
        cause: Cause::Exit,
        code: Some(0),
        boot: 1,
        last_lines: vec!["bye".to_owned()],
        by: EndedBy::Host,
        rung: Some("ask".to_owned()),
        stop_took_ms: Some(800),
        launched_at_ms: 1,
        ready_at_ms: Some(1),
        start_failed: false,
    };
    told(&json!({"version": 1, "last_exit": to_value(exit).unwrap()}));
}

#[test]
fn every_field_of_doctor_and_image_is_told() {
    let text = || "x".to_owned();
    let check = Check { name: text(), ok: true, why: text(), mend: None, took_ms: 1 };
    told(&to_value(Diagnosis { version: 1, checks: vec![check] }).unwrap());
    let part = Part { file: text(), size_bytes: 1, blake3: text() };
    let manifest = Manifest {
        format_version: 1,
        name: "debian-12".parse().unwrap(),
        definition_digest: text(),
        disk: Disk { file: text(), size_bytes: 1, allocated_bytes: 1, blake3: text(), uuid: text() },
        kernel: Some(part.clone()),
        initrd: Some(part),
        packages: vec![Package { name: text(), version: text(), sha256: Some(text()) }],
        built_at_epoch_seconds: 1,
        built_by: text(),
        tools: Vec::new(),
        origin: Some(Origin {
            kind: text(),
            source: text(),
            blake3: Some(text()),
            partition: Some(1),
            sealed: true,
            audit: Remains { clean: true, classes: BTreeMap::new(), private_keys: vec![text()] },
        }),
    };
    told(&json!({"version": 1, "built": true, "image": to_value(&manifest).unwrap()}));
    let image = to_value(manifest).unwrap();
    told(&json!({"version": 1, "imported": true, "image": image, "notes": [text()]}));
}

#[test]
fn every_field_of_a_backup_is_told() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: backups need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    assert!(Command::new(env!("CARGO_BIN_EXE_gridgate")).arg("init").arg(&site).status().unwrap().success());
    let guest = site.join("state/guests/ce");
    std::fs::create_dir_all(&guest).unwrap();
    std::fs::write(guest.join("disk"), "a disk").unwrap();
    let store = dir.path().join("store").display().to_string();
    let backup = printed(&site, &["site", "backup", "--to", &store]);
    assert_eq!(backup["guests"][0]["name"], "ce");
    told(&backup);
    told(&printed(&site, &["site", "backup", "--list", "--to", &store]));
    told(&printed(&site, &["image", "store", "list", &store]));
    told(&printed(&dir.path().join("other"), &["site", "restore", &store, "--insecure-unsigned"]));
}

#[test]
fn every_field_of_a_machine_is_told() {
    use gridgate::machine::layout::{self, Needs};
    use gridgate::machine::report::{Machine, Report};
    let (text, list) = (|| "x".to_owned(), || vec!["x".to_owned()]);
    let machine = Machine {
        name: text(),
        fqdn: text(),
        is_host: true,
        addresses: list(),
        host_keys: list(),
        first_boot: list(),
    };
    let report = Report {
        version: 1,
        site: text(),
        to: "x".into(),
        made_at_epoch_seconds: 1,
        machines: vec![machine],
        known_hosts: "x".into(),
        manual_steps: list(),
        notes: list(),
    };
    told(&to_value(report).unwrap());
    let needs = Needs { root: 1 << 30, data: 1 << 30, saved: None };
    let layout = layout::plan(8 << 30, &needs, &mut || Ok([1; 16])).unwrap();
    told(&json!({"version": 1, "layout": to_value(layout).unwrap()}));
}

#[test]
fn every_field_of_a_bundle_is_told() {
    use gridgate::config::site::BackendChoice;
    use gridgate::machine::bundle::contents::{
        Contents, PackedGuest, PackedImage, PackedSite, ProgramVersion,
    };
    let text = || "x".to_owned();
    let guest = PackedGuest {
        name: "ce".parse().unwrap(),
        role: text(),
        image: "small".parse().unwrap(),
        backend: BackendChoice::Auto,
    };
    let site = PackedSite {
        name: "dcu".parse().unwrap(),
        fqdn: text(),
        image: "gateway".parse().unwrap(),
        guests: vec![guest],
        left_out: vec![text()],
        has_identities: false,
    };
    let image = PackedImage {
        name: "small".parse().unwrap(),
        size_bytes: 1,
        blake3: text(),
        built_at_epoch_seconds: 1,
        packages: 1,
    };
    let contents = Contents {
        format_version: 1,
        program: ProgramVersion { version: text(), architecture: text() },
        sites: vec![site],
        images: vec![image],
        has_uml_kernel: true,
    };
    told(
        &json!({"version": 1, "file": "x", "bytes": 1, "data_bytes": 1, "packed_by": "x", "manifest_blake3": "x",
        "signed": true, "bundle": to_value(contents).unwrap()}),
    );
}

#[test]
fn an_audit_is_told_of() {
    use gridgate::host::root::Root;
    use gridgate::identity::audit::{self, Now, Old};
    use gridgate::identity::scrub::Policy;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes"), "ce.old.org").unwrap();
    std::fs::write(dir.path().join("packed"), b"\xfd7zXZ\0").unwrap();
    let old = Old { names: ["ce.old.org", "ce"].map(str::to_owned).into(), ..Old::default() };
    let root = Root::open(dir.path()).unwrap();
    let report = audit::run(&root, &old, &Now::default(), &Policy::nobody(), &[]).unwrap();
    assert_eq!((report.findings.len(), report.unseen.len(), report.left_out.len()), (1, 1, 1));
    told(&to_value(&report).unwrap());
    told(&to_value(&old).unwrap());
}

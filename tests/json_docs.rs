//! docs/json.md names every field that `--json` prints.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use gridgate::console::record::{Cause, EndedBy, ExitRecord};
use gridgate::facts::doctor::{Check, Diagnosis};
use gridgate::image::manifest::{Disk, Manifest, Package, Part};
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
    let task = TaskState { name: "t".to_owned(), about: "do it".to_owned(), state: State::ByHand };
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
        packages: vec![Package { name: text(), version: text() }],
        built_at_epoch_seconds: 1,
        built_by: text(),
        tools: Vec::new(),
    };
    told(&json!({"version": 1, "built": true, "image": to_value(manifest).unwrap()}));
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

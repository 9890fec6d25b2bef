//! `gridgate init` and `gridgate check`, as typed.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn gridgate(site: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    command.env_remove("GRIDGATE_STATE").env("GRIDGATE_SITE", site).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn init_writes_a_site_that_is_good_and_overwrites_nothing() {
    for format in ["toml", "shell"] {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("new/site");
        let init = |path: &Path| gridgate(path, &["init", &path.display().to_string(), "--format", format]);
        assert_eq!(init(&site).status.code(), Some(0));
        let check = gridgate(&site, &["check"]);
        assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
        let expected = "\
NAME  ROLE  BACKEND  ADDRESS        MAC                MEMORY
ce    ce    auto     10.77.0.10/24  52:54:00:82:69:45  256M
se    se    auto     10.77.0.11/24  52:54:00:24:47:e2  256M
ui    ui    auto     10.77.0.12/24  52:54:00:fd:81:6f  256M
wn    wn    auto     10.77.0.13/24  52:54:00:1f:bb:5a  256M
site 'my-site' is good: 4 guests, 1 network, rehearsed
";
        assert_eq!(text(&check.stdout), expected);

        let guest = site.join("guests").join(if format == "toml" { "ce.toml" } else { "ce.conf" });
        fs::write(&guest, "# mine").unwrap();
        let again = init(&site);
        assert_eq!(again.status.code(), Some(4));
        assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
        assert_eq!(fs::read_to_string(&guest).unwrap(), "# mine");
    }
}

#[test]
fn init_refuses_what_is_no_directory_and_fills_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let refused = gridgate(&file, &["init", &file.display().to_string()]);
    assert_eq!(refused.status.code(), Some(4));
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(gridgate(&empty, &["init", &empty.display().to_string()]).status.code(), Some(0));
    assert!(empty.join("site.toml").is_file());
}

#[test]
fn check_prints_every_value_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("s");
    gridgate(&site, &["init", &site.display().to_string()]);
    let check = gridgate(&site, &["check", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(json["version"], 1);
    let guest = &json["site"]["guests"][0];
    for (key, value) in [
        ("name", "ce".into()),
        ("role", "ce".into()),
        ("backend", "auto".into()),
        ("address", "10.77.0.10".into()),
        ("mac", "52:54:00:82:69:45".into()),
        ("memory_bytes", serde_json::json!(268435456)),
        ("description", "Computing element".into()),
        ("ready_timeout_ms", serde_json::json!(300_000)),
        ("stop_timeout_ms", serde_json::json!(60_000)),
        ("ready", serde_json::json!(["login", { "tcp": 22 }])),
    ] {
        assert_eq!(guest[key], value, "{key}");
    }
    let explain = gridgate(&site, &["check", "--json", "--explain", "ce.memory"]);
    let json: serde_json::Value = serde_json::from_slice(&explain.stdout).unwrap();
    assert_eq!(json["explain"][0]["key"], "ce.memory");
    assert_eq!(json["explain"][0]["overrides"][0]["origin"], "shipped default");
}

#[test]
fn check_tells_problems_with_place_and_hint_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("s");
    gridgate(&site, &["init", &site.display().to_string()]);
    let file = site.join("guests/ce.toml");
    fs::write(&file, "role = \"ce\"\nmemroy = \"1G\"\n").unwrap();
    let check = gridgate(&site, &["check"]);
    assert_eq!((check.status.code(), text(&check.stdout).as_str()), (Some(2), ""));
    let expected = format!("{}:2:1: unknown key 'memroy'\n  hint: did you mean 'memory'?\n", file.display());
    assert!(text(&check.stderr).starts_with(&expected), "{}", text(&check.stderr));
    let check = gridgate(&site, &["check", "--json"]);
    assert_eq!(check.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let expected = serde_json::json!({ "version": 1, "problems": [{
        "file": file.display().to_string(), "line": 2, "column": 1,
        "message": "unknown key 'memroy'", "hint": "did you mean 'memory'?",
    }]});
    assert_eq!(json, expected);
    let wrong = gridgate(&site, &["check", "--explain", "x", "--set", "ce.memory=1G"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_reader_that_has_gone_away_is_a_normal_end() {
    let dir = tempfile::tempdir().unwrap();
    for words in [["image", "list"], ["check", "--json"]] {
        let site = dir.path().join(words[0]);
        assert_eq!(gridgate(&site, &["init", &site.display().to_string()]).status.code(), Some(0));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.env("GRIDGATE_STATE", dir.path().join("state")).env("GRIDGATE_SITE", &site).args(words);
        let ran = command.stdout(writer).output().unwrap();
        assert_eq!((ran.status.code(), text(&ran.stderr)), (Some(0), String::new()), "{words:?}");
    }
}

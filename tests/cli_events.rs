//! `gridgate events` as its reader meets it.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gridgate::events::{What, note};
use gridgate::names::GuestName;
use gridgate::paths::Paths;
use serde_json::{Value, json};

fn guest(name: &str) -> GuestName {
    name.parse().unwrap()
}

fn events(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
    command.args(["events", "--site"]).arg(state).arg("--state").arg(state).args(args);
    command
}

fn lines(state: &Path, args: &[&str]) -> Vec<Value> {
    let ran = events(state, args).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_token_goes_on_where_it_was_given_and_names_choose() {
    let state = tempfile::tempdir().unwrap();
    let paths = Paths::new(state.path(), state.path());
    note(&paths, &guest("ce"), What::Started { pid: 7, backend: "uml".into() });
    note(&paths, &guest("se"), What::Ready { after_ms: 3200 });
    let all = lines(state.path(), &["--json"]);
    assert_eq!(all.len(), 2);
    let (version, who, what, pid) = (&all[0]["version"], &all[0]["guest"], &all[0]["event"], &all[0]["pid"]);
    assert_eq!((version, who, what, pid), (&json!(1), &json!("ce"), &json!("started"), &json!(7)));
    let token = all[0]["token"].as_str().unwrap();
    assert_eq!(lines(state.path(), &["--json", "--since", token]), all[1..]);
    assert_eq!(lines(state.path(), &["--json", "se"]), all[1..]);
    assert_eq!(lines(state.path(), &["--json", "--since", "1-0"])[0]["event"], "dropped");
    let text = events(state.path(), &[]).output().unwrap().stdout;
    assert!(String::from_utf8(text).unwrap().ends_with("  se: ready after 3.2 s\n"));
}

#[test]
fn a_follower_hears_of_what_happens_while_it_listens() {
    let state = tempfile::tempdir().unwrap();
    let paths = Paths::new(state.path(), state.path());
    note(&paths, &guest("ce"), What::Ready { after_ms: 1 });
    let follow = events(state.path(), &["--json", "--follow"]).stdout(Stdio::piped()).spawn();
    let mut follower = Follower(follow.unwrap());
    let mut heard = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut next =
        || serde_json::from_str::<Value>(&heard.next().unwrap().unwrap()).unwrap()["after_ms"].clone();
    assert_eq!(next(), 1);
    // What is noted once the first was heard comes by the kernel's notice alone.
    note(&paths, &guest("ce"), What::Ready { after_ms: 2 });
    assert_eq!(next(), 2);
}

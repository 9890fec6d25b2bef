//! What a guest's profile has done in a guest that runs.

use serde_json::Value;

use crate::support::{TestSite, eventually};

const FEATURE: &str = r#"
description = "tasks and checks of a test"
features = ["first-boot"]

[[task]]
name = "good"
about = "succeeds"
command = ["touch", "/root/good ran"]

[[task]]
name = "bad"
about = "fails"
command = ["sh", "-c", "echo no; exit 7"]

[[task]]
name = "people"
about = "needs hands"

[[check]]
name = "ran"
about = "the first task's file is there"
command = ["test", "-e", "/root/good ran"]

[[check]]
name = "asked-for"
about = "somebody made /root/asked"
command = ["sh", "-c", "printf 'where is it?\\033[2J\\n'; cat /root/asked"]
"#;

fn tasks(guest: &Value) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let tasks = guest["profile"]["tasks"].as_array().unwrap();
    tasks
        .iter()
        .map(|task| (text(&task["name"]), text(&task["state"]), task["exit_status"].clone()))
        .collect()
}

#[test]
fn status_tells_what_tasks_of_a_running_guest_have_come_to_and_checks_run_in_it() {
    let extra = "backend = \"uml\"\nprofile = \"base\"\nfeatures = [\"trial\"]\n";
    let Some(site) = TestSite::one("ce", extra) else { return };
    site.write("profiles/features/trial.toml", FEATURE);
    site.run(&["up"]).exits(0);
    let seen = eventually("both tasks have run", || {
        let seen = tasks(&site.status("ce"));
        (seen.iter().filter(|(_, state, _)| state == "done" || state == "failed").count() == 2)
            .then_some(seen)
    });
    let expected = |people: &str, status: Value| {
        [("bad", "failed", 7.into()), ("good", "done", 0.into()), ("people", people, status)]
            .map(|(name, state, status): (&str, &str, Value)| (name.to_owned(), state.to_owned(), status))
    };
    assert_eq!(seen, expected("by-hand", Value::Null));
    assert_eq!(site.status("ce")["profile"]["tasks_as_of"], "now");
    site.run(&["ssh", "ce", "sh /usr/local/lib/gridgate/first-boot done people"]).exits(0);
    assert_eq!(tasks(&site.status("ce")), expected("done", 0.into()));

    let checked = site.run(&["profile", "check", "ce"]).exits(3);
    assert!(checked.out.contains("ok      ran: the first task's file is there\n"), "{checked:?}");
    assert!(checked.out.contains("FAILED  asked-for: somebody made /root/asked (ended with status 1)\n"));
    assert!(checked.out.contains("        where is it?\n") && !checked.out.contains('\x1b'), "{checked:?}");
    site.run(&["profile", "check", "ce", "nothing"]).exits(2);
    // As a sign of readiness, at the next start.
    site.run(&["ssh", "ce", "touch /root/asked"]).exits(0);
    site.replace("guests/ce.toml", "\"tcp:22\"", "\"tcp:22\", \"checks\"");
    site.run(&["stop", "ce"]).exits(0);
    assert_eq!(tasks(&site.status("ce")), expected("done", 0.into()), "of a guest that is stopped");
    site.run(&["profile", "check", "ce"]).exits(1).says("guest 'ce' does not run");
    site.run(&["up"]).exits(0).says("ce: ready after ");
    assert_eq!(site.run(&["profile", "check", "ce", "asked-for", "--json"]).exits(0).json()["ok"], true);
}

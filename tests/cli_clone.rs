//! `gridgate clone`, on site directories.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Site(tempfile::TempDir);

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Site {
    fn new(format: &str) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        assert_eq!(site.run(&["init", site.dir().to_str().unwrap(), "--format", format]).code, Some(0));
        site
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("site")
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--site").arg(self.dir()).arg("--state").arg(self.0.path().join("state")).args(words);
        let out = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: out.status.code(), out: text(out.stdout), err: text(out.stderr) }
    }

    /// All files of the site.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        for dir in [self.dir(), self.dir().join("guests")] {
            for entry in fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_file()) {
                let path = entry.path().strip_prefix(self.dir()).unwrap().to_owned();
                all.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
        all
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir().join(path)).unwrap()
    }
}

#[test]
fn a_clone_is_in_the_site_and_all_that_people_wrote_is_still_there() {
    for (format, ending, list) in [
        ("toml", "toml", "guests = [\"ce\", \"se\", \"ui\", \"wn2\", \"wn\"]"),
        ("shell", "conf", "GUESTS=\"ce se ui wn2 wn\""),
    ] {
        let site = Site::new(format);
        let before = site.files();
        let ran = site.run(&["--json", "clone", "ui", "wn2", "--role", "wn", "--set", "memory=512M"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let (guest, main) = (format!("guests/wn2.{ending}"), format!("site.{ending}"));
        let expected = serde_json::json!({"version": 1, "guest": "wn2", "files": [guest, main], "disk": "new", "made": true});
        assert_eq!(said, expected);
        // Of what was there, one line is another.
        let after = site.files();
        for (path, text) in &before {
            let changed: Vec<&str> =
                after[path].lines().zip(text.lines()).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
            let expected = if *path == Path::new(&main) { vec![list] } else { Vec::new() };
            assert_eq!((changed, after[path].lines().count()), (expected, text.lines().count()));
        }
        assert!(site.read(&guest).starts_with("# The user interface: where people log in to submit jobs.\n"));
        let check: serde_json::Value = serde_json::from_str(&site.run(&["--json", "check"]).out).unwrap();
        let wn2 = check["site"]["guests"].as_array().unwrap().iter().find(|g| g["name"] == "wn2").unwrap();
        assert_eq!((&wn2["role"], &wn2["memory_bytes"]), (&"wn".into(), &(512_u64 << 20).into()));
    }
}

#[test]
fn what_cannot_be_cloned_leaves_the_site_as_it_was() {
    let site = Site::new("toml");
    let before = site.files();
    for (words, code, why) in [
        (
            &["clone", "nosuch", "x"][..],
            2,
            "has neither a guest nor an image 'nosuch'\nhint: the guests are ce, se",
        ),
        (&["clone", "ui", "wn"], 4, "has a guest 'wn' already"),
        (&["clone", "ui", "x", "--set", "memroy=1G"], 2, "did you mean 'memory'?"),
        (&["clone", "ui", "x", "--set", "address=10.77.0.10"], 2, "the site would not be good any more"),
        (&["clone", "ui", "x", "--set", "network=dmz"], 2, "guests/x.toml:"),
        (
            &["clone", "ui", "x", "--dry-run"],
            0,
            "would write 'guests/x.toml'\nwould add the guest to 'site.toml'",
        ),
    ] {
        let ran = site.run(words);
        assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(why), "{words:?}: {}", ran.err);
        assert_eq!(site.files(), before, "{words:?}");
    }
}

#[test]
fn a_guests_disk_goes_with_it_unless_a_new_one_is_wanted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: disks are root's");
        return;
    }
    let site = Site::new("toml");
    let disk = |guest: &str| site.0.path().join("state/guests").join(guest).join("disk");
    fs::create_dir_all(disk("ui").parent().unwrap()).unwrap();
    fs::write(disk("ui"), "all that is on it").unwrap();
    assert_eq!(site.run(&["clone", "ui", "fresh", "--new-disk"]).code, Some(0));
    assert!(!disk("fresh").exists());
    let ran = site.run(&["clone", "ui", "same"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("same: has a copy of the disk of ui\n"), "{}", ran.err);
    assert_eq!(fs::read_to_string(disk("same")).unwrap(), "all that is on it");
    // A file that cannot be written takes the disk back.
    fs::remove_file(site.dir().join("guests/same.toml")).unwrap();
    fs::write(site.dir().join("site.toml"), site.read("site.toml").replace("\"same\", ", "")).unwrap();
    let ran = site.run(&["clone", "ui", "same"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.err.contains("an earlier guest 'same' has left something"), "{}", ran.err);
}

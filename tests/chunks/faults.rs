//! Disks that are full at every stage, and a push that is killed at each of its steps.

use std::fs;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use gridgate::chunks::place::{Dir, Place, Shelf, Sink};
use gridgate::chunks::{keep, push};
use gridgate::host::Live;
use gridgate::progress::Progress;

use crate::crashes::NOTHING;
use crate::lab::{BLOCK, Lab, disk, image, list, noise};

/// A filesystem of that size on a directory, as long as this lives; `None`, said loudly, where nobody may mount one.
struct Small(PathBuf);

impl Small {
    fn on(dir: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(dir);
        if !nix::unistd::geteuid().is_root() || !mount.status().unwrap().success() {
            eprintln!("skipped: a small filesystem takes root");
            return None;
        }
        Some(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// All files below, with their lengths.
fn files(dir: &Path) -> Vec<String> {
    let found = walkdir::WalkDir::new(dir).into_iter().flatten();
    found
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().display().to_string())
        .collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

#[test]
fn a_store_that_fills_up_at_any_stage_keeps_its_old_version_and_nothing_half() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let (first, whole) = (lab.path("first"), lab.store());
    fs::rename(&whole, &first).unwrap();
    let room: u64 =
        files(&first).iter().map(|file| fs::metadata(file).unwrap().len().next_multiple_of(4096)).sum();
    let mut newer = disk();
    newer[..2 << 20].copy_from_slice(&noise(30, 2 << 20));
    lab.image("a", "x", &newer, 2);
    let mut failures = 0;
    // First in large steps; then in small ones up to what is enough, since what comes last is small.
    let (mut step, mut more) = (180_000, 8192);
    loop {
        let Some(small) = Small::on(&whole, room + 65_536 + more) else { return };
        copy(&first, &whole);
        let pushed = lab.try_push("a");
        let left: Vec<String> = files(&whole)
            .into_iter()
            .filter(|file| !file.ends_with(".lock") && file.contains(".partial"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{more}");
        assert_eq!(keep::verify(&whole, &Progress::silent()).unwrap(), [""; 0], "{more}");
        lab.pull_from_store("b");
        let done = match pushed {
            Ok(_) => {
                lab.has("b", &newer);
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.contains("No space left on device"), "{more}: {error}");
                lab.has("b", &disk());
                failures += 1;
                false
            }
        };
        assert_eq!(list(&lab.host("a").images()).iter().filter(|name| name.contains(".push")).count(), 0);
        drop(small);
        match (done, step) {
            (true, 180_000) => (more, step) = (more - step, 8192),
            (true, _) => break,
            _ => more += step,
        }
        // The next round pulls it again.
        fs::remove_dir_all(lab.host("b").images()).unwrap();
    }
    assert!(failures > 10, "{failures}");
}

#[test]
fn a_host_that_fills_up_while_it_packs_says_so_and_keeps_nothing() {
    let lab = Lab::new();
    for bytes in [64 << 10, 1 << 20, 2 << 20] {
        let state = lab.path("small");
        let Some(small) = Small::on(&state, (7 << 20) + bytes) else { return };
        lab.image("small", "x", &disk(), 1);
        let error = format!("{:#}", lab.try_push("small").unwrap_err());
        assert!(error.contains("No space left on device"), "{bytes}: {error}");
        assert_eq!(list(&lab.host("small").images()), ["x"], "{bytes}");
        drop(small);
    }
    assert!(list(&lab.path("store")).iter().all(|name| name == ".lock"));
}

#[test]
fn a_host_that_fills_up_while_it_pulls_keeps_the_image_that_it_has() {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    let mut newer = noise(31, 5 << 20);
    newer.truncate((5 << 20) - 77);
    let old = lab.path("old");
    copy_store(&lab, &old);
    lab.image("a", "x", &newer, 2);
    lab.push("a");
    let (store, old) = (lab.store().display().to_string(), old.display().to_string());
    let mut failures = 0;
    for more in (0..).map(|n| 16_384 + n * 700_000) {
        let Some(small) = Small::on(&lab.path("small"), (7 << 20) + more) else { return };
        lab.pull("small", &[&old]);
        let pulled = lab.try_pull("small", &[&store]);
        let there = fs::read(lab.host("small").image(&image("x")).join("disk.ext4")).unwrap();
        let done = match pulled {
            Ok(_) => there == newer,
            Err(error) => {
                let error = format!("{error:#}");
                let says = ["No space left on device", "not enough space in"];
                assert!(says.iter().any(|text| error.contains(text)), "{more}: {error}");
                assert!(there == disk(), "{more}");
                failures += 1;
                false
            }
        };
        drop(small);
        if done {
            break;
        }
        assert!(more < 20 << 20, "it never came to an end");
    }
    assert!(failures > 3, "{failures}");
}

fn copy_store(lab: &Lab, to: &Path) {
    fs::create_dir(to).unwrap();
    copy(&lab.store(), to);
}

/// A store that ends this process as kill -9 would, at a step of its name.
#[derive(Debug)]
struct Deadly {
    dir: Dir,
    path: PathBuf,
    step: String,
}

impl Deadly {
    fn at(&self, step: &str) {
        if self.step == step {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

impl Place for Deadly {
    fn shown(&self) -> String {
        self.dir.shown()
    }

    fn get(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        self.dir.get(name, limit)
    }

    fn ranges(&self, name: &str, wanted: &[Range<u64>], sink: &mut Sink<'_>) -> Result<()> {
        self.dir.ranges(name, wanted, sink)
    }

    fn names(&self, dir: &str) -> Result<Vec<String>> {
        self.dir.names(dir)
    }
}

impl Shelf for Deadly {
    fn make_private(&self) -> Result<bool> {
        self.dir.make_private()
    }

    fn lock(&self) -> Result<Box<dyn std::any::Any>> {
        let lock = self.dir.lock()?;
        self.at("locked");
        Ok(lock)
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        self.dir.length(name)
    }

    fn put(&self, from: &Path, name: &str, tick: &mut dyn FnMut(u64)) -> Result<()> {
        let kind = name.rsplit(['.', '/']).next().unwrap_or_default();
        self.at(&format!("before {kind}"));
        // Half of it, as `Dir` writes it.
        if self.step == format!("in {kind}") {
            let bytes = fs::read(from)?;
            let to = self.path.join(format!("{name}.partial"));
            fs::create_dir_all(to.parent().unwrap())?;
            fs::write(to, &bytes[..bytes.len() / 2])?;
        }
        self.at(&format!("in {kind}"));
        self.dir.put(from, name, tick)?;
        self.at(&format!("after {kind}"));
        Ok(())
    }
}

/// Not a test of its own: what the next one kills.
#[test]
fn a_push_that_kills_itself_where_it_was_told() {
    let (Ok(store), Ok(state), Ok(step)) = (
        std::env::var("GRIDGATE_TEST_STORE"),
        std::env::var("GRIDGATE_TEST_STATE"),
        std::env::var("GRIDGATE_TEST_STEP"),
    ) else {
        return;
    };
    let shelf = Deadly { dir: Dir::new(Path::new(&store)), path: store.into(), step };
    let paths = gridgate::paths::Paths::new(Path::new(&state), Path::new(&state));
    push::push(&Live, &paths, &image("x"), &shelf, None, &Progress::silent()).unwrap();
}

#[test]
fn a_push_that_is_killed_at_any_step_leaves_the_old_version_until_the_last_one() {
    let steps: Vec<String> = ["pack", "hashes", "index", "head", "latest"]
        .iter()
        .flat_map(|kind| ["before", "in", "after"].map(|when| format!("{when} {kind}")))
        .chain(["locked".to_owned()])
        .collect();
    let lab = Lab::new();
    let mut now = disk();
    lab.image("a", "x", &now, 1);
    lab.push("a");
    for (n, step) in steps.iter().enumerate() {
        let before = now.clone();
        now[BLOCK * 10..BLOCK * 100].copy_from_slice(&noise(200 + n as u64, 90 * BLOCK));
        lab.image("a", "x", &now, 2 + n as u64);
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "faults::a_push_that_kills_itself_where_it_was_told", "--nocapture"]);
        victim.env("GRIDGATE_TEST_STORE", lab.store()).env("GRIDGATE_TEST_STATE", &lab.host("a").state);
        let ran = victim.env("GRIDGATE_TEST_STEP", step).output().unwrap();
        assert_eq!(ran.status.signal(), Some(9), "{step}: {}", String::from_utf8_lossy(&ran.stdout));
        assert_eq!(keep::verify(&lab.store(), &Progress::silent()).unwrap(), [""; 0], "{step}");
        lab.pull_from_store("b");
        lab.has("b", if step == "after latest" { &now } else { &before });
        // The next one is not in the way of what was left, and takes the host's part of it away.
        lab.push("a");
        lab.pull_from_store("b");
        lab.has("b", &now);
        assert_eq!(list(&lab.host("a").images()), ["x"], "{step}");
    }
    keep::collect(&lab.store(), NOTHING, false).unwrap();
    let left = files(&lab.store()).into_iter().filter(|file| file.contains(".partial")).count();
    assert_eq!(left, 0);
    lab.pull_from_store("c");
    lab.has("c", &now);
}

//! Machines with guests that are made up and do not run.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub const BLOCK: usize = 4096;
/// Length of a disk: noise, and a hole behind it.
const DISK: u64 = 8 << 20;

/// Machines, and a store between them.
pub struct Machines {
    dir: tempfile::TempDir,
}

/// Bytes that do not compress, always the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("test").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `None`, said loudly, where this is not root.
pub fn machines() -> Option<Machines> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: backups need root");
        return None;
    }
    Some(Machines { dir: tempfile::tempdir().unwrap() })
}

impl Machines {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> String {
        self.path("store").display().to_string()
    }

    pub fn state(&self, machine: &str) -> PathBuf {
        self.path(machine).join("state")
    }

    pub fn disk(&self, machine: &str, guest: &str) -> PathBuf {
        self.state(machine).join("guests").join(guest).join("disk")
    }

    /// A machine with the guests `ce` and `se`, which have disks and keys.
    pub fn make(&self, machine: &str) {
        let (site, state) = (self.path(machine).join("site"), self.state(machine));
        fs::create_dir_all(site.join("guests")).unwrap();
        let text = "name = \"dcu\"\n[networks.lan]\nmode = \"isolated\"\nsubnet = \"10.77.0.0/24\"\n";
        fs::write(site.join("site.toml"), text).unwrap();
        for (number, guest) in ["ce", "se"].into_iter().enumerate() {
            fs::write(
                site.join(format!("guests/{guest}.toml")),
                format!("address = \"10.77.0.{}\"\n", 10 + number),
            )
            .unwrap();
            let dir = state.join("guests").join(guest);
            fs::create_dir_all(&dir).unwrap();
            fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
            let disk = fs::File::create(dir.join("disk")).unwrap();
            disk.set_len(DISK).unwrap();
            disk.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
            disk.write_all_at(&noise(number as u64, 3 << 20), 0).unwrap();
            secret(&dir.join("identity.json"), &format!("the identity of {guest}"));
            fs::write(dir.join("desired"), "running\n").unwrap();
        }
        fs::create_dir_all(state.join("keys")).unwrap();
        secret(&state.join("keys/site_ed25519"), "a private key");
        fs::write(state.join("host.json"), "{\"of\":\"this machine\"}").unwrap();
    }

    pub fn command(&self, machine: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        let (site, state) = (self.path(machine).join("site"), self.state(machine));
        fs::create_dir_all(&state).unwrap();
        command.arg("--site").arg(site).arg("--state").arg(state).args(words).stdin(Stdio::null());
        command
    }

    pub fn run(&self, machine: &str, words: &[&str]) -> Ran {
        Ran(self.command(machine, words).output().unwrap())
    }

    /// Puts the machine into the store; what is printed.
    pub fn back_up(&self, machine: &str) -> Value {
        self.run(machine, &["--json", "site", "backup", "--to", &self.store()]).exits(0).json()
    }

    pub fn restore(&self, machine: &str, more: &[&str]) -> Ran {
        let store = self.store();
        let words = ["--json", "site", "restore", &store, "--insecure-unsigned"];
        self.run(machine, &[&words[..], more].concat())
    }

    /// Everything that one machine is and the other should be: paths of site and state with mode and digest.
    pub fn is_like(&self, one: &str, other: &str) {
        assert_eq!(self.what_is(one), self.what_is(other));
        assert_eq!(allocated(&self.disk(one, "ce")), allocated(&self.disk(other, "ce")), "holes are holes");
    }

    pub fn what_is(&self, machine: &str) -> Vec<(PathBuf, u32, String)> {
        let mut found = Vec::new();
        for tree in ["site", "state/guests", "state/keys"] {
            for entry in walkdir::WalkDir::new(self.path(machine).join(tree)).sort_by_file_name() {
                let entry = entry.unwrap();
                let content = fs::read(entry.path()).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
                let path = entry.path().strip_prefix(self.path(machine)).unwrap().to_owned();
                let mode = entry.metadata().unwrap().mode();
                found.push((path, mode, content.unwrap_or_default()));
            }
        }
        found
    }

    /// Nothing of what was going on is left in the machine's state.
    pub fn is_tidy(&self, machine: &str) {
        let names = fs::read_dir(self.state(machine)).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with('.')).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

pub fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[derive(Debug)]
pub struct Ran(pub Output);

impl Ran {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.err());
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err().contains(text), "it does not say '{text}': {}", self.err());
        self
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).unwrap()
    }
}

/// The clock shows another second.
pub fn next_second() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let then = now();
    while now() == then {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_machine_is_restored_as_it_was_and_a_second_backup_sends_what_is_new() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let first = machines.back_up("a");
    assert_eq!(
        first["new_bytes"].as_u64().unwrap() / BLOCK as u64,
        2 * 768 + 2,
        "two disks and two small files"
    );
    let disk = fs::OpenOptions::new().write(true).open(machines.disk("a", "se")).unwrap();
    disk.write_all_at(&noise(9, 10 * BLOCK), (1 << 20) + 5).unwrap();
    let second = machines.back_up("a");
    assert!(second["sent_bytes"].as_u64().unwrap() < 100_000, "{second}");
    machines.is_tidy("a");

    let restored = machines.restore("b", &[]).exits(0).json();
    assert_eq!(restored["store_version"], second["store_version"]);
    assert_eq!(restored["guests"], serde_json::json!(["ce", "se"]));
    machines.is_like("a", "b");
    machines.is_tidy("b");
    // What tells of the machine stays with it.
    assert!(!machines.state("b").join("host.json").exists());
}

#[test]
fn an_older_backup_is_found_by_its_time_and_collected_when_there_are_enough() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let first = machines.back_up("a");
    next_second();
    fs::write(machines.state("a").join("guests/ce/identity.json"), "another").unwrap();
    let second = machines.back_up("a");
    let store = machines.store();
    let list = |words: &[&str]| {
        machines.run("a", &[&["--json", "site", "backup", "--list", "--to"], words].concat())
    };
    let listed = list(&[&store]).exits(0).json();
    let versions: Vec<&Value> =
        listed["backups"].as_array().unwrap().iter().map(|backup| &backup["store_version"]).collect();
    assert_eq!(versions, [&second["store_version"], &first["store_version"]]);

    let at = first["taken_at_epoch_seconds"].as_u64().unwrap();
    let at = gridgate::console::when::local(at * 1000);
    machines.restore("b", &["--at", &at]).exits(0);
    assert_eq!(fs::read(machines.state("b").join("guests/ce/identity.json")).unwrap(), b"the identity of ce");
    machines.restore("c", &["--at", "2001-01-01"]).exits(1).says("that was taken by then");

    let gc = |more: &[&str]| {
        let words = ["image", "store", "gc", &store, "--grace", "0s"];
        machines.run("a", &[&words[..], more].concat()).exits(0)
    };
    gc(&[]);
    assert_eq!(list(&[&store]).exits(0).json()["backups"].as_array().unwrap().len(), 2, "backups are kept");
    gc(&["--keep-backups", "1"]);
    assert_eq!(list(&[&store]).exits(0).json()["backups"].as_array().unwrap().len(), 1);
    machines.restore("c", &[]).exits(0);
    machines.is_like("a", "c");
}

#[test]
fn a_machine_that_is_one_already_is_refused_unless_it_is_to_be_replaced() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    machines.make("b");
    fs::write(machines.disk("b", "ce"), noise(7, 1 << 20)).unwrap();
    fs::write(machines.path("b").join("site/allowed_signers"), "somebody").unwrap();
    let before = machines.what_is("b");
    machines.restore("b", &[]).exits(4).says("there is a guest 'ce' here");
    assert_eq!(machines.what_is("b"), before);
    machines.restore("b", &["--replace"]).exits(0);
    let signers = machines.path("b").join("site/allowed_signers");
    assert_eq!(fs::read(&signers).unwrap(), b"somebody", "who may sign is kept");
    fs::remove_file(signers).unwrap();
    machines.is_like("a", "b");
    fs::remove_dir_all(machines.state("b").join("guests")).unwrap();
    machines.restore("b", &[]).exits(4).says("there is a site here");
}

#[test]
fn a_standby_follows_with_its_guests_stopped_until_it_has_taken_over() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    machines.restore("b", &["--standby"]).exits(0);
    let desired = machines.state("b").join("guests/ce/desired");
    assert_eq!(fs::read(&desired).unwrap(), b"stopped\n");
    // Something is new, something is nothing any more, and a guest is gone.
    let disk = fs::OpenOptions::new().write(true).open(machines.disk("a", "ce")).unwrap();
    disk.write_all_at(&noise(8, 3 * BLOCK), 100).unwrap();
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&disk, hole, 1 << 20, 1 << 20).unwrap();
    fs::remove_dir_all(machines.state("a").join("guests/se")).unwrap();
    fs::remove_file(machines.path("a").join("site/guests/se.toml")).unwrap();
    machines.back_up("a");
    machines.restore("b", &["--standby"]).exits(0);
    assert!(!machines.state("b").join("guests/se").exists());
    fs::write(machines.state("a").join("guests/ce/desired"), "stopped\n").unwrap();
    machines.is_like("a", "b");

    fs::write(&desired, "running\n").unwrap();
    let before = machines.what_is("b");
    machines.restore("b", &["--standby"]).exits(4).says("this machine has taken over: guest 'ce'");
    assert_eq!(machines.what_is("b"), before);
}

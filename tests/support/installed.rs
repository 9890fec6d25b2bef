//! A machine on which gridgate is installed, whatever the machine is made of: how it is installed, told and asked.
#![allow(dead_code, reason = "each kind of machine uses the part that it needs")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::host::Live;
use gridgate::host::disks::Disks;
use gridgate::progress::{Progress, Talk};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// What every command in a machine is run with.
pub(crate) const ENVIRONMENT: [&str; 2] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"];

/// What a command in the machine came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What is asked of a machine that is up.
pub(crate) trait Installed {
    /// Longer than anything takes there on a busy host.
    const LIMIT: Duration;

    /// Runs a command in the machine, as a login of root would.
    fn run(&self, command: &str) -> Ran;

    /// What tells why something went wrong.
    fn evidence(&self) -> String {
        self.run("journalctl --no-pager --boot --lines=60 --unit='gridgate*'").stdout
    }

    /// The output of a command that must succeed.
    fn tell(&self, command: &str) -> String {
        let ran = self.run(command);
        assert_eq!(ran.status, 0, "'{command}' said: {}\n{}\n{}", ran.stdout, ran.stderr, self.evidence());
        ran.stdout
    }

    /// Calls until it gives something; the events that are waited for here have no descriptor.
    fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Self::LIMIT;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "never happened: {what}\n{}", self.evidence());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One property of a unit.
    fn show(&self, unit: &str, property: &str) -> String {
        self.tell(&format!("systemctl show --property={property} --value {unit}"))
    }

    /// What a unit did when, in microseconds of the machine's clock.
    fn moment(&self, unit: &str, property: &str) -> u64 {
        self.show(unit, property).parse().unwrap()
    }

    /// Units of gridgate's that are not at rest, in order of name.
    fn active_units(&self) -> Vec<String> {
        let listed = "systemctl list-units --no-legend --plain --state=active,activating,deactivating,failed";
        let units = self.tell(&format!("{listed} 'gridgate*'"));
        units.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// A document that a command of gridgate's prints, whatever its exit code says.
    fn json(&self, command: &str) -> serde_json::Value {
        let ran = self.run(&format!("gridgate --json {command}"));
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|error| panic!("'{command}': {error}: {ran:#?}\n{}", self.evidence()))
    }

    /// All that `gridgate status` has of a guest.
    fn guest(&self, guest: &str) -> serde_json::Value {
        let status = self.json("status");
        let guests = status["guests"].as_array().unwrap();
        guests.iter().find(|found| found["name"] == guest).unwrap().clone()
    }

    /// A guest as `gridgate status` has it: what was asked for, what is, whether it answers.
    fn status(&self, guest: &str) -> [String; 3] {
        let found = self.guest(guest);
        ["desired", "observed", "ready"].map(|key| found[key].as_str().unwrap().to_owned())
    }
}

/// The state directory with golden image and kernel that `scripts/test-image` prepared, or why nothing can be made of it.
pub(crate) fn prepared(programs: &[&str]) -> Result<PathBuf, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    for program in programs {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        found.map_err(|_| format!("needs the program '{program}'"))?;
    }
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("build/test/state");
    let state = std::env::var_os("GRIDGATE_TEST_STATE").map_or_else(usual, PathBuf::from);
    for needed in ["images/debian-12/manifest.json", "kernels/uml/linux"] {
        if !state.join(needed).exists() {
            return Err(format!("needs '{}' (made by: scripts/test-image)", state.join(needed).display()));
        }
    }
    Ok(state)
}

/// Acts in a mount namespace of its own, so that nothing can stay mounted after it.
pub(crate) fn with_own_mounts<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
            act()
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A disk of its own, made from an image and grown to `bytes`.
pub(crate) fn clone_disk(image: &Path, disk: &Path, bytes: u64) {
    Live.clone_file(image, disk, bytes, &Progress::new(Talk::Quiet)).unwrap();
    succeeds(Command::new("resize2fs").arg("-f").arg(disk));
}

/// Installs the program under test into a machine's filesystem, as `make install` does.
pub(crate) fn install(tree: &Path) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--silent");
    make.args(["install", "PREFIX=/usr/local", "CARGO=false"]);
    make.arg(format!("GRIDGATE={}", env!("CARGO_BIN_EXE_gridgate")));
    succeeds(make.arg(format!("DESTDIR={}", tree.display())));
}

/// Runs a program of the host that must succeed.
pub(crate) fn succeeds(command: &mut Command) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?} said: {said}");
}

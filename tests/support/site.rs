//! A site of the test's own with real guests: its own site and state directories, run by the real program, rehearsed in
//! a network namespace. The golden image and the kernels are shared by links with those that `scripts/test-image`
//! prepared. When it goes, everything of it must be gone, and that is checked.

#[path = "take_over.rs"]
pub mod take_over;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gridgate::console::record::RunRecord;
use gridgate::names::GuestName;
use gridgate::paths::Paths;
use rustix::process::{Pid, Signal};

/// Longer than any command here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Where `scripts/test-image` prepared things; `None` (said loudly) if it did not, or this is not root.
pub fn prepared() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/test/state");
    let state = std::env::var_os("GRIDGATE_TEST_STATE").map_or(own, PathBuf::from);
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: guests need root");
        return None;
    }
    if !state.join("images/debian-12/manifest.json").exists() || !state.join("host.json").exists() {
        eprintln!("skipped: nothing is prepared in '{}'; scripts/test-image does it", state.display());
        return None;
    }
    Some(state)
}

/// How much of the machine a test takes: booting guests at the same time makes all of them late.
struct Load {
    taken: Mutex<u32>,
    freed: Condvar,
}

static LOAD: Load = Load { taken: Mutex::new(0), freed: Condvar::new() };
const CAPACITY: u32 = 2;

struct Turn(u32);

impl Turn {
    fn take(weight: u32) -> Self {
        let mut taken = LOAD.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken + weight > CAPACITY {
            taken = LOAD.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += weight;
        Self(weight)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *LOAD.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        LOAD.freed.notify_all();
    }
}

pub struct TestSite {
    pub paths: Paths,
    dir: tempfile::TempDir,
    _turn: Turn,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Checks the exit code; shows everything if it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// Checks that it said this on stderr.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "it does not say '{text}': {self:#?}");
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// Writes a line to its standard input, which was a pipe; it stays open.
    pub fn types(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Whether its first thread waits for something.
    pub fn sleeps(&self) -> bool {
        self.is('S')
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        self.is('Z')
    }

    /// Whether this is its state in `/proc/PID/stat` (proc_pid_stat(5)), which a child that was not waited for still has.
    pub fn is(&self, state: char) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
    }

    /// Whether it has printed this so far.
    pub fn said(&self, text: &str) -> bool {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).contains(text)
    }

    /// Its end, within the limit.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > LIMIT {
                let _ = self.child.kill();
                panic!("came to no end: {}", fs::read_to_string(&self.err).unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Ran { status, out: read(&self.out), err: read(&self.err) }
    }
}

/// A guest that counts as ready when its kernel says its first line, so that a test of faults takes a second.
const QUICK: &str = r#"
name = "quick"
[defaults]
image = "debian-12"
backend = "uml"
memory = "192M"
disk = "1G"
ready = ["console:Linux version"]
stop_timeout = "1s"
restart = "never"
[networks.lan]
mode = "rehearsal"
subnet = "10.77.0.0/24"
gateway = "10.77.0.1"
"#;

impl TestSite {
    /// Empty directories, and what was prepared; takes that much of the machine.
    pub fn bare(weight: u32) -> Option<Self> {
        let prepared = prepared()?;
        // On a real disk, where the images are, and under a name without anything special.
        Self::bare_in(weight, prepared.parent().unwrap())
    }

    /// As [`TestSite::bare`], in a directory of the test's.
    pub fn bare_in(weight: u32, beside: &Path) -> Option<Self> {
        let prepared = prepared()?;
        let turn = Turn::take(weight);
        let dir = tempfile::Builder::new().prefix("site-").tempdir_in(beside).unwrap();
        let (site, state) = (dir.path().join("site"), dir.path().join("state"));
        fs::create_dir_all(&state).unwrap();
        for shared in ["images", "kernels"] {
            std::os::unix::fs::symlink(prepared.join(shared), state.join(shared)).unwrap();
        }
        fs::copy(prepared.join("host.json"), state.join("host.json")).unwrap();
        Some(Self { paths: Paths::new(&site, &state), dir, _turn: turn })
    }

    /// The site that `gridgate init` writes: four guests, user-mode Linux.
    pub fn example() -> Option<Self> {
        let site = Self::bare(CAPACITY)?;
        site.run(&["init", site.paths.site.to_str().unwrap()]).exits(0);
        let path = site.paths.site.join("site.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("backend = \"auto\"", "backend = \"uml\"")).unwrap();
        Some(site)
    }

    /// Guests that are ready at their kernel's first line; `extra` lines go into each one's file.
    pub fn quick(guests: &[&str], extra: &str) -> Option<Self> {
        let site = Self::bare(1)?;
        site.write("site.toml", QUICK);
        for (number, guest) in guests.iter().enumerate() {
            let text = format!("address = \"10.77.0.{}\"\n{extra}\n", 10 + number);
            site.write(&format!("guests/{guest}.toml"), &text);
        }
        Some(site)
    }

    /// One guest that boots to its login prompt.
    pub fn one(guest: &str, extra: &str) -> Option<Self> {
        Self::quick(&[guest], &format!("ready = [\"login\", \"tcp:22\"]\nstop_timeout = \"240s\"\n{extra}"))
    }

    /// A file of the site.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.paths.site.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.paths.site.join(path)).unwrap();
        assert!(text.contains(from), "'{from}' in {text}");
        self.write(path, &text.replace(from, to));
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command
            .arg("--site")
            .arg(&self.paths.site)
            .arg("--state")
            .arg(&self.paths.state)
            .args(words)
            .stdin(Stdio::null());
        command
    }

    pub fn spawn(&self, mut command: Command) -> Running {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Files, since a pipe that a guest inherited by mistake would be waited for.
        let out = self.dir.path().join(format!("{number}.out"));
        let err = self.dir.path().join(format!("{number}.err"));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err }
    }

    pub fn start(&self, words: &[&str]) -> Running {
        self.spawn(self.command(words))
    }

    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ran {
        self.start(words).end()
    }

    /// One guest's part of `status --json`, whatever its exit.
    pub fn status(&self, guest: &str) -> serde_json::Value {
        let document = self.run(&["status", "--json"]).json();
        let all = document["guests"].as_array().unwrap().clone();
        all.into_iter().find(|g| g["name"] == guest).unwrap_or_else(|| panic!("no '{guest}' in {document}"))
    }

    pub fn pid(&self, guest: &str) -> i32 {
        i32::try_from(self.status(guest)["pid"].as_i64().unwrap()).unwrap()
    }

    pub fn record(&self, guest: &str) -> Option<RunRecord> {
        RunRecord::read(&self.paths, &name(guest)).unwrap()
    }

    /// The newest boot's console.
    pub fn console(&self, guest: &str) -> String {
        self.run(&["console", guest, "--log"]).exits(0).out
    }

    /// The process that holds the consoles: the one of this site whose first word after the options is `hold`.
    pub fn holder(&self) -> Option<i32> {
        let processes = self.processes();
        processes.into_iter().find(|(_, line)| line.ends_with(" hold")).map(|(pid, _)| pid)
    }

    /// Processes whose command line names this site's state directory: no other's can.
    fn processes(&self) -> Vec<(i32, String)> {
        let state = self.paths.state.to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
            if line.contains(state) {
                found.push((pid, line));
            }
        }
        found
    }

    /// As [`TestSite::traces`], of what stays: helpers of a hypervisor that was killed, and loop devices, go in their own time.
    pub fn left(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let found = self.traces();
            if found.is_empty() || began.elapsed() > Duration::from_secs(60) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything of this site that the machine has: processes, mounts, loop devices, links, half-made files.
    pub fn traces(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.processes().into_iter().map(|(pid, line)| format!("process {pid}: {line}")).collect();
        let (state, run) = (self.paths.state.to_str().unwrap(), self.paths.run.to_str().unwrap());
        let ours = |line: &&str| line.contains(state) || line.contains(run);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if file.contains(state) {
                found.push(format!("loop device {}: {file}", device.file_name().display()));
            }
        }
        for link in fs::read_dir("/sys/class/net").unwrap().flatten() {
            let alias = fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
            if alias.contains(&self.paths.id()) {
                found.push(format!("link {}: {alias}", link.file_name().display()));
            }
        }
        if self.paths.run.exists() {
            found.push(format!("directory {run}"));
        }
        half_made(&self.paths.state, &mut found);
        found
    }
}

fn half_made(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(".making-") {
            found.push(format!("half made: {}", entry.path().display()));
        }
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            half_made(&entry.path(), found);
        }
    }
}

impl Drop for TestSite {
    fn drop(&mut self) {
        let down = self.command(&["down", "--purge"]);
        let down = self.spawn(down).end();
        let traces = self.left();
        // Whatever a failed test left must not meet the next one. Only what names this site's state directory is ended.
        for (pid, _) in self.processes() {
            let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        let _ = rustix::mount::unmount(self.paths.netns(), rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir_all(&self.paths.run);
        if !std::thread::panicking() {
            assert_eq!(traces, [""; 0], "left after {down:#?}");
        }
    }
}

pub fn name(guest: &str) -> GuestName {
    guest.parse().unwrap()
}

/// Calls until it gives something; for events that have no descriptor.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn kill(pid: i32, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal);
}

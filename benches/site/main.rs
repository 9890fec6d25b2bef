//! Four guests by gridgate against the same four kernels by a shell script on the same disks; what looking at them costs;
//! what gridgate itself takes up while they run; the same under systemd, and what that is told at boot. Needs root, a golden image and user-mode Linux.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod bare;
#[path = "../../tests/support/installed.rs"]
mod installed;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/systemd/machine.rs"]
mod machine;
mod running;
#[path = "../table/mod.rs"]
mod table;
mod units;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::backend::mconsole;
use gridgate::backend::spec::Spec;
use gridgate::host::Live;
use gridgate::names::GuestName;
use gridgate::paths::Paths;
use table::{Target, median, row};

const GUESTS: [&str; 4] = ["ce", "se", "ui", "wn"];
const ROUNDS: usize = 5;
const LOOKS: usize = 31;
/// How long it is looked at idle guests, and after which time they are that.
const IDLE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(10);

/// Independent guests, each ready with its login prompt, which is what the script can see too.
const SITE: &str = r#"
name = "bench"
[defaults]
backend = "uml"
ready = ["login"]
[networks.lan]
mode = "rehearsal"
subnet = "10.78.0.0/24"
"#;

struct Bench {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Bench {
    fn new(prepared: &Path) -> Self {
        let dir = table::scratch();
        let (site, state) = (dir.path().join("site"), dir.path().join("state"));
        std::fs::create_dir_all(site.join("guests")).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(site.join("site.toml"), SITE).unwrap();
        for guest in GUESTS {
            std::fs::write(site.join(format!("guests/{guest}.toml")), "after = []\n").unwrap();
        }
        for part in ["images", "kernels"] {
            if prepared.join(part).exists() {
                symlink(prepared.join(part), state.join(part)).unwrap();
            }
        }
        Self { paths: Paths::new(&site, &state), dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--site").arg(&self.paths.site).arg("--state").arg(&self.paths.state).args(args);
        command
    }

    fn gridgate(&self, args: &[&str]) -> std::process::Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn must(&self, args: &[&str]) {
        let ran = self.gridgate(args);
        assert!(ran.status.success(), "gridgate {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn spec(&self, guest: &str) -> Spec {
        Spec::read(&Live, &self.paths, &guest.parse::<GuestName>().unwrap()).unwrap().unwrap()
    }

    /// Milliseconds until four hypervisors run that `starter` starts, and until that has seen four prompts.
    fn timed(&self, starter: &mut Command) -> (f64, f64) {
        let kernel = bare::kernel(&self.spec(GUESTS[0])).to_owned();
        let began = Instant::now();
        let mut starter = starter.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let running = running::until(GUESTS.len(), &kernel, began);
        assert!(starter.wait().unwrap().success());
        (running, table::millis(began.elapsed()))
    }

    fn up(&self) -> (f64, f64) {
        self.timed(&mut self.command(&["--quiet", "up"]))
    }

    /// The same by the bare commands; then the guests shut themselves down.
    fn script(&self) -> (f64, f64) {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let lines: Vec<String> = GUESTS.iter().map(|guest| bare::line(&self.spec(guest))).collect();
        std::fs::write(dir.path().join("guests"), lines.concat()).unwrap();
        let script = [bare::START, bare::PROMPTS].concat();
        let mut command = Command::new("unshare");
        let took = self.timed(command.args(["--net", "--", "sh", "-c", &script, "script"]).arg(dir.path()));
        for guest in GUESTS {
            end(dir.path(), guest);
        }
        took
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.gridgate(&["down", "--purge"]);
    }
}

/// Lets a guest of the script shut itself down; after a minute it is killed.
fn end(dir: &Path, guest: &str) {
    let Ok(pid) = std::fs::read_to_string(dir.join(format!("{guest}.pid"))) else { return };
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    let limit = Instant::now() + Duration::from_secs(60);
    let mut asked = false;
    while process.exists() && Instant::now() < limit {
        // An answer may be lost at the guest's end; then the guest is gone at the next look.
        asked |= mconsole::call(&dir.join(format!("uml-{guest}/{guest}/mconsole")), "cad").is_ok();
        while asked && process.exists() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if process.exists() {
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

/// All processes that run this program, as directories.
fn own() -> Vec<PathBuf> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_gridgate")).canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|dir| std::fs::read_link(dir.join("exe")).is_ok_and(|exe| exe == program)).collect()
}

/// kB of them, each shared page counted in parts.
fn own_pss() -> f64 {
    let pss = |dir: PathBuf| {
        let rollup = std::fs::read_to_string(dir.join("smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
    };
    own().into_iter().map(pss).sum()
}

/// How often a second one of them is given a processor.
fn own_wakeups() -> f64 {
    let switches = || -> f64 {
        let own = own().into_iter().map(|dir| std::fs::read_to_string(dir.join("status")).unwrap());
        let lines = own.flat_map(|status| status.lines().map(str::to_owned).collect::<Vec<_>>());
        let lines = lines.filter(|line| line.contains("ctxt_switches"));
        lines.map(|line| line.split_whitespace().last().unwrap().parse::<f64>().unwrap()).sum()
    };
    let (before, began) = (switches(), Instant::now());
    std::thread::sleep(IDLE);
    (switches() - before) / began.elapsed().as_secs_f64()
}

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: guests need root");
    }
    let Some(prepared) = table::prepared() else { return };
    let bench = Bench::new(&prepared);
    // Clones, personalises, tries the backends and boots for the first time: not what is compared.
    bench.must(&["up"]);

    table::heading("a site of four guests (user-mode Linux)");
    let looks = |args: &[&str]| median((0..LOOKS).map(|_| table::time(|| bench.must(args))).collect());
    let (status, check, pss) = (looks(&["status"]), looks(&["check"]), own_pss());
    std::thread::sleep(SETTLED);
    let wakeups = own_wakeups();
    bench.must(&["down"]);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(bench.up());
        bench.must(&["down"]);
        theirs.push(bench.script());
    }
    let running = |all: &[(f64, f64)]| median(all.iter().map(|(running, _)| *running).collect());
    let prompts = |all: &[(f64, f64)]| median(all.iter().map(|(_, prompts)| prompts / 1000.0).collect());
    let what = "from disks to four login prompts / script";
    row(what, "s", prompts(&ours), Some(prompts(&theirs)), Target::Ratio(1.10));
    row("the same, to four hypervisors", "ms", running(&ours), Some(running(&theirs)), Target::Over(300.0));
    row("gridgate status, four running", "ms", status, None, Target::AtMost(15.0));
    row("gridgate check", "ms", check, None, Target::AtMost(15.0));
    row("PSS of gridgate, four running", "MiB", pss / 1024.0, None, Target::AtMost(12.0));
    row("wake-ups of gridgate each second, four idle", "", wakeups, None, Target::AtMost(1.0));
    drop(bench);
    units::start_of_the_target();
    units::generator();
}

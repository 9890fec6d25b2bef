//! Four guests by gridgate against the same four kernels by a shell script on the same disks; what looking at them costs;
//! what gridgate itself takes up while they run. Needs root, a golden image and user-mode Linux.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::backend::mconsole;
use gridgate::backend::spec::{Engine, Spec};
use gridgate::host::Live;
use gridgate::names::GuestName;
use gridgate::paths::Paths;
use table::{Target, median, row};

const GUESTS: [&str; 4] = ["ce", "se", "ui", "wn"];
const ROUNDS: usize = 5;
const LOOKS: usize = 31;

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

/// The same kernels with the same words, in a network namespace with the same cables; ends when all four have said
/// "login:". A console is a file here: nothing is cheaper, and nobody can read along or type.
const SCRIPT: &str = r#"
set -eu
cd "$1"
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
mkfifo never
exec 3<>never
while read -r name kernel memory disk mac; do
    mkdir -p "uml-$name"
    ip tuntap add "tap-$name" mode tap
    ip link set "tap-$name" master br0 up
    HOME=$PWD TMPDIR=/dev/shm "$kernel" "mem=${memory}M" "ubd0s=$disk" root=/dev/ubda rw con0=fd:0,fd:1 con=null ssl=null \
        seccomp=auto "umid=$name" "uml_dir=$PWD/uml-$name/" "vec0:transport=tap,ifname=tap-$name,mac=$mac" \
        <&3 >"$name.log" 2>&1 &
    echo $! >"$name.pid"
done <guests
for log in *.log; do
    until grep -q ' login: $' "$log"; do sleep 0.01; done
done
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

    fn gridgate(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        command.arg("--site").arg(&self.paths.site).arg("--state").arg(&self.paths.state).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn must(&self, args: &[&str]) {
        let ran = self.gridgate(args);
        assert!(ran.status.success(), "gridgate {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn spec(&self, guest: &str) -> Spec {
        Spec::read(&Live, &self.paths, &guest.parse::<GuestName>().unwrap()).unwrap().unwrap()
    }

    /// Milliseconds until the script has seen four prompts; then the guests shut themselves down.
    fn script(&self) -> f64 {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let lines: Vec<String> = GUESTS.iter().map(|guest| line(&self.spec(guest))).collect();
        std::fs::write(dir.path().join("guests"), lines.concat()).unwrap();
        let mut command = Command::new("unshare");
        let script = command.args(["--net", "--", "sh", "-c", SCRIPT, "script"]).arg(dir.path());
        let mut worked = false;
        let took = table::time(|| worked = script.status().is_ok_and(|status| status.success()));
        for guest in GUESTS {
            end(dir.path(), guest);
        }
        assert!(worked, "the script failed");
        took
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.gridgate(&["down", "--purge"]);
    }
}

fn line(spec: &Spec) -> String {
    let Engine::Uml { kernel } = &spec.engine else { panic!("{} is no user-mode Linux", spec.guest) };
    let (kernel, disk) = (kernel.display(), spec.disk.display());
    format!("{} {kernel} {} {disk} {}\n", spec.guest, spec.memory_bytes.mib(), spec.mac)
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

/// kB of all processes that run this program, each shared page counted in parts.
fn own_pss() -> f64 {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_gridgate")).canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let own = processes.filter(|dir| std::fs::read_link(dir.join("exe")).is_ok_and(|exe| exe == program));
    own.map(|dir| {
        let rollup = std::fs::read_to_string(dir.join("smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
    })
    .sum()
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
    bench.must(&["down"]);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(table::time(|| bench.must(&["up"])));
        bench.must(&["down"]);
        theirs.push(bench.script());
    }
    let (ours, theirs) = (median(ours) / 1000.0, median(theirs) / 1000.0);
    row("from disks to four login prompts / script", "s", ours, Some(theirs), Target::Ratio(1.10));
    row("gridgate status, four running", "ms", status, None, Target::AtMost(15.0));
    row("gridgate check", "ms", check, None, Target::AtMost(15.0));
    row("PSS of gridgate, four running", "MiB", pss / 1024.0, None, Target::AtMost(12.0));
}

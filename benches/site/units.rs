//! The same on a machine with systemd, booted as a container: `systemctl start gridgate.target` against the bare commands on
//! the same machine. And what the generator takes of a boot.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gridgate::backend::spec::Spec;

use crate::installed::Installed;
use crate::machine::{Machine, Release, with_machine};
use crate::running::until;
use crate::table::{self, Target, median, row};
use crate::{GUESTS, ROUNDS, SITE, bare};

const MANY: usize = 50;
const LOOKS: usize = 31;
/// Where the bare commands work; on the machine's disk, so that what is there is seen from outside too.
const BARE: &str = "/root/bare";

/// From the start of the target to the last hypervisor.
pub fn start_of_the_target() {
    with_machine(Release::Debian12, |machine| {
        let site = machine.tree().join("etc/gridgate");
        fs::remove_dir_all(&site).unwrap();
        fs::create_dir_all(site.join("guests")).unwrap();
        // What is killed here is to stay down.
        fs::write(site.join("site.toml"), SITE.replace("[defaults]", "[defaults]\nrestart = \"never\""))
            .unwrap();
        for guest in GUESTS {
            fs::write(site.join(format!("guests/{guest}.toml")), "after = []\n").unwrap();
        }
        machine.boot();
        // Clones, personalises and boots for the first time: not what is compared.
        machine.tell("gridgate up && systemctl start gridgate.target && systemctl stop gridgate.target");
        machine.eventually("all is down", || machine.active_units().is_empty().then_some(()));
        let guests: Vec<Spec> = GUESTS.map(|guest| spec(machine, guest)).into();
        let kernel = machine.tree().join(bare::kernel(&guests[0]).strip_prefix("/").unwrap());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(machine, "systemctl start gridgate.target", &kernel));
            stop_all(machine, &kernel);
            theirs.push(by_hand(machine, &guests, &kernel));
        }
        let what = "systemctl start to four hypervisors / bare";
        row(what, "ms", median(ours), Some(median(theirs)), Target::Over(300.0));
    });
}

fn spec(machine: &Machine, guest: &str) -> Spec {
    let file = machine.tell(&format!("cat /var/lib/gridgate/guests/{guest}/spec.json"));
    serde_json::from_str(&file).unwrap()
}

/// Milliseconds from giving the command to the last hypervisor.
fn timed(machine: &Machine, command: &str, kernel: &Path) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| machine.tell(command));
        until(GUESTS.len(), kernel, began)
    })
}

fn stop_all(machine: &Machine, kernel: &Path) {
    machine.run("systemctl kill --signal=KILL 'gridgate-guest@*'");
    machine.run("systemctl stop gridgate.target 'gridgate-*'; systemctl reset-failed");
    until(0, kernel, Instant::now());
    assert_eq!(machine.active_units(), Vec::<String>::new());
}

fn by_hand(machine: &Machine, guests: &[Spec], kernel: &Path) -> f64 {
    let dir = machine.tree().join(&BARE[1..]);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("guests"), guests.iter().map(bare::line).collect::<String>()).unwrap();
    fs::write(dir.join("script"), bare::START).unwrap();
    let command = format!("setsid unshare --net -- sh {BARE}/script {BARE} >{BARE}/said 2>&1 </dev/null &");
    let took = timed(machine, &command, kernel);
    machine.tell(&format!("kill $(cat {BARE}/*.pid)"));
    until(0, kernel, Instant::now());
    fs::remove_dir_all(&dir).unwrap();
    took
}

/// What systemd waits for at each boot and `daemon-reload`.
pub fn generator() {
    let dir = table::scratch();
    let (site, state) = (dir.path().join("site"), dir.path().join("state"));
    fs::create_dir_all(site.join("guests")).unwrap();
    fs::write(site.join("site.toml"), SITE).unwrap();
    for n in 0..MANY {
        let after = if n == 0 { String::new() } else { format!("\"g{}\"", n - 1) };
        fs::write(site.join(format!("guests/g{n}.toml")), format!("role = \"wn\"\nafter = [{after}]\n"))
            .unwrap();
    }
    let ran = |args: &[&str]| {
        let mut gridgate = Command::new(env!("CARGO_BIN_EXE_gridgate"));
        gridgate.arg("--site").arg(&site).arg("--state").arg(&state).args(args);
        assert!(gridgate.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    };
    // systemd has its generators write into memory, where nothing has to be waited for until it is safe.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let generated = |n: usize| {
        let to = memory.path().join(format!("units{n}"));
        table::time(|| ran(&["units", "--to", to.to_str().unwrap()]))
    };
    let ours = median((0..LOOKS).map(generated).collect());
    let nothing = median((0..LOOKS).map(|_| table::time(|| ran(&["--version"]))).collect());
    row("units of 50 guests, as at boot / its start alone", "ms", ours, Some(nothing), Target::AtMost(20.0));
}

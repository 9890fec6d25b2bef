//! gridgate on a whole machine: Debian's own kernel and systemd, emulated. It takes minutes, so that only `make test-lab`,
//! which prepares the machine's disks, runs it; elsewhere it is skipped.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod agent;
#[path = "../support/installed.rs"]
mod installed;
mod lab;
mod made;
mod measure;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use installed::Installed;
use lab::{Lab, Setup};
use made::{Firmware, Made};
use measure::Guest;

const RUNNING: [&str; 3] = ["running", "running", "ready"];
/// In the order in which they start: two containers, one of higher priority, then one under user-mode Linux.
const GUESTS: [&str; 3] = ["ce", "se", "wn"];
/// All that is active after a boot.
const UNITS: [&str; 9] = [
    "gridgate-console.service",
    "gridgate-guest@ce.service",
    "gridgate-guest@se.service",
    "gridgate-guest@wn.service",
    "gridgate-network.service",
    "gridgate-ready@ce.service",
    "gridgate-ready@se.service",
    "gridgate-ready@wn.service",
    "gridgate.target",
];

const SITE: &str = r#"
    name = "lab"
    [defaults]
    image = "debian-12"
    backend = "nspawn"
    memory = "192M"
    disk = "1G"
    ready_timeout = "20min"
    stop_timeout = "10min"
    [networks.lan]
    mode = "nat"
    subnet = "10.77.0.0/24"
    gateway = "10.77.0.1"
    bridge = "gg-lan"
"#;

fn three_guests(machine: &Setup<'_>) {
    machine.file("etc/gridgate/site.toml", SITE);
    machine.file("etc/gridgate/guests/ce.toml", "role = 'ce'\npriority = 60");
    machine.file("etc/gridgate/guests/se.toml", "role = 'se'");
    machine.file("etc/gridgate/guests/ui.toml", "role = 'ui'");
    machine.file("etc/gridgate/guests/wn.toml", "role = 'wn'\nafter = ['se']\nbackend = 'uml'");
}

#[test]
fn a_box_brings_its_guests_up_loses_power_and_shuts_down() {
    let Some(mut lab) = Lab::configure("life", three_guests) else { return };
    lab.boot();
    lab.tell("gridgate up");
    lab.tell("systemctl enable gridgate.target");
    the_guests_came_up_in_their_order(&lab);
    user_mode_linux_runs_its_guest_under_seccomp(&lab);
    for guest in GUESTS {
        lab.tell(&format!("gridgate ssh {guest} 'echo kept >/root/word && sync'"));
    }
    lab.tell("gridgate limit wn cpu=150% net_in=10M && gridgate stop ui && sync");

    lab.tell("echo lost >/root/word");
    lab.power_cut();
    lab.boot();
    for guest in GUESTS {
        lab.tell(&format!("gridgate wait {guest}"));
    }
    the_guests_came_up_in_their_order(&lab);
    assert_eq!(lab.active_units(), UNITS);
    assert_eq!(lab.run("test -s /root/word").status, 1, "the power cut took what was not on the disk");
    for guest in GUESTS {
        assert_eq!(lab.guest(guest)["last_exit"]["by"], "power-cut", "{guest}");
        lab.tell(&format!("gridgate console {guest} --log --boot -1 | grep '{guest} login:'"));
    }
    what_was_asked_for_is_so_again(&lab);
    machined_lists_the_guests(&lab);
    assert_eq!(lab.tell("gridgate gc"), "", "what was left behind");

    lab.shut_down();
    lab.look(each_guest_was_asked_and_left_in_order);
}

fn the_guests_came_up_in_their_order(lab: &Lab) {
    for guest in GUESTS {
        assert_eq!(lab.status(guest), RUNNING, "{guest}");
    }
    let [ce, se, wn] =
        GUESTS.map(|guest| lab.moment(&format!("gridgate-guest@{guest}"), "ExecMainStartTimestampMonotonic"));
    assert!(ce <= se, "ce started at {ce} us, se, of lower priority, at {se} us");
    let ready = lab.moment("gridgate-ready@se", "ActiveEnterTimestampMonotonic");
    assert!(ready <= wn, "se was ready at {ready} us, wn, after it, started at {wn} us");
}

fn machined_lists_the_guests(lab: &Lab) {
    let listed: Value = serde_json::from_str(&lab.tell("machinectl list --output=json")).unwrap();
    let machines: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|machine| {
            let [name, class, service] =
                ["machine", "class", "service"].map(|key| machine[key].as_str().unwrap());
            format!("{name}: {class} of {service}")
        })
        .collect();
    assert_eq!(machines, ["ce: container of gridgate", "se: container of gridgate", "wn: vm of gridgate"]);
}

/// systemd's generators run before the filesystem is mounted that keeps it.
fn what_was_asked_for_is_so_again(lab: &Lab) {
    assert_eq!(lab.status("ui"), ["stopped", "stopped", "no"]);
    let wn = lab.guest("wn");
    let [cpu, net] = ["cpu_percent", "net_in_bytes"].map(|limit| &wn["limits"][limit]);
    assert_eq!(json!([cpu, net, wn["limits_ignored"]]), json!([150, 10 << 20, []]));
    let group = lab.show("gridgate-guest@wn", "ControlGroup");
    assert_eq!(lab.tell(&format!("cat '/sys/fs/cgroup{group}/cpu.max'")), "150000 100000");
}

/// Its other way, which is slower, traces the processes of the guest.
fn user_mode_linux_runs_its_guest_under_seccomp(lab: &Lab) {
    let pid = lab.guest("wn")["pid"].to_string();
    let programs = format!("for pid in $(cat /proc/{pid}/task/*/children); do cat /proc/$pid/status; done");
    let said = lab.tell(&format!(
        "{programs} | sed -n '/^Name:.uml-userspace/,/^Seccomp:/ {{ /Seccomp:/p; /TracerPid:/p }}'"
    ));
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines, ["Seccomp:\t2", "TracerPid:\t0"]);
}

/// A guest's disk, without its host's help.
fn printed(disk: &Path, path: &str) -> String {
    let output = Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(disk).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn each_guest_was_asked_and_left_in_order(tree: &Path) {
    let guests = tree.join("var/lib/gridgate/guests");
    let ended = |guest: &str| -> Value {
        serde_json::from_slice(&std::fs::read(guests.join(guest).join("last-exit.json")).unwrap()).unwrap()
    };
    for guest in GUESTS {
        let ended = ended(guest);
        let how = ["by", "rung", "cause", "code"].map(|key| &ended[key]);
        assert_eq!(json!(how), json!(["host", "ask", "exit", 0]), "{guest}: {ended}");
        let disk = guests.join(guest).join("disk");
        assert_eq!(printed(&disk, "/root/word"), "kept\n", "{guest}");
        let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
        assert!(checked.status.success() && !said.contains("recovery"), "{guest}: {said}");
    }
    for pair in GUESTS.windows(2) {
        let [first, last] = [pair[0], pair[1]].map(|guest| ended(guest)["at_ms"].as_u64().unwrap());
        assert!(last <= first, "{pair:?} ended at {first} ms and {last} ms");
    }
}

/// Containers, since they take nothing for themselves.
fn two_guests(machine: &Setup<'_>) {
    machine.file("etc/gridgate/site.toml", SITE);
    machine.file("etc/gridgate/guests/ce.toml", "role = 'ce'\n[limits]\npids = 60");
    machine.file("etc/gridgate/guests/se.toml", "role = 'se'");
}

/// How often a limit is measured before it is said not to hold.
const ATTEMPTS: u32 = 5;

#[test]
fn every_limit_bites() {
    let Some(lab) = Lab::configure("limits", two_guests) else { return };
    let mut lab = lab.without_power_cuts();
    lab.boot();
    lab.tell("gridgate up");
    let [ce, se] = ["ce", "se"].map(|guest| Guest::of(&lab, guest));
    let (kib, mut wrong) = (1024.0, Vec::new());
    // A limit holds if it lets through what it says, give or take, and the guest would have taken much more. An emulated machine
    // on a busy one may be too slow to tell for a while; a limit that does not bite never does.
    let mut holds = |limit: &str, amount: f64, measure: &dyn Fn() -> f64| {
        let holds = (0..ATTEMPTS).any(|_| {
            let without = measure();
            lab.tell(&format!("gridgate limit ce {limit}"));
            let with = measure();
            lab.tell(&format!("gridgate limit ce {}=none", limit.split('=').next().unwrap()));
            eprintln!("{limit}: {with:.2} instead of {without:.2}");
            without >= 2.0 * amount && (0.3 * amount..1.3 * amount).contains(&with)
        });
        if !holds {
            wrong.push(limit.to_owned());
        }
    };
    holds("cpu=20%", 0.2, &|| ce.processors());
    holds("cpu_weight=25", 0.2, &|| ce.share_beside(&se));
    holds("disk_write=256K", 256.0 * kib, &|| ce.disk("wbytes"));
    holds("disk_read=512K", 512.0 * kib, &|| ce.disk("rbytes"));
    // Of fewer each would wait for its turn twice, at its loop device and at the disk below: a turn is a tenth of a second.
    holds("disk_write_ops=10", 10.0, &|| ce.disk("wios"));
    holds("disk_read_ops=12", 12.0, &|| ce.disk("rios"));
    holds("net_in=128K", 128.0 * kib, &|| ce.received());
    holds("net_out=128K", 128.0 * kib, &|| ce.sent("gg-lan", "10.77.0.1"));
    assert_eq!(ce.limits_of_disks(), "", "what was lifted");
    no_more_processes_than_the_site_says(&lab, &ce);
    no_more_memory_than_was_said(&lab, &ce);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for guest in ["ce", "se"] {
        assert_eq!(lab.status(guest), RUNNING, "{guest}");
    }
}

fn no_more_processes_than_the_site_says(lab: &Lab, ce: &Guest<'_>) {
    let many = "i=0; while [ $i -lt 100 ]; do sleep 300 >/dev/null 2>&1 & i=$((i + 1)); done";
    let ran = ce.run(many);
    assert!(ran.stderr.contains("Cannot fork"), "{ran:?}");
    let left = ce.counted("pids.current", "");
    assert!((50..60).contains(&left), "{left} processes");
    ce.end_all();
    lab.tell("gridgate limit ce pids=none");
    assert_eq!(ce.run(many).status, 0);
    ce.end_all();
}

fn no_more_memory_than_was_said(lab: &Lab, ce: &Guest<'_>) {
    let hold = || ce.run("head -c 200M /dev/zero | tail -c 200M | wc -c").stdout;
    assert_eq!(hold(), (200 << 20).to_string());
    lab.tell("gridgate limit ce memory=128M");
    assert_eq!(hold(), "0");
    assert_eq!(ce.counted("memory.events", "oom_kill"), 1);
    assert!(ce.counted("memory.current", "") <= 128 << 20);
}

/// `ready` is the login prompt, so that a guest that is ready may still be on its way to its network.
const MADE: &str = r#"
    name = "made"
    domain = "made.example.org"
    admin_key_file = "admins.pub"
    [host]
    hostname = "gw"
    mac = "52:54:00:12:34:58"
    address = "10.0.2.15/24"
    gateway = "10.0.2.2"
    kernel_args = "mitigations=off init_on_alloc=0 panic=-1"
    [defaults]
    image = "debian-12"
    backend = "uml"
    memory = "192M"
    disk = "1G"
    ready = ["login", "ssh:22"]
    ready_timeout = "20min"
    [networks.lan]
    mode = "nat"
    subnet = "10.77.0.0/24"
    gateway = "10.77.0.1"
"#;

#[test]
fn a_disk_that_was_made_offline_starts_by_uefi_and_bios_and_its_guests_are_known_by_their_keys() {
    let guests = [
        ("ce", "role = 'ce'\naddress = '10.77.0.10'"),
        // The second one shares the kernel: another emulated one would take minutes more.
        ("ui", "role = 'ui'\naddress = '10.77.0.11'\nbackend = 'nspawn'"),
    ];
    let Some(mut made) = Made::install("made", MADE, &guests) else { return };
    let report = made.report();
    assert_eq!(report["machines"][0]["fqdn"], "gw.made.example.org", "{report}");

    made.boot(Firmware::SecureBoot);
    assert_eq!(made.tell("mokutil --sb-state"), "SecureBoot enabled");

    made.boot(Firmware::Bios);
    assert_eq!(made.run("test -e /sys/firmware/efi").status, 1, "it was started by UEFI again");
    assert_eq!(made.tell("hostname -f"), "gw.made.example.org");
    let failed = made.tell("systemctl --failed --no-legend");
    assert_eq!(failed, "", "{}", made.evidence());
    for (guest, address) in [("ce", "10.77.0.10"), ("ui", "10.77.0.11")] {
        made.tell(&format!("gridgate wait {guest} --timeout 20min"));
        assert_eq!(made.status(guest), RUNNING, "{guest}");
        let ran = made.ssh(address, "hostname -f");
        assert_eq!(ran.stdout, format!("{guest}.made.example.org"), "{}\n{}", ran.stderr, made.evidence());
    }
    assert_eq!(made.tell("gridgate gc"), "", "what was left behind");
}

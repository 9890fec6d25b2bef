//! The manager that is systemd, on a machine where it is: a container that boots the golden image and runs user-mode
//! Linux guests as units.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

#[path = "../support/installed.rs"]
mod installed;
mod alone;
mod machine;

use installed::Installed;
use machine::{Machine, Release, with_machine};

const RUNNING: [&str; 3] = ["running", "running", "ready"];
const STOPPED: [&str; 3] = ["stopped", "stopped", "no"];
/// All that is active when both guests are up; the target only after a boot.
const ALL: [&str; 6] = [
    "gridgate-console.service",
    "gridgate-guest@ce.service",
    "gridgate-guest@se.service",
    "gridgate-network.service",
    "gridgate-ready@ce.service",
    "gridgate-ready@se.service",
];
const STATE: &str = "/var/lib/gridgate/guests";
const NETNS: &str = "ls /run/gridgate/*/netns";

/// A machine that is up, and its two guests.
fn with_guests(test: impl FnOnce(&mut Machine) + Send) {
    with_machine(Release::Debian12, |machine| {
        machine.two_guests();
        machine.boot();
        machine.tell("gridgate up");
        test(machine);
    });
}

/// What a unit did when, in microseconds of the machine's clock.
fn moment(machine: &Machine, unit: &str, property: &str) -> u64 {
    machine.show(unit, property).parse().unwrap()
}

fn main_pid(machine: &Machine, unit: &str) -> String {
    machine.show(unit, "MainPID")
}

/// How the guest was stopped last.
fn rung(machine: &Machine, guest: &str) -> String {
    let stopped: serde_json::Value =
        serde_json::from_str(&machine.tell(&format!("cat {STATE}/{guest}/last-stop.json"))).unwrap();
    stopped["rung"].as_str().unwrap().to_owned()
}

/// When the guest was launched, which tells one run of it from the next.
fn launched(machine: &Machine, guest: &str) -> u64 {
    moment(machine, &format!("gridgate-guest@{guest}.service"), "ExecMainStartTimestampMonotonic")
}

#[test]
fn a_guest_is_a_unit_whose_main_process_is_the_hypervisor() {
    with_guests(|machine| {
        assert_eq!(machine.active_units(), ALL);
        assert_eq!(
            (machine.status("ce"), machine.status("se")),
            (RUNNING.map(str::to_owned), RUNNING.map(str::to_owned))
        );
        for guest in ["ce", "se"] {
            let pid = main_pid(machine, &format!("gridgate-guest@{guest}.service"));
            let exe = machine.tell(&format!("readlink /proc/{pid}/exe"));
            assert!(exe.ends_with("/kernels/uml/linux"), "{exe}");
            // Started is when the hypervisor runs; ready comes seconds later and is another unit's business.
            let started =
                moment(machine, &format!("gridgate-guest@{guest}.service"), "ActiveEnterTimestampMonotonic");
            let ready =
                moment(machine, &format!("gridgate-ready@{guest}.service"), "ActiveEnterTimestampMonotonic");
            assert!(ready > started + 500_000, "started at {started} us, ready at {ready} us");
        }
        a_holder_that_is_killed_comes_back_and_no_line_is_lost(machine);
        stopping_the_unit_asks_the_guest(machine);
        guests_are_stopped_started_and_killed_by_name(machine);
        down_leaves_no_unit_and_no_network_and_up_makes_them_again(machine);
    });
}

fn a_holder_that_is_killed_comes_back_and_no_line_is_lost(machine: &Machine) {
    let guest = main_pid(machine, "gridgate-guest@ce.service");
    let kept: usize = machine.show("gridgate-console", "NFileDescriptorStore").parse().unwrap();
    assert!(kept > 0, "systemd keeps no terminal for the next holder");
    let log = || machine.tell("gridgate console ce --log --raw");
    // About a thousand lines a second, until it is told that it is enough; then how many they were.
    let speech = "i=0; echo; until [ -e /run/enough ]; do i=$((i + 1)); echo line-$i-end; \
                  [ $((i % 20)) != 0 ] || sleep 0.02; done; echo all-$i-said";
    let script = machine.tree().join("root/speech");
    std::fs::write(&script, format!("gridgate ssh ce '({speech}) >/dev/console' >/root/speech.log 2>&1 &\n"))
        .unwrap();
    machine.tell("sh /root/speech");
    machine.eventually("the guest speaks", || log().contains("line-1-end").then_some(()));
    // More often than systemd lets a unit fail that is not told otherwise.
    for _ in 0..7 {
        let holder = main_pid(machine, "gridgate-console.service");
        machine.tell(&format!("kill -9 {holder}"));
        machine.eventually("the holder is back", || {
            let now = main_pid(machine, "gridgate-console.service");
            let active = machine.show("gridgate-console", "ActiveState") == "active";
            (active && now != "0" && now != holder).then_some(())
        });
    }
    machine.tell("gridgate ssh ce touch /run/enough");
    let said = machine.eventually("the guest has spoken", || Some(log()).filter(|log| log.contains("-said")));
    let heard: Vec<&str> = said.lines().map(str::trim_end).filter(|line| line.starts_with("line-")).collect();
    let total: usize = said.split("all-").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
    let wrong = (0..total.max(heard.len()))
        .find(|at| heard.get(*at).is_none_or(|line| *line != format!("line-{}-end", at + 1)));
    let near = wrong.map(|at| heard.get(at.saturating_sub(2)..(at + 3).min(heard.len())));
    assert_eq!(
        wrong,
        None,
        "of {total} lines, {} were heard; near the first wrong one: {near:?}",
        heard.len()
    );
    assert_eq!(main_pid(machine, "gridgate-guest@ce.service"), guest);
    assert_eq!(machine.status("ce"), RUNNING);
    // And it still takes what is typed. A client on a pipe stays until it is ended.
    machine.tell(
        "printf 'nobody-by-that-name\\n' | gridgate console ce >/dev/null 2>&1 & client=$!
        for i in $(seq 600); do
            gridgate console ce --log --raw | grep -q nobody-by-that-name && break
            sleep 0.1
        done
        kill $client",
    );
    assert!(log().contains("nobody-by-that-name"), "the prompt answers");
}

fn stopping_the_unit_asks_the_guest(machine: &Machine) {
    machine.tell("systemctl stop gridgate-guest@ce");
    assert_eq!(rung(machine, "ce"), "asked");
    let exit: serde_json::Value =
        serde_json::from_str(&machine.tell(&format!("cat {STATE}/ce/last-exit.json"))).unwrap();
    assert_eq!((exit["cause"].as_str(), exit["code"].as_i64()), (Some("exit"), Some(0)));
    let last = exit["last_lines"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(last.ends_with("reboot: Power down"), "{last}");
    assert_eq!(machine.status("ce"), ["running", "stopped", "no"]);
    assert_eq!(machine.show("gridgate-guest@ce", "ActiveState"), "inactive");
    assert_eq!(machine.show("gridgate-ready@ce", "ActiveState"), "inactive");
    assert_eq!(machine.status("se"), RUNNING);
    machine.tell("systemctl start gridgate-guest@ce");
    machine.tell("gridgate wait ce --for ready --timeout 10min");
    assert_eq!(machine.status("ce"), RUNNING);
}

fn guests_are_stopped_started_and_killed_by_name(machine: &Machine) {
    // Who comes up with the target is made from what was asked for.
    let enabled = |guest: &str| machine.run(&format!("systemctl is-enabled gridgate-guest@{guest}")).stdout;
    assert_eq!(machine.run("gridgate kill se").stderr.split(" after ").next(), Some("se: was killed"));
    assert_eq!(
        (machine.status("se"), rung(machine, "se")),
        (STOPPED.map(str::to_owned), "killed".to_owned())
    );
    assert_eq!(enabled("se"), "disabled");
    let left = [
        "gridgate-console.service",
        "gridgate-guest@ce.service",
        "gridgate-network.service",
        "gridgate-ready@ce.service",
    ];
    assert_eq!(machine.active_units(), left);
    let before = launched(machine, "ce");
    machine.tell("gridgate restart ce && gridgate start se");
    assert!(launched(machine, "ce") > before);
    assert_eq!(rung(machine, "ce"), "asked");
    assert_eq!(
        (machine.active_units(), enabled("se").as_str()),
        (ALL.map(str::to_owned).to_vec(), "enabled-runtime")
    );
    // One that shut itself down and is then stopped stays down as well.
    machine.tell("gridgate ssh se poweroff; gridgate wait se --for stopped --timeout 10min");
    machine.eventually("its unit has noticed", || {
        (machine.show("gridgate-guest@se", "ActiveState") == "inactive").then_some(())
    });
    assert_eq!(machine.status("se"), ["running", "stopped", "no"]);
    machine.tell("gridgate stop se");
    assert_eq!((machine.status("se"), enabled("se").as_str()), (STOPPED.map(str::to_owned), "disabled"));
}

fn down_leaves_no_unit_and_no_network_and_up_makes_them_again(machine: &Machine) {
    machine.tell(NETNS);
    machine.tell("gridgate down");
    assert_eq!(machine.active_units(), Vec::<String>::new());
    assert_eq!(machine.tell("ls /run/gridgate"), "");
    assert_eq!(machine.tell("gridgate gc"), "");
    // The unit alone has to make its networks again, too.
    machine.tell("systemctl start gridgate-guest@ce && gridgate wait ce --timeout 10min");
    machine.tell(NETNS);
    machine.tell("gridgate up");
    assert_eq!(machine.active_units(), ALL);
    machine.tell("gridgate down --purge");
    assert_eq!(machine.active_units(), Vec::<String>::new());
    assert_eq!(machine.tell("find /etc/systemd/system -name '*gridgate-*'"), "");
}

#[test]
fn a_boot_brings_up_what_ran_in_its_order_and_nothing_else() {
    with_guests(|machine| {
        machine.tell("systemctl enable gridgate.target");
        machine.change("guests/se.toml", "role = \"se\"", "role = \"se\"\ndelay = \"10s\"");
        machine.power_off();
        machine.boot();
        machine.tell("gridgate wait se --timeout 10min");
        let with_target: Vec<&str> = ALL.iter().copied().chain(["gridgate.target"]).collect();
        assert_eq!(machine.active_units(), with_target);
        let ready = moment(machine, "gridgate-ready@ce", "ActiveEnterTimestampMonotonic");
        let started = moment(machine, "gridgate-guest@se", "ExecMainStartTimestampMonotonic");
        assert!(started >= ready, "se started at {started} us, ce was ready at {ready} us");
        let noted = |guest: &str, file: &str, field: &str| {
            let text = machine.tell(&format!("cat /run/gridgate/*/guests/{guest}/{file}.json"));
            serde_json::from_str::<serde_json::Value>(&text).unwrap()[field].as_u64().unwrap()
        };
        let (ready, launched) = (noted("ce", "ready", "ready_at_ms"), noted("se", "run", "launched_at_ms"));
        assert!(launched >= ready + 10_000, "ce was ready at {ready}, se launched at {launched}");
        for guest in ["ce", "se"] {
            assert_eq!(rung(machine, guest), "asked", "how the machine's end was {guest}'s");
            assert_eq!(machine.status(guest), RUNNING);
        }

        // Stopping the target stops all, the last one first, and waits until the guests are down.
        machine.tell("systemctl stop gridgate.target");
        assert!(!machine.active_units().iter().any(|unit| unit.starts_with("gridgate-guest@")));
        machine.eventually("all of it is down", || machine.active_units().is_empty().then_some(()));
        let first = moment(machine, "gridgate-guest@se", "InactiveEnterTimestampMonotonic");
        let second = moment(machine, "gridgate-guest@ce", "ActiveExitTimestampMonotonic");
        assert!(second >= first, "ce was stopped at {second} us, se was down at {first} us");
        machine.tell("systemctl start gridgate.target");
        machine.eventually("se waits for its delay", || {
            let told = machine.show("gridgate-guest@se", "StatusText");
            (told.starts_with("starts in ") && told.ends_with(" s, as its delay has it")).then_some(())
        });
        machine.tell("gridgate wait se --timeout 10min");
        assert_eq!(machine.active_units(), with_target);

        machine.tell("gridgate stop ce");
        machine.power_off();
        machine.boot();
        machine.tell("gridgate wait se --timeout 10min");
        assert_eq!(
            (machine.status("ce"), machine.status("se")),
            (STOPPED.map(str::to_owned), RUNNING.map(str::to_owned))
        );
        assert_eq!(machine.show("gridgate-guest@ce", "ActiveState"), "inactive");
    });
}

#[test]
fn a_guest_that_is_held_goes_on_when_all_of_the_backups_unit_is_killed() {
    with_guests(|machine| {
        let backup = "gridgate site backup ce --to /root/store --allow-long-pause";
        let mark = "/run/gridgate/*/guests/ce/still.json";
        // One shell that starts nothing to look, and a copy that takes its time: it is to be stopped in the middle of it.
        machine.tell(&format!(
            "systemd-run --quiet --unit=backup --property=KillMode=control-group --property=CPUQuota=20% {backup}
            pid=$(systemctl show --property=MainPID --value backup)
            until set -- {mark} && [ -e \"$1\" ]; do :; done; kill -STOP $pid"
        ));
        machine.tell(&format!("ls {mark}"));
        assert!(
            machine.tell("systemctl list-units --plain --no-legend 'run-*'").contains("Guard of guest ce")
        );
        machine.tell("systemctl kill --signal=KILL backup");
        machine.tell(&format!("until ! ls {mark}; do sleep 0.01; done 2>/dev/null"));
        assert_eq!(machine.tell("gridgate ssh ce 'echo on >/root/on; cat /root/on'"), "on");
        machine.tell(
            "until ! systemctl list-units --plain --no-legend 'run-*' | grep -q Guard; do sleep 0.05; done",
        );
        machine.tell("gridgate gc");
    });
}

//! A box that brings its guests up with nobody there: what the generator makes of the site's files, good and bad.

use crate::installed::Installed;
use crate::machine::{Machine, Release, with_machine};

#[test]
fn a_fresh_box_brings_its_guests_up_alone_on_debian_12() {
    with_machine(Release::Debian12, alone);
}

#[test]
fn a_fresh_box_brings_its_guests_up_alone_on_debian_13() {
    with_machine(Release::Debian13, alone);
}

/// Nobody ever says `gridgate up` here.
fn alone(machine: &mut Machine) {
    machine.two_guests();
    let ghost = machine.tree().join("etc/gridgate/guests/ui.toml");
    std::fs::write(&ghost, "memori = \"1G\"\n").unwrap();
    machine.change("site.toml", "guests = [\"ce\", \"se\"]", "guests = [\"ce\", \"se\", \"ui\"]");
    // Two ports of one guest are handed over.
    let storage = "network = \"lan\"\n[networks.storage]\nmode = \"rehearsal\"\nsubnet = \"10.78.0.0/24\"\n";
    machine.change("site.toml", "[networks.lan]", &format!("{storage}[networks.lan]"));
    let ce = machine.tree().join("etc/gridgate/guests/ce.toml");
    let text = std::fs::read_to_string(&ce).unwrap();
    std::fs::write(&ce, format!("{text}\n[interface.storage]\naddress = \"10.78.0.10\"\n")).unwrap();
    // Long enough for a busy machine to see it wait.
    machine.change(
        "guests/se.toml",
        "role = \"se\"",
        "role = \"se\"\nrestart_delay = \"8s\"\nrestart_settle = \"1h\"",
    );
    std::fs::create_dir_all(machine.tree().join("etc/systemd/system/multi-user.target.wants")).unwrap();
    std::os::unix::fs::symlink(
        "/usr/local/lib/systemd/system/gridgate.target",
        machine.tree().join("etc/systemd/system/multi-user.target.wants/gridgate.target"),
    )
    .unwrap();
    machine.boot();
    machine.eventually("both are ready", || {
        let ready = |guest| machine.show(&format!("gridgate-ready@{guest}"), "ActiveState") == "active";
        (ready("ce") && ready("se")).then_some(())
    });
    let ready = machine.moment("gridgate-ready@ce", "ActiveEnterTimestampMonotonic");
    assert!(machine.moment("gridgate-guest@se", "ExecMainStartTimestampMonotonic") >= ready);
    the_bad_guests_unit_says_why(machine);
    a_guest_is_nobody(machine);
    an_edit_needs_a_restart_and_nothing_else(machine);
    one_that_dies_is_started_again_later_and_later(machine);
    systemctl_enable_is_for_guests_that_do_not_come_up_by_themselves(machine);
}

fn the_bad_guests_unit_says_why(machine: &Machine) {
    let main = |property| machine.show("gridgate-guest@ui", property);
    assert_eq!((main("ActiveState").as_str(), main("ExecMainStatus").as_str()), ("failed", "78"));
    // Whoever asks is told where it is wrong, and what to do.
    let status = machine.run("systemctl status --no-pager --full --lines=20 gridgate-guest@ui").stdout;
    assert!(status.contains("/etc/gridgate/guests/ui.toml:1:1: unknown key 'memori'"), "{status}");
    assert!(status.contains("hint: did you mean 'memory'"), "{status}");
    assert_eq!(machine.show("gridgate-guest@ui", "NRestarts"), "0");
}

/// The hypervisor has a user of its own, no capabilities, and nothing to gain any.
fn a_guest_is_nobody(machine: &Machine) {
    let user = |guest: &str| {
        let pid = machine.show(&format!("gridgate-guest@{guest}"), "MainPID");
        let status = machine.tell(&format!("cat /proc/{pid}/status"));
        let line = |key: &str| -> String {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(line(set), "0000000000000000", "{set} of {guest}");
        }
        assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"), "{guest}");
        line("Uid:")
    };
    let (ce, se) = (user("ce"), user("se"));
    assert!(ce != "0" && ce != se, "{ce} {se}");
    let owner = machine.tell("stat -c '%u %a' /var/lib/gridgate/guests/ce/disk");
    assert_eq!(owner, format!("{ce} 600"));
    assert_eq!(machine.show("gridgate-guest@ce", "NFileDescriptorStore"), "0", "its ports are its own");
    // Another guest's user gets to neither disk nor sockets; what root trusts is root's.
    let as_se =
        |command: &str| machine.run(&format!("setpriv --reuid={se} --regid={se} --clear-groups {command}"));
    assert_ne!(as_se("head -c 1 /var/lib/gridgate/guests/ce/disk").status, 0);
    let run = machine.tell("echo /run/gridgate/*/guests/ce");
    assert_ne!(as_se(&format!("ls {run}/hv")).status, 0);
    assert_ne!(as_se(&format!("head -c 0 {run}/lock")).status, 0);
    assert_eq!(machine.tell(&format!("stat -c %u {run} {run}/run.json {run}/lock")), "0\n0\n0");
}

fn an_edit_needs_a_restart_and_nothing_else(machine: &Machine) {
    // As long as something else is wrong, guests are started as they were.
    let ui = machine.tree().join("etc/gridgate/guests/ui.toml");
    std::fs::write(&ui, "autostart = false\nrole = \"ui\"\n").unwrap();
    machine.change("guests/ce.toml", "role = \"ce\"", "role = \"ce\"\nmemory = \"224M\"");
    machine.tell("systemctl restart gridgate-guest@ce && gridgate wait ce --timeout 10min");
    let pid = machine.show("gridgate-guest@ce", "MainPID");
    let command = machine.tell(&format!("tr '\\0' ' ' </proc/{pid}/cmdline"));
    assert!(command.contains(" mem=224M "), "{command}");
    let address = machine
        .tell("gridgate ssh ce 'until ip -o -4 address show dev storage | grep inet; do sleep 0.2; done'");
    assert!(address.contains(" 10.78.0.10/24 "), "{address}");
    machine.tell("systemctl daemon-reload");
    assert_eq!(machine.run("systemctl is-enabled gridgate-guest@ui").stdout, "disabled");
}

fn one_that_dies_is_started_again_later_and_later(machine: &Machine) {
    let unit = "gridgate-guest@se";
    for turn in 1..=2 {
        let pid = machine.show(unit, "MainPID");
        machine.tell(&format!("kill -9 {pid}"));
        // Both of one look, since they are so for some seconds only.
        let both = format!("systemctl show --property=ActiveState,StatusText {unit}");
        let shown = machine.eventually("it says when it is tried again", || {
            Some(machine.tell(&both)).filter(|text| text.contains("StatusText=tried again in"))
        });
        let told = |text: &str| assert!(shown.contains(text), "no '{text}' in {shown}");
        told("ActiveState=activating");
        told("signal 9");
        told(&format!("early death {turn})"));
        machine.eventually("it is back", || {
            let now = machine.show(unit, "MainPID");
            (machine.show(unit, "ActiveState") == "active" && now != "0" && now != pid).then_some(())
        });
    }
    // It waits again, and can be stopped meanwhile.
    let pid = machine.show(unit, "MainPID");
    machine.tell(&format!("kill -9 {pid}"));
    machine
        .eventually("it waits", || machine.show(unit, "StatusText").starts_with("tried again").then_some(()));
    machine.tell(&format!("systemctl stop {unit}"));
    assert_eq!(machine.show(unit, "MainPID"), "0");
    // Whoever starts it himself does not have to wait.
    machine.tell(&format!("systemctl start {unit}"));
    assert_eq!(machine.show(unit, "ActiveState"), "active");
}

fn systemctl_enable_is_for_guests_that_do_not_come_up_by_themselves(machine: &mut Machine) {
    machine.tell("systemctl enable gridgate-guest@ui");
    assert_eq!(machine.run("systemctl is-enabled gridgate-guest@ui").stdout, "enabled");
    machine.tell("gridgate stop ce");
    assert_eq!(machine.run("systemctl is-enabled gridgate-guest@ce").stdout, "disabled");
    machine.tell("systemctl stop gridgate.target");
    machine.tell("systemctl start gridgate.target");
    let state = |guest: &str| machine.show(&format!("gridgate-guest@{guest}"), "ActiveState");
    machine
        .eventually("the others run", || (state("se") == "active" && state("ui") == "active").then_some(()));
    assert_eq!(state("ce"), "inactive");
    machine.tell("gridgate stop ui");
    assert_eq!(machine.run("systemctl is-enabled gridgate-guest@ui").stdout, "disabled");
}

//! The programs that read such files take ours. Where one is missing its test says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::trees::{Distribution, Guest};
use crate::{identity, personalise, rich};

/// Where the program is; its absence is told.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!(
            "skipped: there is no {name} to ask; scripts/setup --test installs it where that is harmless"
        );
    }
    found
}

fn made(distribution: Distribution) -> Guest {
    let guest = Guest::new(distribution);
    personalise(&guest.root, &identity(rich()));
    guest
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    format!("{out}{err}")
}

#[test]
fn ifupdown_would_do_what_was_asked_for() {
    let Some(ifup) = program("ifup") else { return };
    let guest = made(Distribution::DebianIfupdown);
    let file = guest.path("etc/network/interfaces");
    // Those that are kept of others would be read from the host.
    let text = std::fs::read_to_string(&file).unwrap().replace("source ", "# source ");
    std::fs::write(&file, text).unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(ifup);
    command
        .args(["--no-act", "--verbose", "--force", "--no-scripts", "--exclude=lo", "--all", "-i"])
        .arg(&file);
    command.arg(format!("--state-dir={}", state.path().display()));
    let said = output(&mut command);
    for expected in [
        "ip addr add 10.77.0.10/255.255.255.0",
        "ip route add default via 10.77.0.1",
        "ip address replace 10.77.0.11/24 dev net0",
        "ip -6 addr add 2001:db8:77::10/64",
        "ip route replace 10.0.0.0/8 via 10.77.0.254 dev net0 metric 50",
        "type bond mode 802.3ad miimon 100",
        "ip link add link bond0 name bond0.100 type vlan id 100",
        "ip link set dev net1 master bond0",
    ] {
        assert!(said.contains(expected), "no '{expected}' in:\n{said}");
    }
}

#[test]
fn netplan_makes_of_it_what_was_asked_for() {
    let Some(netplan) = program("netplan") else { return };
    let guest = made(Distribution::Ubuntu);
    output(Command::new(netplan).args(["generate", "--root-dir"]).arg(guest.dir.path()));
    let generated = |name: &str| guest.text(&format!("run/systemd/network/10-netplan-{name}.network"));
    let net0 = generated("net0");
    for line in ["Address=10.77.0.10/24", "Address=2001:db8:77::10/64", "Gateway=10.77.0.1", "Metric=50"] {
        assert!(net0.lines().any(|other| other == line), "no '{line}' in:\n{net0}");
    }
    assert!(net0.contains("IPv6AcceptRA=no"), "{net0}");
    assert!(generated("net1").contains("Bond=bond0"));
    assert!(generated("bond0").contains("VLAN=bond0.100"));
    assert!(generated("bond0.100").contains("Address=192.168.100.10/25"));
    assert!(generated("net3").contains("DHCP=ipv4") && generated("net3").contains("IPv6AcceptRA=yes"));
}

#[test]
fn networkmanager_takes_every_connection() {
    let Some(nmcli) = program("nmcli") else { return };
    let guest = made(Distribution::DebianNetworkManager);
    let dir = guest.path("etc/NetworkManager/system-connections/x");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("gridgate-") {
            continue;
        }
        // Reads a keyfile, checks it as the daemon does, and writes it as the daemon would.
        let written = keyfile(&nmcli, &path);
        seen += 1;
        let own = std::fs::read_to_string(&path).unwrap();
        for line in own.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
            // A gateway is written behind the first address.
            let kept = match line.strip_prefix("gateway=") {
                Some(gateway) => written.lines().any(|other| other.ends_with(&format!(",{gateway}"))),
                None => written.lines().any(|other| other == line || other.starts_with(&format!("{line},"))),
            };
            assert!(kept, "'{line}' of {} is not in:\n{written}", path.display());
        }
    }
    assert_eq!(seen, 6);
}

fn keyfile(nmcli: &Path, path: &Path) -> String {
    let mut command = Command::new(nmcli);
    command.args(["--offline", "connection", "modify", "connection.autoconnect", "yes"]);
    command.stdin(std::fs::File::open(path).unwrap());
    output(&mut command)
}

#[test]
fn every_ifcfg_file_is_plain_assignments() {
    use gridgate::config::shell;
    for distribution in [Distribution::RedHat73, Distribution::Rhel7, Distribution::Suse] {
        let guest = made(distribution);
        let dir = match distribution {
            Distribution::Suse => "etc/sysconfig/network",
            _ => "etc/sysconfig/network-scripts",
        };
        let mut seen = 0;
        for entry in std::fs::read_dir(guest.path(&format!("{dir}/x")).parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("ifcfg-") {
                let content = std::fs::read(&path).unwrap();
                let script =
                    shell::parse(&content).unwrap_or_else(|why| panic!("{}: {why:?}", path.display()));
                assert!(script.unset.is_empty() && !script.variables.is_empty(), "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 7, "{distribution:?}: {seen}");
    }
}

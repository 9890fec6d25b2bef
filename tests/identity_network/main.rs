//! What guests' networks become, whole files, for every renderer; and what the programs that read such files say of them.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod choice;
#[path = "../support/described.rs"]
mod described;
mod tools;
mod trees;

use described::loaded;
use gridgate::config::interface::{Automatic, BondMode, Interface, InterfaceKind, Route};
use gridgate::host::root::Root;
use gridgate::identity::assigned::Assigned;
use gridgate::identity::network::found::Found;
use gridgate::identity::network::{Rendered, render};
use gridgate::identity::wanted::Identity;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use trees::{Distribution, Guest};

fn card(name: &str, last: u8) -> Interface {
    Interface::card(name.parse().unwrap(), Some(format!("52:54:00:00:00:{last:02x}").parse().unwrap()))
}

fn route(to: &str, via: Option<&str>, metric: Option<u32>) -> Route {
    Route { to: to.parse().unwrap(), via: via.map(|via| via.parse().unwrap()), metric }
}

/// A card with everything fixed, one that asks, and a VLAN on a bond of two.
fn rich() -> Vec<Interface> {
    let fixed = Interface {
        addresses: ["10.77.0.10/24", "10.77.0.11/24", "2001:db8:77::10/64"]
            .map(|a| a.parse().unwrap())
            .to_vec(),
        gateways: ["10.77.0.1", "2001:db8:77::1"].map(|a| a.parse().unwrap()).to_vec(),
        routes: vec![
            route("10.0.0.0/8", Some("10.77.0.254"), Some(50)),
            route("2001:db8:1::/48", Some("2001:db8:77::fe"), None),
        ],
        mtu: Some(1400),
        ..card("net0", 0x10)
    };
    let asking = Interface { automatic: Automatic { ipv4: true, ipv6: true }, ..card("net3", 0x13) };
    let members = ["net1", "net2"].map(|name| name.parse().unwrap()).to_vec();
    let bond = Interface {
        kind: InterfaceKind::Bond { members, mode: BondMode::Lacp },
        mac: None,
        mtu: Some(9000),
        ..card("bond0", 0)
    };
    let vlan = Interface {
        kind: InterfaceKind::Vlan { parent: "bond0".parse().unwrap(), id: 100 },
        mac: None,
        addresses: vec!["192.168.100.10/25".parse().unwrap()],
        routes: vec![route("192.168.200.0/24", None, None)],
        ..card("bond0.100", 0)
    };
    // Not in the order in which they can be made.
    vec![fixed, vlan, bond, card("net1", 0x11), card("net2", 0x12), asking]
}

fn identity(interfaces: Vec<Interface>) -> Identity {
    let mut assigned = Assigned::draw("ce").unwrap();
    assigned.machine_id = "0123456789abcdef0123456789abcdef".to_owned();
    let described = "name = 's'\ndomain = 'example.org'\ndns = ['10.77.0.2', '2001:db8:77::2']\n\
        [networks.lan]\nmode = 'isolated'\nsubnet = '10.77.0.0/24'\n";
    let site = loaded(&[("site.toml", described), ("guests/ce.toml", "")]);
    let identity = Identity::of(&site, &site.guests[0], assigned, "ssh-ed25519 AAAA admin");
    Identity {
        hosts: Vec::new(),
        interfaces,
        search: ["example.org", "grid.example.org"].map(str::to_owned).to_vec(),
        authorized_keys: Vec::new(),
        ..identity
    }
}

/// Looks at the tree, renders, applies; returns what was rendered.
fn personalise(root: &Root, identity: &Identity) -> Rendered {
    let rendered = render(identity, &Found::look(root).unwrap());
    for edit in &rendered.edits {
        edit.apply(root).unwrap();
    }
    rendered
}

/// Every file and link below `/etc` of a tree, with its mode.
fn listing(root: &Root, dir: &Path, text: &mut String) {
    use gridgate::host::root::Entry;
    for name in root.list(dir).unwrap() {
        let path: PathBuf = dir.join(name);
        match root.entry(&path).unwrap() {
            Some(Entry::Dir) => listing(root, &path, text),
            Some(Entry::File { mode, .. }) => {
                let content = root.read(&path).unwrap().unwrap();
                let content = String::from_utf8(content).unwrap();
                let mode = if mode == 0o644 { String::new() } else { format!(" {mode:o}") };
                text.push_str(&format!("=== {}{mode}\n{content}", path.display()));
            }
            Some(Entry::Link(to)) => {
                text.push_str(&format!("=== {} -> {}\n", path.display(), to.display()));
            }
            _ => {}
        }
    }
}

/// The whole of `/etc` after the rich example against `expected/NAME.txt`; `GRIDGATE_EXPECT=write` writes it anew.
fn becomes(distribution: Distribution, name: &str) {
    let guest = Guest::new(distribution);
    let identity = identity(rich());
    personalise(&guest.root, &identity);
    let mut text = String::new();
    listing(&guest.root, Path::new("/etc"), &mut text);
    let path = Path::new("tests/identity_network/expected").join(format!("{name}.txt"));
    if std::env::var_os("GRIDGATE_EXPECT").is_some_and(|value| value == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    let again = render(&identity, &Found::look(&guest.root).unwrap());
    let changed = again
        .edits
        .iter()
        .filter(|edit| edit.apply(&guest.root).unwrap() == gridgate::host::root::Change::Changed);
    assert_eq!(changed.count(), 0, "the second time nothing changes");
}

#[test]
fn debian_with_ifupdown() {
    becomes(Distribution::DebianIfupdown, "debian-ifupdown");
}

#[test]
fn debian_with_networkd_and_resolved() {
    becomes(Distribution::DebianNetworkd, "debian-networkd");
}

#[test]
fn debian_with_networkmanager() {
    becomes(Distribution::DebianNetworkManager, "debian-networkmanager");
}

#[test]
fn debian_before_link_files() {
    becomes(Distribution::OldDebian, "old-debian");
}

#[test]
fn ubuntu_with_netplan() {
    becomes(Distribution::Ubuntu, "ubuntu-netplan");
}

#[test]
fn red_hat_7_3() {
    becomes(Distribution::RedHat73, "red-hat-7.3");
}

#[test]
fn rhel_7_with_networkmanager_that_reads_ifcfg() {
    becomes(Distribution::Rhel7, "rhel-7");
}

#[test]
fn rhel_9_with_networkmanager() {
    becomes(Distribution::Rhel9, "rhel-9");
}

#[test]
fn suse_with_wicked() {
    becomes(Distribution::Suse, "suse");
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["(eth|net|bond)[0-3]", "net[01]\\.[0-9]{1,4}", "[a-zA-Z][a-zA-Z0-9._-]{0,14}"]
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let kind = prop_oneof![
        Just(InterfaceKind::Ethernet),
        (any_name(), 1u16..4095).prop_filter_map("no name", |(parent, id)| {
            Some(InterfaceKind::Vlan { parent: parent.parse().ok()?, id })
        }),
        (proptest::collection::vec(any_name(), 0..3), 0usize..7).prop_map(|(members, mode)| {
            let members = members.iter().filter_map(|name| name.parse().ok()).collect();
            InterfaceKind::Bond { members, mode: BondMode::ALL[mode] }
        }),
    ];
    let addresses = proptest::collection::vec((any::<std::net::IpAddr>(), 0u8..=32), 0..4);
    let via = proptest::option::of(any::<std::net::IpAddr>());
    let routes = proptest::collection::vec((any::<std::net::IpAddr>(), 0u8..=32, via), 0..3);
    let gateways = proptest::collection::vec(any::<std::net::IpAddr>(), 0..3);
    let rest = (any::<Option<u32>>(), any::<(bool, bool)>(), any::<Option<[u8; 6]>>());
    (any_name(), kind, addresses, routes, gateways, rest).prop_filter_map(
        "no name",
        |(name, kind, addresses, routes, gateways, (mtu, (ipv4, ipv6), mac))| {
            let net = |(address, prefix)| ipnet::IpNet::new(address, prefix).unwrap();
            let route = |(to, prefix, via)| Route { to: net((to, prefix)), via, metric: mtu };
            Some(Interface {
                name: name.parse().ok()?,
                kind,
                mac: mac.map(gridgate::names::MacAddr),
                addresses: addresses.into_iter().map(net).collect(),
                gateways,
                automatic: Automatic { ipv4, ipv6 },
                routes: routes.into_iter().map(route).collect(),
                mtu,
                network: None,
            })
        },
    )
}

static FOUND: LazyLock<Vec<Found>> =
    LazyLock::new(|| Distribution::ALL.iter().map(|one| trees::found(*one)).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Interfaces that contradict each other, too: checking the site's files is another's work.
    #[test]
    fn any_interfaces_are_rendered_and_stay_inside_etc(
        interfaces in proptest::collection::vec(any_interface(), 0..5),
    ) {
        let identity = identity(interfaces);
        for found in FOUND.iter() {
            for edit in render(&identity, found).edits {
                let path = edit.path();
                prop_assert!(path.starts_with("/etc") && path.components().all(|part| part.as_os_str() != ".."), "{path:?}");
            }
        }
    }
}

//! Guests' interfaces as people write them, right and wrong.

use gridgate::config::interface::{Automatic, BondMode, Interface, InterfaceKind};
use gridgate::config::{LoadOptions, Loaded, load};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{SITE, described};

/// In a site whose network has a gateway.
fn with_site<T>(files: &[(&str, &str)], work: impl FnOnce(&[(&str, &str)]) -> T) -> T {
    let site = format!("{SITE}gateway = \"10.1.0.1\"\n");
    work(&[&[("site.toml", site.as_str())], files].concat())
}

fn directory(content: &[(&str, &str)]) -> TempDir {
    with_site(content, described::directory)
}

fn loaded(content: &[(&str, &str)]) -> Loaded {
    with_site(content, |files| described::loaded_with(files, &LoadOptions::default()))
}

fn interfaces(file: &str, content: &str) -> Vec<Interface> {
    loaded(&[(file, content)]).site.guests.remove(0).interfaces
}

fn told(content: &[(&str, &str)]) -> Vec<String> {
    with_site(content, described::told)
}

fn told_of_guest(content: &str) -> Vec<String> {
    told(&[("guests/ce.toml", content)])
}

#[test]
fn a_guest_that_says_nothing_has_one_card_with_its_address() {
    let all = interfaces("guests/ce.toml", "");
    let first =
        Interface::first(all[0].mac.unwrap(), "10.1.0.2/24".parse().unwrap(), "10.1.0.1".parse().ok());
    assert_eq!(all, [first]);
}

#[test]
fn the_guests_own_keys_are_those_of_its_first_interface() {
    let all = interfaces(
        "guests/ce.toml",
        "address = \"10.1.0.9\"\nipv6 = \"2001:db8::9/64\"\nipv6_gateway = \"fe80::1\"\n\
         addresses = [\"10.1.5.9/24\"]\ndhcp = true\nipv6_auto = true\nmtu = 1400\n\
         routes = [\"10.9.0.0/16 via 10.1.0.7 metric 5\"]\n",
    );
    let [first] = all.as_slice() else { panic!("{all:?}") };
    let text: Vec<String> = first.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.1.0.9/24", "10.1.5.9/24", "2001:db8::9/64"]);
    let gateways: Vec<String> = first.gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["10.1.0.1", "fe80::1"]);
    assert_eq!(first.automatic, Automatic { ipv4: true, ipv6: true });
    assert_eq!((first.mtu, first.routes[0].metric), (Some(1400), Some(5)));
}

#[test]
fn further_interfaces_are_tables_and_a_vlan_is_on_the_first_one_unless_it_says_otherwise() {
    let all = interfaces(
        "guests/ce.toml",
        "[interface.storage]\nvlan = 100\naddress = \"192.168.100.9/24\"\n\
         [interface.bond0]\nbond = [\"net1\", \"net2\"]\nbond_mode = \"802.3ad\"\nipv6_auto = true\n\
         [interface.net1]\n[interface.net2]\nmac = \"52:54:00:aa:bb:cc\"\n\
         [interface.v7]\nvlan = 7\nparent = \"bond0\"\n",
    );
    let names: Vec<&str> = all.iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!(names, ["net0", "storage", "bond0", "net1", "net2", "v7"]);
    assert_eq!(all[1].kind, InterfaceKind::Vlan { parent: "net0".parse().unwrap(), id: 100 });
    let members = ["net1", "net2"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(all[2].kind, InterfaceKind::Bond { members, mode: BondMode::Lacp });
    assert!(all[3].mac.is_some() && all[3].mac != all[0].mac, "a card has a hardware address");
    assert_eq!(all[4].mac, "52:54:00:aa:bb:cc".parse().ok());
    assert_eq!((all[1].mac, all[5].mac), (None, None), "a VLAN has its parent's");
}

#[test]
fn shell_variables_with_a_number_say_the_same_as_tables() {
    let shell = "IPADDR=10.1.0.9\nIPV6ADDR=2001:db8::9/64\nMTU=1400\n\
                 VLAN1=100\nIPADDR1=192.168.100.9\nNETMASK1=255.255.255.0\nPHYSDEV1=net0\n\
                 ROUTES1='10.9.0.0/16 via 192.168.100.1\n10.8.0.0/16 via 192.168.100.1'\nDHCP=yes\n";
    let toml = "address = \"10.1.0.9\"\nipv6 = \"2001:db8::9/64\"\nmtu = 1400\ndhcp = true\n\
                [interface.net1]\nvlan = 100\naddress = \"192.168.100.9/24\"\n\
                routes = [\"10.9.0.0/16 via 192.168.100.1\", \"10.8.0.0/16 via 192.168.100.1\"]\n";
    assert_eq!(interfaces("guests/ce.conf", shell), interfaces("guests/ce.toml", toml));
}

#[test]
fn a_bond_that_has_the_first_interface_has_its_addresses() {
    let all = interfaces(
        "guests/ce.toml",
        "mtu = 9000\n[interface.bond0]\nbond = [\"net0\", \"net1\"]\n[interface.net1]\n",
    );
    assert_eq!(all[0].addresses, []);
    assert_eq!(all[1].addresses, ["10.1.0.2/24".parse().unwrap()]);
    assert_eq!(all[1].mac, all[0].mac, "others know the guest by it");
    assert_eq!(
        (all[1].gateways.as_slice(), all[1].mtu),
        (["10.1.0.1".parse().unwrap()].as_slice(), Some(9000))
    );
}

#[test]
fn counted_guests_count_up_on_every_interface() {
    let text = "count = 2\naddress = \"10.1.0.20\"\nipv6 = \"2001:db8::20/64\"\n\
                [interface.v]\nvlan = 5\naddress = \"10.5.0.20/24\"\n";
    let site = loaded(&[("guests/wn.toml", text)]).site;
    let addresses: Vec<Vec<String>> = site
        .guests
        .iter()
        .map(|guest| {
            guest.interfaces.iter().flat_map(|nic| &nic.addresses).map(ToString::to_string).collect()
        })
        .collect();
    assert_eq!(addresses[0], ["10.1.0.20/24", "2001:db8::20/64", "10.5.0.20/24"]);
    assert_eq!(addresses[1], ["10.1.0.21/24", "2001:db8::21/64", "10.5.0.21/24"]);
}

#[test]
fn names_are_completed_with_the_sites_domain_unless_a_guest_says_otherwise() {
    let search = |content: &str| loaded(&[("guests/ce.toml", content)]).site.guests.remove(0).search;
    assert_eq!(search(""), ["s.test"]);
    assert_eq!(search("search = [\"a.test\", \"b.test\"]\n"), ["a.test", "b.test"]);
}

#[test]
fn every_value_of_an_interface_tells_where_it_came_from() {
    let loaded = loaded(&[("guests/ce.toml", "[interface.storage]\nmtu = 1400\n")]);
    let explained = loaded.explain.find("ce.interface.storage").unwrap();
    let keys: Vec<&str> = explained.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, ["ce.interface.storage.mtu", "ce.interface.storage.mac"]);
    assert!(explained[0].origin.ends_with("guests/ce.toml:2:7"), "{}", explained[0].origin);
    assert!(explained[1].origin.contains("interface 'storage'"), "{}", explained[1].origin);
}

#[test]
fn a_table_for_the_first_interface_is_refused() {
    assert_eq!(
        told_of_guest("[interface.net0]\nmtu = 1400\n"),
        ["guests/ce.toml:2:1: 'net0' is the guest's first interface"]
    );
}

#[test]
fn what_does_not_go_together_is_told_where_it_stands() {
    for (content, expected) in [
        ("[interface.v]\nvlan = 5\nparent = \"net9\"\n", "3:10: unknown interface 'net9'"),
        ("[interface.v]\nparent = \"net0\"\n", "2:10: interface 'v' has 'parent' without 'vlan'"),
        ("[interface.v]\nvlan = 5\nbond = [\"net0\"]\n", "2:8: interface 'v' cannot be a VLAN and a bond"),
        ("[interface.v]\nvlan = 5\n[interface.w]\nvlan = 5\n", "4:8: VLAN 5 of 'net0' is already 'v'"),
        ("[interface.b]\nbond = [\"net7\"]\n", "2:8: unknown interface 'net7'"),
        ("[interface.b]\nbond = []\n", "2:8: bond 'b' has no interfaces"),
        ("mtu = 1400\n[interface.v]\nvlan = 5\nmtu = 1500\n", "4:7: VLAN 'v' has a larger mtu than 'net0'"),
        (
            "[interface.v]\nvlan = 5\naddress = \"10.5.0.1\"\n",
            "3:11: the address of interface 'v' has no good prefix",
        ),
        (
            "[interface.v]\nvlan = 5\naddress = \"10.1.0.200/25\"\n",
            "3:11: 10.1.0.128/25 of interface 'v' overlaps 10.1.0.0/24 of interface 'net0'",
        ),
        (
            "[interface.v]\nvlan = 5\naddress = \"10.5.0.2/24\"\ngateway = \"10.5.0.1\"\n",
            "4:11: 'net0' is the guest's way out already, and 'v' would be another",
        ),
        (
            "routes = [\"10.9.0.0/16 via 10.5.0.1\"]\n",
            "1:10: a route goes by 10.5.0.1, which is in no network of interface 'net0'",
        ),
        (
            "ipv6_gateway = \"2001:db8::1\"\n",
            "1:16: gateway 2001:db8::1 is in no network of interface 'net0'",
        ),
        ("addresses = [\"10.5.0.255/24\"]\n", "1:13: address 10.5.0.255 is no host's in 10.5.0.0/24"),
        ("addresses = [\"10.5.0.9\"]\n", "1:14: addresses '10.5.0.9' has no prefix, such as /24"),
        (
            "routes = [\"0.0.0.0/0 via 10.1.0.7\"]\n",
            "1:11: routes '0.0.0.0/0 via 10.1.0.7' is the default route, which is the gateway",
        ),
        (
            "[interface.\"a b\"]\nvlan = 3\n",
            "1:12: name 'a b' may have only letters, digits, '.', '_' and '-'",
        ),
        ("[interface.v]\nvlan = 4095\n", "2:8: vlan 4095 is not between 1 and 4094"),
        (
            "[interface.b]\nbond = [\"net0\"]\nbond_mode = \"fast\"\n",
            "3:13: bond_mode 'fast' is not a mode; balance-rr, \
          active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb are",
        ),
        ("[interface.v]\nvlan = 5\nnetmask = \"255.255.255.0\"\n", "3:1: unknown key 'netmask'"),
    ] {
        assert_eq!(told_of_guest(content), [format!("guests/ce.toml:{expected}")], "{content}");
    }
}

#[test]
fn no_two_interfaces_of_the_site_share_an_address_or_a_hardware_address() {
    let ce = "address = \"10.1.0.9\"\nmac = \"52:54:00:00:00:01\"\n";
    let se = "address = \"10.1.0.10\"\n[interface.v]\nvlan = 5\naddress = \"10.5.0.9/24\"\n";
    let ui = "address = \"10.1.0.11\"\n[interface.v]\nvlan = 5\naddress = \"10.5.0.9/24\"\n\
              [interface.w]\nmac = \"52:54:00:00:00:01\"\n";
    assert_eq!(
        told(&[("guests/ce.toml", ce), ("guests/se.toml", se), ("guests/ui.toml", ui)]),
        [
            "guests/ui.toml:4:11: address 10.5.0.9 is already that of 'v' of guest 'se'",
            "guests/ui.toml:6:7: mac 52:54:00:00:00:01 of interface 'w' is already that of another interface",
        ]
    );
}

#[test]
fn a_variable_of_a_further_interface_without_its_number_is_told_how_it_is_written() {
    let dir = directory(&[("guests/ce.conf", "VLAN=5\n")]);
    let problems = load(dir.path(), &LoadOptions::default()).unwrap_err();
    assert!(problems.to_string().contains("has its number behind it: VLAN1"), "{problems}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_interfaces_are_read_or_refused_without_a_crash(
        tables in proptest::collection::vec(
            ("(net[0-2]|bond0|v)", proptest::collection::vec(0usize..14, 0..5)),
            0..4,
        ),
    ) {
        const LINES: [&str; 14] = [
            "vlan = 5", "vlan = 0", "parent = \"net1\"", "parent = \"v\"", "bond = [\"net0\", \"net1\"]",
            "bond = [\"v\"]", "bond_mode = \"802.3ad\"", "address = \"10.5.0.2/24\"", "address = \"10.1.0.2\"",
            "ipv6 = \"::/0\"", "gateway = \"10.5.0.1\"", "mac = \"52:54:00:00:00:02\"", "mtu = 68",
            "routes = [\"10.0.0.0/8\"]",
        ];
        let mut text = String::new();
        let mut seen = Vec::new();
        for (name, lines) in tables {
            if seen.contains(&name) {
                continue;
            }
            text += &format!("[interface.{name}]\n");
            seen.push(name);
            let mut keys: Vec<&str> = Vec::new();
            for line in lines.iter().map(|at| LINES[*at]) {
                let key = line.split(' ').next().unwrap();
                if !keys.contains(&key) {
                    keys.push(key);
                    text += &format!("{line}\n");
                }
            }
        }
        let dir = directory(&[("guests/ce.toml", &text)]);
        let _ = load(dir.path(), &LoadOptions::default());
    }
}

const NETWORKS: &str = "[networks.storage]\nmode = \"isolated\"\nsubnet = \"10.2.0.0/16\"\ngateway = \"10.2.0.1\"\n\
     [networks.data]\nmode = \"isolated\"\nsubnet = \"10.4.0.0/16\"\n";

/// The guest's file, in a site with a second network.
fn beside_storage<T>(content: &str, work: impl FnOnce(&[(&str, &str)]) -> T) -> T {
    let site = format!("{SITE}gateway = \"10.1.0.1\"\n{NETWORKS}");
    let guest = format!("network = \"lan\"\n{content}");
    work(&[("site.toml", site.as_str()), ("guests/ce.toml", guest.as_str())])
}

#[test]
fn a_card_is_in_the_network_that_it_names_or_that_has_its_address_or_that_the_guest_is_in() {
    let content = "[interface.a]\nnetwork = \"storage\"\naddress = \"10.2.3.4\"\n[interface.b]\naddress = \"10.4.3.5\"\n\
                   [interface.c]\n[interface.d]\naddress = \"192.0.2.1/24\"\n[interface.e]\nvlan = 5\nparent = \"a\"\n\
                   address = \"192.168.5.1/24\"\n";
    let options = LoadOptions::default();
    let guest =
        beside_storage(content, |files| described::loaded_with(files, &options)).site.guests.remove(0);
    let found: Vec<_> =
        guest.interfaces[1..].iter().map(|nic| nic.network.as_ref().map(|n| n.as_str())).collect();
    assert_eq!(found, [Some("storage"), Some("data"), Some("lan"), None, None]);
    let net = |at: usize| guest.interfaces[at].addresses[0].to_string();
    assert_eq!(
        (net(1), net(2)),
        ("10.2.3.4/16".to_owned(), "10.4.3.5/16".to_owned()),
        "the network's prefix"
    );
}

#[test]
fn a_card_that_cannot_be_plugged_in_as_it_says_is_told() {
    for (content, why) in [
        ("[interface.a]\nnetwork = \"storag\"\n", "unknown network 'storag'"),
        ("[interface.a]\nnetwork = \"storage\"\naddress = \"10.3.0.5/16\"\n", "is outside network 'storage'"),
        ("[interface.a]\naddress = \"10.2.0.1\"\n", "10.2.0.1 is the gateway of network 'storage'"),
        (
            "[interface.a]\nnetwork = \"storage\"\nvlan = 7\n",
            "interface 'a' is no card and is plugged into nothing",
        ),
    ] {
        let told = beside_storage(content, described::told);
        assert!(told.len() == 1 && told[0].contains(why), "{content}: {told:?}");
    }
}

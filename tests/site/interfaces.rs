//! What a guest's interface really has once it runs.

use gridgate::host::Live;
use gridgate::host::net::{Link, LinkKind, Net};

use crate::limits::shapers;
use crate::support::TestSite;

const INTERFACE: &str = r#"
backend = "uml"
addresses = ["10.78.0.10/24"]
ipv6 = "fd00:77::10/64"
ipv6_gateway = "fd00:77::1"
mtu = 1400
routes = ["10.99.0.0/16 via 10.78.0.1 metric 50"]
"#;

#[test]
fn a_guest_has_all_addresses_and_routes_that_its_file_says() {
    let Some(site) = TestSite::one("ce", INTERFACE) else { return };
    site.run(&["up"]).exits(0);
    let ssh = |command: &str| site.run(&["ssh", "ce", command]).exits(0).out;
    let addresses = ssh("ip -o address show dev net0 scope global | awk '{ print $4 }' | sort");
    assert_eq!(addresses, "10.77.0.10/24\n10.78.0.10/24\nfd00:77::10/64\n");
    assert_eq!(ssh("cat /sys/class/net/net0/mtu"), "1400\n");
    let routes = ssh("ip -4 route show; ip -6 route show");
    for route in [
        "default via 10.77.0.1 dev net0 proto static",
        "10.99.0.0/16 via 10.78.0.1 dev net0 proto static metric 50",
        "default via fd00:77::1 dev net0 proto static",
    ] {
        assert!(routes.contains(route), "no '{route}' in:\n{routes}");
    }
}

/// A second network, and a card of the guest's in it.
pub fn add_storage(site: &TestSite) {
    site.replace(
        "site.toml",
        "[networks.lan]",
        "network = \"lan\"\n[networks.storage]\nmode = \"rehearsal\"\nsubnet = \"10.78.0.0/24\"\ngateway = \"10.78.0.1\"\n\
         [networks.lan]",
    );
    let guest = std::fs::read_to_string(site.paths.site.join("guests/ce.toml")).unwrap();
    site.write("guests/ce.toml", &format!("{guest}\n[interface.storage]\naddress = \"10.78.0.10\"\n"));
}

/// What the guest's SSH server says first, by the way of its second card.
pub fn banner_by_storage(site: &TestSite) -> String {
    let script = "exec 3<>/dev/tcp/10.78.0.10/22 && head -c 4 <&3";
    site.run(&["enter", "bash", "-c", script]).exits(0).out
}

#[test]
fn a_further_card_is_in_its_own_network_is_held_to_the_limits_and_goes_with_the_guest() {
    let Some(site) = TestSite::quick(&["ce"], "[limits]\nnet_out = \"2M\"") else { return };
    add_storage(&site);
    let ports = || {
        // The namespace goes with the last guest.
        let links = Live.links(Some(&site.paths.netns())).unwrap_or_default();
        let master =
            |link: &Link| links.iter().find(|l| Some(l.index) == link.master).map(|l| l.name.clone());
        let taps = links.iter().filter(|link| link.kind == LinkKind::Tap);
        let mut ports: Vec<(String, String)> =
            taps.map(|link| (link.name.clone(), master(link).unwrap_or_default())).collect();
        ports.sort();
        ports
    };
    site.run(&["up"]).exits(0);
    let both = [("gg-ce", "gg-lan"), ("gg-ce_storage", "gg-storage")];
    assert_eq!(ports(), both.map(|(port, bridge)| (port.to_owned(), bridge.to_owned())));
    assert_eq!(shapers(&site), ["go-ce", "go-ce_storage"]);
    site.run(&["limit", "ce", "net_out=none"]).exits(0);
    assert_eq!(shapers(&site), [""; 0]);
    site.run(&["down", "ce"]).exits(0);
    assert_eq!(ports(), []);
}

#[test]
fn a_card_whose_network_the_site_does_not_have_is_for_a_machine_elsewhere() {
    let Some(site) = TestSite::quick(&["ce"], "[interface.storage]\naddress = \"192.0.2.9/24\"") else {
        return;
    };
    let told = site.run(&["check"]).exits(0).out;
    assert!(told.contains("ce: card 'storage' is in no network of the site"), "{told}");
    let up = site.run(&["up"]);
    up.exits(1).says("guest 'ce': plugging card 'storage' in: its address is of no network of the site");
}

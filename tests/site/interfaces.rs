//! What a guest's interface really has once it runs.

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

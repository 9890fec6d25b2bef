//! Planned, pretended, planned again.

use super::*;
use crate::config::described::loaded;
use crate::facts::network::Uplink;
use crate::host::net::Table;

const ID: &str = "0123abcd";

/// With one guest, in the first network.
fn site(networks: Vec<Network>, guest_address: &str) -> Site {
    let described =
        "name = 'test'\ndomain = 'example.org'\n[networks.any]\nmode = 'isolated'\nsubnet = '192.0.2.0/24'\n";
    let mut site = loaded(&[("site.toml", described), ("guests/ce.toml", "mac = '52:54:00:00:00:01'")]);
    let guest = &mut site.guests[0];
    guest.network = networks[0].name.clone();
    guest.address = guest_address.parse().unwrap();
    Site { networks, ..site }
}

fn network(mode: NetworkMode, bridge: &str, uplink: Option<&str>) -> Network {
    Network {
        name: "grid".parse().unwrap(),
        mode,
        bridge: bridge.parse().unwrap(),
        uplink: uplink.map(|u| u.parse().unwrap()),
        subnet: "192.0.2.0/24".parse().unwrap(),
        gateway: Some("192.0.2.1".parse().unwrap()),
    }
}

fn one(mode: NetworkMode, uplink: Option<&str>) -> Site {
    site(vec![network(mode, "gg0", uplink)], "192.0.2.10")
}

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        mac: None,
        mtu: 1500,
        up: true,
        master: None,
        alias: None,
        addresses: Vec::new(),
        default_route: false,
    }
}

fn bridge(index: u32, name: &str, owner: Option<&str>) -> Link {
    Link { alias: owner.map(names::alias), ..link(index, name, LinkKind::Bridge) }
}

fn host(links: Vec<Link>) -> NetFacts {
    let mut all =
        vec![Link { addresses: vec!["127.0.0.1/8".parse().unwrap()], ..link(1, "lo", LinkKind::Device) }];
    all.extend(links);
    NetFacts { host: all, ..NetFacts::default() }
}

fn eth1() -> Link {
    Link { addresses: vec!["fe80::1/64".parse().unwrap()], ..link(2, "eth1", LinkKind::Device) }
}

/// What the machine would look like after the steps.
fn pretend(facts: &NetFacts, steps: &[NetStep]) -> NetFacts {
    let mut after = facts.clone();
    for (step, index) in steps.iter().zip(100..) {
        let place = |after: &mut NetFacts, place: &Place| -> Vec<Link> {
            std::mem::take(match place {
                Place::Host => &mut after.host,
                Place::Rehearsal => after.namespace.as_mut().expect("the namespace is made first"),
            })
        };
        let put = |after: &mut NetFacts, place: &Place, links: Vec<Link>| match place {
            Place::Host => after.host = links,
            Place::Rehearsal => after.namespace = Some(links),
        };
        match step {
            NetStep::MakeNamespace => after.namespace = Some(Vec::new()),
            NetStep::RemoveNamespace => after.namespace = None,
            NetStep::MakeBridge { place: at, bridge: name } => {
                let mut links = place(&mut after, at);
                links.push(bridge(index, name.as_str(), Some(ID)));
                put(&mut after, at, links);
            }
            NetStep::RemoveBridge { place: at, bridge } => {
                let mut links = place(&mut after, at);
                links.retain(|l| l.name != bridge.as_str());
                put(&mut after, at, links);
            }
            NetStep::AddAddress { place: at, bridge, address } => {
                let mut links = place(&mut after, at);
                links
                    .iter_mut()
                    .filter(|l| l.name == bridge.as_str())
                    .for_each(|l| l.addresses.push(*address));
                put(&mut after, at, links);
            }
            NetStep::RemoveAddress { place: at, bridge, address } => {
                let mut links = place(&mut after, at);
                let at_bridge = links.iter_mut().filter(|l| l.name == bridge.as_str());
                at_bridge.for_each(|l| l.addresses.retain(|a| a != address));
                put(&mut after, at, links);
            }
            NetStep::Join { uplink, bridge, raise } => {
                let master = after.host.iter().find(|l| l.name == bridge.as_str()).map(|l| l.index);
                let link = after.host.iter_mut().find(|l| l.name == uplink.as_str()).unwrap();
                (link.master, link.up) = (master, true);
                let (name, bridge) = (uplink.to_string(), bridge.to_string());
                after.uplinks.push(Uplink { name, bridge, raised: *raise });
            }
            NetStep::Release { uplink, lower } => {
                if let Some(link) = after.host.iter_mut().find(|l| l.name == uplink.as_str()) {
                    (link.master, link.up) = (None, !lower);
                }
                after.uplinks.retain(|u| u.name != uplink.as_str());
            }
            NetStep::Translate { table, script, .. } => {
                let comment = script.split('"').nth(1).map(str::to_owned);
                after.tables.retain(|t| t.name != *table);
                after.tables.push(Table { name: table.clone(), comment });
            }
            NetStep::StopTranslating { table } => after.tables.retain(|t| t.name != *table),
            NetStep::Forward => (after.ip_forward, after.forwarding_is_ours) = (true, true),
            NetStep::StopForwarding => (after.ip_forward, after.forwarding_is_ours) = (false, false),
        }
    }
    after
}

fn said(steps: &[NetStep]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

/// Checks the sentences, that a second plan is empty, and that teardown leads back to where it began.
fn case(site: &Site, facts: &NetFacts, expected: &[&str]) {
    let steps = plan(site, facts, ID).unwrap();
    assert_eq!(said(&steps), expected);
    let up = pretend(facts, &steps);
    assert_eq!(said(&plan(site, &up, ID).unwrap()), [""; 0], "the second plan");
    let down = pretend(&up, &teardown(&up, ID));
    assert_eq!(down, *facts, "after teardown");
    assert_eq!(teardown(&down, ID), [], "the second teardown");
}

fn refused(site: &Site, facts: &NetFacts, expected: &str) {
    let problems = plan(site, facts, ID).unwrap_err();
    let whats: Vec<&str> = problems.iter().map(|p| p.what.as_str()).collect();
    assert_eq!(whats, [expected]);
    assert!(!problems[0].hint.is_empty());
}

#[test]
fn every_mode_is_planned_once_and_taken_down_wholly() {
    case(
        &one(NetworkMode::Rehearsal, None),
        &host(vec![]),
        &[
            "make the site's network namespace",
            "make bridge 'gg0' in the site's namespace",
            "give bridge 'gg0' in the site's namespace the address 192.0.2.1/24",
        ],
    );
    case(&one(NetworkMode::Isolated, None), &host(vec![]), &["make bridge 'gg0' on the host"]);
    case(
        &one(NetworkMode::Nat, None),
        &host(vec![]),
        &[
            "make bridge 'gg0' on the host",
            "give bridge 'gg0' on the host the address 192.0.2.1/24",
            "make nftables table 'gridgate_0123abcd' that translates the guests' addresses",
            "let the host forward IPv4 packets",
        ],
    );
    case(
        &one(NetworkMode::Bridge, Some("eth1")),
        &host(vec![eth1()]),
        &["make bridge 'gg0' on the host", "join interface 'eth1' to bridge 'gg0'"],
    );
    case(
        &one(NetworkMode::Bridge, Some("eth1")),
        &host(vec![Link { up: false, ..eth1() }]),
        &["make bridge 'gg0' on the host", "join interface 'eth1' to bridge 'gg0' and bring it up"],
    );
    case(&one(NetworkMode::Bridge, None), &host(vec![bridge(5, "gg0", None)]), &[]);
}

#[test]
fn a_host_that_forwards_already_is_left_forwarding() {
    let facts = NetFacts { ip_forward: true, ..host(vec![]) };
    case(
        &one(NetworkMode::Nat, None),
        &facts,
        &[
            "make bridge 'gg0' on the host",
            "give bridge 'gg0' on the host the address 192.0.2.1/24",
            "make nftables table 'gridgate_0123abcd' that translates the guests' addresses",
        ],
    );
}

#[test]
fn forwarding_stays_on_for_another_site_until_that_one_is_down() {
    let other = Table { name: names::table("89abcdef"), comment: None };
    let own = Table { name: names::table(ID), comment: None };
    let facts = NetFacts { ip_forward: true, forwarding_is_ours: true, ..host(vec![]) };
    let both = NetFacts { tables: vec![other.clone(), own.clone()], ..facts.clone() };
    assert_eq!(said(&teardown(&both, ID)), ["remove nftables table 'gridgate_0123abcd'"]);
    let last = NetFacts { tables: vec![own], ..facts.clone() };
    assert_eq!(
        said(&teardown(&last, ID)),
        ["set forwarding of IPv4 packets as it was before", "remove nftables table 'gridgate_0123abcd'"]
    );
    let without = NetFacts { tables: vec![], ..facts };
    let isolated = plan(&one(NetworkMode::Isolated, None), &without, ID).unwrap();
    assert_eq!(said(&isolated), ["make bridge 'gg0' on the host"]);
}

#[test]
fn a_table_with_other_rules_is_replaced() {
    let site = one(NetworkMode::Nat, None);
    let up = pretend(&host(vec![]), &plan(&site, &host(vec![]), ID).unwrap());
    let mut wider = site;
    wider.networks[0].subnet = "192.0.2.0/25".parse().unwrap();
    let steps = plan(&wider, &up, ID).unwrap();
    assert_eq!(
        said(&steps),
        [
            "take the address 192.0.2.1/24 off bridge 'gg0' on the host",
            "give bridge 'gg0' on the host the address 192.0.2.1/25",
            "replace nftables table 'gridgate_0123abcd' that translates the guests' addresses",
        ]
    );
    assert_eq!(plan(&wider, &pretend(&up, &steps), ID), Ok(vec![]));
}

#[test]
fn a_site_that_changes_its_mode_loses_what_the_old_one_needed() {
    let modes = [
        (NetworkMode::Nat, None),
        (NetworkMode::Rehearsal, None),
        (NetworkMode::Isolated, None),
        (NetworkMode::Bridge, Some("eth1")),
    ];
    let start = host(vec![eth1()]);
    for (before, before_uplink) in modes {
        for (after, uplink) in modes {
            let named = |mode, bridge: &str, uplink| site(vec![network(mode, bridge, uplink)], "192.0.2.10");
            let old = named(before, "gg0", before_uplink);
            let up = pretend(&start, &plan(&old, &start, ID).unwrap());
            let new = named(after, "gg1", uplink);
            let changed = pretend(&up, &plan(&new, &up, ID).unwrap());
            assert_eq!(plan(&new, &changed, ID), Ok(vec![]), "{before:?} to {after:?}");
            assert_eq!(pretend(&changed, &teardown(&changed, ID)), start, "{before:?} to {after:?}");
        }
    }
}

#[test]
fn a_bridge_with_guests_on_it_is_not_removed_by_a_plan() {
    let tap = Link {
        master: Some(5),
        alias: Some(names::guest_alias(ID, &"ce".parse().unwrap())),
        ..link(6, "ggabcdef-ce", LinkKind::Tap)
    };
    let facts = host(vec![bridge(5, "old0", Some(ID)), tap]);
    refused(
        &one(NetworkMode::Isolated, None),
        &facts,
        "no network of the site uses bridge 'old0' any more, but guests are still on it",
    );
    assert_eq!(said(&teardown(&facts, ID)), ["remove bridge 'old0' on the host"]);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let taken = [
        (
            NetworkMode::Nat,
            bridge(5, "gg0", None),
            "the name 'gg0' is taken by a bridge that gridgate did not make",
        ),
        (
            NetworkMode::Isolated,
            link(5, "gg0", LinkKind::Veth),
            "the name 'gg0' is taken by an interface that gridgate did not make",
        ),
        (
            NetworkMode::Bridge,
            bridge(5, "gg0", Some("89abcdef")),
            "bridge 'gg0' belongs to another site on this host",
        ),
        (
            NetworkMode::Bridge,
            bridge(5, "gg0", Some(ID)),
            "network 'grid' has no uplink, but bridge 'gg0' was made by gridgate for one",
        ),
    ];
    for (mode, link, expected) in taken {
        refused(&one(mode, None), &host(vec![link]), expected);
    }
}

#[test]
fn an_uplink_that_the_host_needs_is_refused() {
    let uplinked = one(NetworkMode::Bridge, Some("eth1"));
    let address: IpNet = "198.51.100.4/24".parse().unwrap();
    let refusals = [
        (
            vec![Link { addresses: vec![address], ..eth1() }],
            "uplink 'eth1' of network 'grid' carries 198.51.100.4/24: joining it would cut the host off",
        ),
        (
            vec![Link { default_route: true, ..eth1() }],
            "uplink 'eth1' of network 'grid' carries the default route: joining it would cut the host off",
        ),
        (
            vec![Link { master: Some(9), ..eth1() }, bridge(9, "br0", None)],
            "uplink 'eth1' of network 'grid' already belongs to 'br0'",
        ),
        (vec![], "uplink 'eth1' of network 'grid' is not there"),
        (vec![bridge(2, "eth1", None)], "uplink 'eth1' of network 'grid' cannot be joined to a bridge"),
        (
            vec![eth1(), bridge(5, "gg0", None)],
            "bridge 'gg0' is there and gridgate did not make it, so 'eth1' is not joined to it",
        ),
    ];
    for (links, expected) in refusals {
        refused(&uplinked, &host(links), expected);
    }
    refused(
        &one(NetworkMode::Bridge, None),
        &host(vec![]),
        "network 'grid' has no uplink, and there is no bridge 'gg0'",
    );
}

#[test]
fn a_bridge_of_the_administrators_that_has_the_uplink_is_used_as_it_is() {
    let facts = host(vec![Link { master: Some(5), ..eth1() }, bridge(5, "gg0", None)]);
    case(&one(NetworkMode::Bridge, Some("eth1")), &facts, &[]);
}

#[test]
fn an_uplink_that_was_left_half_joined_is_brought_up() {
    let uplinks = vec![Uplink { name: "eth1".into(), bridge: "gg0".into(), raised: true }];
    let eth1 = Link { master: Some(5), up: false, ..eth1() };
    let facts = NetFacts { uplinks, ..host(vec![eth1, bridge(5, "gg0", Some(ID))]) };
    let steps = plan(&one(NetworkMode::Bridge, Some("eth1")), &facts, ID).unwrap();
    assert_eq!(said(&steps), ["join interface 'eth1' to bridge 'gg0' and bring it up"]);
}

#[test]
fn addresses_that_the_host_holds_are_refused() {
    let held: IpNet = "192.0.2.10/24".parse().unwrap();
    let eth0 = Link { addresses: vec![held], ..link(2, "eth0", LinkKind::Device) };
    refused(
        &one(NetworkMode::Isolated, None),
        &host(vec![eth0.clone()]),
        "address 192.0.2.10 of guest 'ce' is in use: interface 'eth0' on the host has it",
    );
    case(
        &one(NetworkMode::Rehearsal, None),
        &host(vec![eth0]),
        &[
            "make the site's network namespace",
            "make bridge 'gg0' in the site's namespace",
            "give bridge 'gg0' in the site's namespace the address 192.0.2.1/24",
        ],
    );
    let neighbour =
        Link { addresses: vec!["192.0.2.77/24".parse().unwrap()], ..link(2, "eth0", LinkKind::Device) };
    refused(
        &one(NetworkMode::Nat, None),
        &host(vec![neighbour]),
        "subnet 192.0.2.0/24 of network 'grid' is in use: interface 'eth0' has 192.0.2.77/24",
    );
    let wide = Link { addresses: vec!["192.1.0.5/7".parse().unwrap()], ..link(2, "eth0", LinkKind::Device) };
    assert!(plan(&one(NetworkMode::Nat, None), &host(vec![wide]), ID).is_ok());
}

#[test]
fn all_that_is_wrong_with_translation_is_said_at_once() {
    let mut grid = network(NetworkMode::Nat, "gg\"0", None);
    grid.subnet = "2001:db8::/64".parse().unwrap();
    grid.gateway = None;
    let problems = plan(&site(vec![grid], "2001:db8::10"), &host(vec![]), ID).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn the_rules_of_all_translated_networks_are_one_table() {
    let mut second = network(NetworkMode::Nat, "gg1", None);
    second.subnet = "198.51.100.7/24".parse().unwrap();
    let first = network(NetworkMode::Nat, "gg0", None);
    let rules = ruleset::ruleset("gridgate_x", &[&first, &second]);
    let expected =
        "\t\tip saddr { 192.0.2.0/24, 198.51.100.0/24 } oifname != { \"gg0\", \"gg1\" } masquerade\n";
    assert!(rules.script.contains(expected), "{}", rules.script);
    let swapped = ruleset::ruleset("gridgate_x", &[&second, &first]);
    assert_ne!(rules.comment, swapped.comment);
}

#[test]
fn a_rehearsed_network_without_a_gateway_has_a_bridge_without_an_address() {
    let mut grid = network(NetworkMode::Rehearsal, "gg0", None);
    grid.gateway = None;
    let expected = ["make the site's network namespace", "make bridge 'gg0' in the site's namespace"];
    case(&site(vec![grid], "192.0.2.10"), &host(vec![]), &expected);
}

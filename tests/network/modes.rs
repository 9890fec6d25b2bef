//! Networks of every mode, made, used and taken away.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use gridgate::config::interface::Interface;
use gridgate::config::site::{NetworkMode, Site};
use gridgate::host::Live;
use gridgate::host::net::{Link, Net, Port, in_netns};
use gridgate::names::MacAddr;
use gridgate::network::{apply, endpoint, free, leftovers, namespace, probe_addresses, undo};
use gridgate::plan::network::names;

use crate::lab::{
    GUEST, LIMIT, connect, down, guest, has_nft, link, listen, modes, name, neighbour, planned, private,
    problem, site, snapshot, until_gone, up,
};

#[test]
fn every_mode_up_and_down_leaves_the_host_as_it_was() {
    for (mode, uplink) in modes() {
        private(|paths| {
            neighbour(&paths.run, "eth1");
            let before = snapshot(paths);
            let site = site(mode, uplink);
            up(&site, paths);
            assert_ne!(snapshot(paths), before, "{mode:?}");
            down(paths);
            assert_eq!(snapshot(paths), before, "{mode:?}");
        });
    }
}

#[test]
fn every_plan_can_be_walked_back_from_every_step() {
    for (mode, uplink) in modes() {
        private(|paths| {
            neighbour(&paths.run, "eth1");
            Live.set_down(None, &name("eth1")).unwrap();
            let before = snapshot(paths);
            let steps = planned(&site(mode, uplink), paths);
            for done in 1..=steps.len() {
                for step in &steps[..done] {
                    apply(&Live, paths, step).unwrap();
                }
                for step in steps[..done].iter().rev() {
                    undo(&Live, paths, step).unwrap();
                }
                assert_eq!(snapshot(paths), before, "{mode:?} after {done} steps");
            }
        });
    }
}

#[test]
fn a_rehearsal_touches_nothing_of_the_host() {
    private(|paths| {
        let (links, rules, forward, _) = snapshot(paths);
        up(&site(NetworkMode::Rehearsal, None), paths);
        let (links_up, rules_up, forward_up, files) = snapshot(paths);
        assert_eq!((links_up, rules_up, forward_up), (links, rules, forward));
        assert_eq!(files, [paths.netns()]);
    });
}

fn way_to(site: &Site, links: &[Link], port: u16) -> SocketAddr {
    let guest = &site.guests[0];
    endpoint(guest.address, guest.mac, &site.networks[0].bridge, links, port)
}

#[test]
fn the_namespace_of_a_rehearsal_talks_to_a_guest() {
    private(|paths| {
        let site = site(NetworkMode::Rehearsal, None);
        up(&site, paths);
        let guest = guest(paths, &site, "192.0.2.10/24");
        let listener = listen(&guest, "192.0.2.10:0");
        let netns = namespace(&site, paths);
        let links = Live.links(netns.as_deref()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = way_to(&site, &links, port);
        assert_eq!(to, SocketAddr::new(GUEST.into(), port));
        let from = connect(netns.as_deref(), to, &listener);
        assert_eq!(from.ip().to_string(), "192.0.2.1");
    });
}

#[test]
fn the_host_talks_to_a_guest_of_an_isolated_network_over_its_link_local_address() {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("skipped: this kernel has no IPv6");
        return;
    }
    private(|paths| {
        let site = site(NetworkMode::Isolated, None);
        up(&site, paths);
        let guest = guest(paths, &site, "192.0.2.10/24");
        let listener = listen(&guest, "[::]:0");
        let port = listener.local_addr().unwrap().port();
        let until = Instant::now() + LIMIT;
        // The bridge takes its own link-local address when its first port is up.
        let to = loop {
            let to = way_to(&site, &Live.links(None).unwrap(), port);
            if to.is_ipv6() || Instant::now() > until {
                break to;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(to.ip().to_string(), "fe80::5054:ff:fe00:1");
        connect(None, to, &listener);
    });
}

#[test]
fn a_translated_guest_reaches_the_world_and_the_world_does_not_reach_it() {
    if !has_nft() {
        return;
    }
    private(|paths| {
        let world = neighbour(&paths.run, "eth1");
        Live.add_address(None, &name("eth1"), "198.51.100.1/24".parse().unwrap()).unwrap();
        let site = site(NetworkMode::Nat, None);
        up(&site, paths);
        // Prefixes so short that each side takes the other for a neighbour, and a host that answers for both: as good as
        // routes.
        let guest = guest(paths, &site, "192.0.2.10/2");
        Live.add_address(Some(&world), &name("eth0"), "198.51.100.2/2".parse().unwrap()).unwrap();
        for interface in ["gg0", "eth1"] {
            Live.sysctl_write(None, &format!("net/ipv4/conf/{interface}/proxy_arp"), "1").unwrap();
            Live.sysctl_write(None, &format!("net/ipv4/neigh/{interface}/proxy_delay"), "0").unwrap();
        }

        let listener = listen(&world, "198.51.100.2:0");
        let from = connect(Some(&guest), listener.local_addr().unwrap(), &listener);
        assert_eq!(from.ip().to_string(), "198.51.100.1");

        let listener = listen(&guest, "192.0.2.10:0");
        let to = listener.local_addr().unwrap();
        let inwards = in_netns(Some(&world), || {
            Ok(TcpStream::connect_timeout(&to, Duration::from_millis(300)).map_err(|e| e.kind()).err())
        });
        assert_eq!(inwards.unwrap(), Some(ErrorKind::TimedOut));
        connect(None, to, &listener);
    });
}

#[test]
fn two_translated_sites_share_forwarding_until_the_last_is_down() {
    if !has_nft() {
        return;
    }
    private(|paths| {
        let before = snapshot(paths);
        let mut other = paths.clone();
        other.run = paths.run.with_file_name("89abcdef");
        let first = site(NetworkMode::Nat, None);
        let mut second = first.clone();
        second.networks[0].bridge = name("gg1");
        second.networks[0].subnet = "198.51.100.0/24".parse().unwrap();
        second.networks[0].gateway = Some("198.51.100.1".parse().unwrap());
        up(&first, paths);
        up(&second, &other);
        let forward = || Live.sysctl_read(None, "net/ipv4/ip_forward").unwrap();
        down(paths);
        assert_eq!(forward().as_deref(), Some("1"));
        down(&other);
        assert_eq!(snapshot(paths), before);
    });
}

#[test]
fn a_bridge_of_somebody_elses_is_used_and_left_alone() {
    private(|paths| {
        Live.make_bridge(None, &name("gg0"), "the administrator's").unwrap();
        Live.add_address(None, &name("gg0"), "192.0.2.1/24".parse().unwrap()).unwrap();
        let before = snapshot(paths);
        up(&site(NetworkMode::Bridge, None), paths);
        assert_eq!(snapshot(paths), before);
        down(paths);
        assert_eq!(snapshot(paths), before);
        assert_eq!(
            problem(&site(NetworkMode::Isolated, None), paths),
            "the name 'gg0' is taken by a bridge that gridgate did not make"
        );
    });
}

#[test]
fn a_bridge_whose_name_is_taken_at_the_last_moment_is_not_marked_as_ours() {
    private(|paths| {
        let site = site(NetworkMode::Isolated, None);
        let steps = planned(&site, paths);
        Live.make_bridge(None, &name("gg0"), "somebody else's").unwrap();
        let error = apply(&Live, paths, &steps[0]).unwrap_err();
        assert_eq!(format!("{error:#}"), "making bridge 'gg0': the name is taken");
        assert_eq!(link(None, "gg0").unwrap().alias.as_deref(), Some("somebody else's"));
        undo(&Live, paths, &steps[0]).unwrap();
        assert!(link(None, "gg0").is_some());
    });
}

#[test]
fn an_uplink_with_an_address_is_refused() {
    private(|paths| {
        neighbour(&paths.run, "eth1");
        Live.add_address(None, &name("eth1"), "198.51.100.1/24".parse().unwrap()).unwrap();
        let before = snapshot(paths);
        assert_eq!(
            problem(&site(NetworkMode::Bridge, Some("eth1")), paths),
            "uplink 'eth1' of network 'grid' carries 198.51.100.1/24: joining it would cut the host off"
        );
        assert_eq!(snapshot(paths), before);
    });
}

#[test]
fn an_address_that_a_neighbour_has_is_found_on_the_wire() {
    private(|paths| {
        let neighbour = neighbour(&paths.run, "eth1");
        let mut site = site(NetworkMode::Bridge, Some("eth1"));
        let mut storage = Interface::card("storage".parse().unwrap(), Some(MacAddr([2, 0, 0, 0, 0, 8])));
        storage.addresses = vec!["192.0.2.11/24".parse().unwrap()];
        storage.network = Some(site.guests[0].network.clone());
        site.guests[0].interfaces.push(storage);
        up(&site, paths);
        let ask_for = |limit| probe_addresses(&Live, &site, &site.guests[0], limit).unwrap();
        let ask = || ask_for(Duration::from_secs(2));
        let taken = |address: &str| Some((address.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 9])));
        assert_eq!(ask_for(Duration::from_millis(200)), None);
        Live.add_address(Some(&neighbour), &name("eth0"), "192.0.2.11/24".parse().unwrap()).unwrap();
        assert_eq!(ask(), taken("192.0.2.11"), "of a further card");
        Live.add_address(Some(&neighbour), &name("eth0"), "192.0.2.10/24".parse().unwrap()).unwrap();
        assert_eq!(ask(), taken("192.0.2.10"));
    });
}

#[test]
fn what_a_killed_command_left_is_found_and_freed_unless_a_guest_is_on_it() {
    for (mode, uplink) in modes() {
        private(|paths| {
            neighbour(&paths.run, "eth1");
            let before = snapshot(paths);
            let site = site(mode, uplink);
            up(&site, paths);
            let guest = &site.guests[0];
            let port = Port {
                name: &names::port_name(&paths.id(), &guest.name, site.rehearsed()).unwrap(),
                bridge: &name("gg0"),
                alias: &names::guest_alias(&paths.id(), &guest.name),
            };
            let tap = Live.open_tap(namespace(&site, paths).as_deref(), port, None).unwrap();
            assert_eq!(leftovers(&Live, paths).unwrap(), [], "{mode:?}");
            drop(tap);
            until_gone(namespace(&site, paths).as_deref(), port.name.as_str());
            for leftover in leftovers(&Live, paths).unwrap() {
                free(&Live, paths, &leftover).unwrap();
            }
            assert_eq!(snapshot(paths), before, "{mode:?}");
            assert_eq!(leftovers(&Live, paths).unwrap(), [], "{mode:?}");
        });
    }
}

//! Taps, cables and namespaces.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use gridgate::config::site::NetworkMode;
use gridgate::host::Live;
use gridgate::host::net::{LinkKind, Net, Port};
use gridgate::host::programs::{Program, Programs};
use gridgate::names::MacAddr;
use gridgate::network::{free, leftovers};
use nix::mount::{MsFlags, mount};

use crate::lab::{GUEST_MAC, link, name, private, site, until_gone, up};

#[test]
fn a_tap_vanishes_with_its_descriptor() {
    private(|paths| {
        let ns = paths.netns();
        Live.make_netns(&ns).unwrap();
        for ns in [None, Some(ns.as_path())] {
            Live.make_bridge(ns, &name("gg0"), "test").unwrap();
            let port = Port { name: &name("gg-ce"), bridge: &name("gg0"), alias: "gridgate:test:ce" };
            let mac = MacAddr([2, 0, 0, 0, 0, 7]);
            let tap = Live.open_tap(ns, port, Some(mac)).unwrap();
            let made = link(ns, "gg-ce").unwrap();
            assert_eq!((made.kind, made.up, made.mac), (LinkKind::Tap, true, Some(mac)));
            assert_eq!(made.master, Some(link(ns, "gg0").unwrap().index));
            assert_eq!(made.alias.as_deref(), Some("gridgate:test:ce"));
            assert_eq!(ns.is_some(), link(None, "gg-ce").is_none());
            let second = Live.open_tap(ns, port, None).unwrap_err();
            assert_eq!(
                format!("{second:#}"),
                "making tap 'gg-ce': the name is taken: another process has this tap open, or another interface is called so"
            );
            drop(tap);
            until_gone(ns, "gg-ce");
        }
    });
}

#[test]
fn a_tap_without_its_bridge_is_not_left_behind() {
    private(|_| {
        let port = Port { name: &name("gg-ce"), bridge: &name("gg0"), alias: "test" };
        let error = Live.open_tap(None, port, None).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "making tap 'gg-ce': there is no bridge 'gg0'; 'gridgate up' makes it"
        );
        assert_eq!(link(None, "gg-ce"), None);
    });
}

#[test]
fn a_cable_ends_in_the_guests_namespace_with_name_and_mac_and_goes_with_it() {
    private(|_| {
        Live.make_bridge(None, &name("gg0"), "test").unwrap();
        let ns = Live.fresh_netns().unwrap();
        let port = Port { name: &name("gg-ce"), bridge: &name("gg0"), alias: "test" };
        Live.make_veth(None, port, ns.as_fd(), &name("host0"), GUEST_MAC).unwrap();
        let again = Live.make_veth(None, port, ns.as_fd(), &name("host0"), GUEST_MAC).unwrap_err();
        assert_eq!(
            format!("{again:#}"),
            "making virtual cable 'gg-ce': the name is taken, here or by 'host0' in the guest's namespace"
        );
        let here = link(None, "gg-ce").unwrap();
        assert_eq!((here.kind, here.up), (LinkKind::Veth, true));
        assert_eq!(here.master, Some(link(None, "gg0").unwrap().index));

        let path = PathBuf::from(format!("/proc/self/fd/{}", ns.as_raw_fd()));
        let bound = tempfile::NamedTempFile::new().unwrap();
        mount(Some(&path), bound.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let there = link(Some(bound.path()), "host0").unwrap();
        assert_eq!((there.mac, there.up), (Some(GUEST_MAC), false));
        assert!(link(Some(bound.path()), "lo").unwrap().up);
        Live.remove_netns(bound.path()).unwrap();

        drop(ns);
        until_gone(None, "gg-ce");
    });
}

#[test]
fn a_namespace_may_be_made_and_removed_twice() {
    private(|paths| {
        let path = paths.netns();
        assert!(!Live.netns_exists(&path).unwrap());
        Live.make_netns(&path).unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        Live.make_netns(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert!(Live.netns_exists(&path).unwrap());
        Live.remove_netns(&path).unwrap();
        Live.remove_netns(&path).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_plain_file_is_not_taken_for_a_namespace() {
    private(|paths| {
        let path = paths.netns();
        std::fs::create_dir_all(&paths.run).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(!Live.netns_exists(&path).unwrap());
        let error = format!("{:#}", Live.open_netns(&path).unwrap_err());
        assert!(error.ends_with("it is a plain file"), "{error}");
        let found = leftovers(&Live, paths).unwrap();
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["the network namespace of the site"]
        );
        free(&Live, paths, &found[0]).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_jumbo_bridge_gets_jumbo_ports() {
    if Live.find_program("ip").is_none() {
        eprintln!("skipped: this test sets the size of packets with the program 'ip'");
        return;
    }
    private(|paths| {
        let site = site(NetworkMode::Isolated, None);
        up(&site, paths);
        Live.run(&Program::new("ip").args(["link", "set", "gg0", "mtu", "9000"])).unwrap();
        let port = Port { name: &name("gg-ce"), bridge: &name("gg0"), alias: "test" };
        let _tap = Live.open_tap(None, port, None).unwrap();
        assert_eq!(link(None, "gg-ce").unwrap().mtu, 9000);
        assert_eq!(link(None, "gg0").unwrap().mtu, 9000);
    });
}

//! Which renderer gets the interfaces, and what becomes of the others.

use gridgate::identity::network::found::{Found, Renderer};

use crate::trees::{Distribution, Guest, found};
use crate::{card, identity, personalise};

fn notes(guest: &Guest) -> Vec<String> {
    let notes = personalise(&guest.root, &identity(vec![card("net0", 1)])).notes;
    notes.iter().map(|note| note.to_string()).collect()
}

#[test]
fn each_distribution_has_its_renderer() {
    let chosen: Vec<String> =
        Distribution::ALL.iter().map(|one| found(*one).renderer().to_string()).collect();
    assert_eq!(
        chosen,
        [
            "ifupdown",
            "systemd-networkd",
            "NetworkManager",
            "ifupdown",
            "netplan",
            "network-scripts",
            "network-scripts",
            "NetworkManager",
            "SUSE's ifcfg files",
        ]
    );
}

#[test]
fn of_two_that_come_up_the_one_that_has_the_cards_keeps_them_and_the_other_is_told() {
    let guest = Guest::new(Distribution::DebianIfupdown);
    guest.enable("NetworkManager.service");
    let told = notes(&guest);
    assert_eq!(told, ["NetworkManager comes up beside ifupdown, which has the interfaces: it gets none"],);
    let unmanaged = guest.text("etc/NetworkManager/conf.d/10-gridgate.conf");
    assert!(unmanaged.ends_with("[keyfile]\nunmanaged-devices=interface-name:net0\n"), "{unmanaged}");
    assert_eq!(notes(&guest), told, "the second time it is the same");
    std::fs::remove_file(
        guest.dir.path().join("etc/systemd/system/multi-user.target.wants/NetworkManager.service"),
    )
    .unwrap();
    assert_eq!(notes(&guest), Vec::<String>::new());
    assert!(!guest.has("etc/NetworkManager/conf.d/10-gridgate.conf"));
}

#[test]
fn a_conflict_is_told_of_and_the_loser_has_no_card_left() {
    let guest = Guest::new(Distribution::DebianNetworkd);
    guest.enable("networking.service");
    guest.file("etc/network/interfaces.d/en", "iface ens3 inet dhcp\n");
    let told = notes(&guest);
    assert_eq!(
        told,
        [
            "ifupdown comes up beside systemd-networkd, which has the interfaces: its files for network cards were taken away"
        ]
    );
    assert!(!guest.has("etc/network/interfaces.d/en"));
    assert!(guest.text("etc/network/interfaces").ends_with("\nauto lo\niface lo inet loopback\n"));
}

#[test]
fn one_that_does_not_come_up_is_enabled_where_nothing_else_is_there() {
    let guest = Guest::empty();
    guest.systemd();
    guest.file("usr/lib/systemd/system/systemd-networkd.service", "");
    assert_eq!(notes(&guest), ["systemd-networkd did not come up at boot and was enabled"]);
    assert!(guest.has("etc/systemd/system/multi-user.target.wants/systemd-networkd.service"));
    assert_eq!(notes(&guest), Vec::<String>::new());
}

#[test]
fn where_presets_would_have_decided_at_the_first_boot_they_decide_now() {
    let guest = Guest::empty();
    guest.systemd();
    for unit in ["systemd-networkd.service", "NetworkManager.service"] {
        guest.file(&format!("usr/lib/systemd/system/{unit}"), "");
    }
    let presets = "usr/lib/systemd/system-preset";
    guest.file(&format!("{presets}/90-default.preset"), "enable NetworkManager.service\ndisable *\n");
    assert_eq!(Found::look(&guest.root).unwrap().renderer(), Renderer::Keyfile);
    guest.file(
        "etc/systemd/system-preset/10-site.preset",
        "enable systemd-networkd.*\ndisable NetworkManager*\n",
    );
    assert_eq!(Found::look(&guest.root).unwrap().renderer(), Renderer::Networkd);
}

#[test]
fn a_guest_in_which_nothing_brings_a_network_up_is_told_of() {
    let told = notes(&Guest::empty());
    assert_eq!(told, ["nothing here brings a network up at boot; the files are for systemd-networkd"]);
}

#[test]
fn netplan_makes_files_for_whom_it_made_them_before() {
    let guest = Guest::new(Distribution::Ubuntu);
    guest.enable("NetworkManager.service");
    guest.file("etc/netplan/99-nm.yaml", "network:\n  renderer: NetworkManager\n  ethernets: {}\n");
    personalise(&guest.root, &identity(vec![card("net0", 1)]));
    assert!(guest.text("etc/netplan/90-gridgate.yaml").contains("\n  renderer: NetworkManager\n"));
    assert!(!guest.has("etc/netplan/99-nm.yaml"));
}

#[test]
fn resolved_that_comes_up_keeps_its_link_and_is_told_by_those_who_cannot_tell_it_otherwise() {
    let guest = Guest::new(Distribution::DebianIfupdown);
    guest.enable("systemd-resolved.service");
    std::fs::remove_file(guest.path("etc/resolv.conf")).unwrap();
    guest.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    notes(&guest);
    let link = std::fs::read_link(guest.path("etc/resolv.conf")).unwrap();
    assert_eq!(link.to_str(), Some("../run/systemd/resolve/stub-resolv.conf"));
    let resolved = guest.text("etc/systemd/resolved.conf.d/10-gridgate.conf");
    assert!(
        resolved.ends_with("[Resolve]\nDNS=10.77.0.2 2001:db8:77::2\nDomains=example.org grid.example.org\n")
    );
}

#[test]
fn an_interface_that_the_site_no_longer_has_is_gone_from_the_guest() {
    for distribution in Distribution::ALL {
        let guest = Guest::new(distribution);
        let both = identity(vec![card("net0", 1), card("storage", 2)]);
        personalise(&guest.root, &both);
        personalise(&guest.root, &identity(vec![card("net0", 1)]));
        let fresh = Guest::new(distribution);
        personalise(&fresh.root, &identity(vec![card("net0", 1)]));
        let (mut now, mut expected) = (String::new(), String::new());
        crate::listing(&guest.root, "/etc".as_ref(), &mut now);
        crate::listing(&fresh.root, "/etc".as_ref(), &mut expected);
        assert_eq!(now, expected, "{distribution:?}");
    }
}

#[test]
fn traps_in_place_of_network_files_are_replaced_and_lead_nowhere() {
    let guest = Guest::new(Distribution::DebianNetworkd);
    guest.file("outside", "host");
    let etc = "etc/systemd/network";
    guest.link(&format!("{etc}/11-gridgate-net0.network"), "/outside");
    nix::unistd::mkfifo(&guest.path(&format!("{etc}/05-wait.network")), nix::sys::stat::Mode::S_IRWXU)
        .unwrap();
    std::fs::create_dir(guest.path(&format!("{etc}/06-dir.network"))).unwrap();
    notes(&guest);
    assert_eq!(guest.text("outside"), "host");
    assert!(guest.text(&format!("{etc}/11-gridgate-net0.network")).contains("[Match]"));
    assert!(!guest.has(&format!("{etc}/05-wait.network")));
}

#[test]
fn a_directory_with_more_files_than_any_machine_has_is_refused_without_reading_them() {
    let guest = Guest::new(Distribution::DebianNetworkd);
    for number in 0..2100 {
        guest.file(&format!("etc/systemd/network/{number}.network"), "");
    }
    let why = Found::look(&guest.root).unwrap_err();
    assert_eq!(
        why.to_string(),
        "looking at '/etc/systemd/network' in the guest: it has more than 2000 entries"
    );
}

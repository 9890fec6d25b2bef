//! Whole sites: what is merged, derived, checked, and told of.

use std::net::IpAddr;
use std::time::Duration;

use gridgate::config::example::{self, Format};
use gridgate::config::site::{BackendChoice, NetworkMode, ReadyCheck, Site};
use gridgate::config::{LoadOptions, Loaded};

use crate::SITE;
use crate::described::{loaded, loaded_with, options, told};

const SITE_CONF: &str = "SITE_NAME=s DOMAIN=s.test\nNETWORK_MODE=nat NETWORK_SUBNET=10.1.0.0/24\n";

fn names(site: &Site) -> Vec<&str> {
    site.guests.iter().map(|g| g.name.as_str()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn both_forms_of_the_example_are_the_same_site() {
    let [toml, shell] = [Format::Toml, Format::Shell].map(|format| loaded(example::files(format)));
    assert_eq!(toml, shell);
    assert_eq!(names(&toml), ["ce", "se", "ui", "wn"]);
    assert_eq!(toml.networks[0].mode, NetworkMode::Rehearsal);
    assert_eq!(toml.networks[0].gateway, Some(address("10.77.0.1")));
    let wn = &toml.guests[3];
    assert_eq!(wn.fqdn, "wn.my-site.internal");
    assert_eq!(wn.address, address("10.77.0.13"));
    assert_eq!(wn.after.iter().map(|g| g.as_str()).collect::<Vec<_>>(), ["ce"]);
    assert_eq!(wn.ready, [ReadyCheck::Login, ReadyCheck::Tcp(22)]);
    assert_eq!((wn.memory_bytes.mib(), wn.disk_bytes.mib()), (256, 2048));
    assert_eq!(wn.backend, BackendChoice::Auto);
}

#[test]
fn forms_can_be_mixed_and_say_the_same() {
    let toml = "role = \"ce\"\naddress = \"10.1.0.9/24\"\nmemory = \"512M\"\ncpus = 2\nautostart = false\n\
                mac = \"52:54:00:00:00:01\"\nready = [\"login\", \"tcp:22\"]\nready_timeout = \"90s\"\n\
                kernel_args = \"quiet a=b\"\ndescription = \"it's\"\nhostname = \"c.x.test\"\n";
    let shell = "export ROLE=ce IPADDR=10.1.0.9 NETMASK=255.255.255.0\n_mib=512\nMEMORY=$_mib VCPUS=2\nONBOOT=no\n\
                 HWADDR=52-54-00-00-00-01\nREADY='login tcp:22' READY_TIMEOUT=90\nKERNEL_ARGS=quiet\\ a=b\n\
                 DESCRIPTION=$'it\\'s'\nHOSTNAME=c.x.test\n";
    let all = [
        [("site.toml", SITE), ("guests/ce.toml", toml)],
        [("site.toml", SITE), ("guests/ce.conf", shell)],
        [("site.conf", SITE_CONF), ("guests/ce.toml", toml)],
        [("site.conf", SITE_CONF), ("guests/ce.conf", shell)],
    ];
    let sites = all.map(|files| loaded(&files));
    assert!(sites.iter().all(|site| *site == sites[0]), "{sites:#?}");
    let guest = &sites[0].guests[0];
    assert_eq!((guest.cpus, guest.autostart, guest.ready_timeout), (2, false, Duration::from_secs(90)));
    assert_eq!((guest.fqdn.as_str(), guest.description.as_str()), ("c.x.test", "it's"));
}

#[test]
fn shell_variables_name_more_networks_and_defaults() {
    let site = loaded(&[
        (
            "site.conf",
            "SITE_NAME=s\nNETWORK_MODE=nat NETWORK_SUBNET=10.1.0.0/24\nNETWORK_DMZ_A_MODE=isolated\n\
             NETWORK_DMZ_A_SUBNET=10.2.0.0/24\nDEFAULT_NETWORK=dmz-a DEFAULT_MEMORY=64\nDNS='10.1.0.53 ::1'\n",
        ),
        ("guests/x.conf", ""),
        ("guests/y.conf", "NETWORK=lan"),
    ]);
    let networks: Vec<&str> = site.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(networks, ["lan", "dmz-a"]);
    assert_eq!((site.guests[0].address, site.guests[0].gateway), (address("10.2.0.1"), None));
    assert_eq!(
        (site.guests[1].address, site.guests[1].gateway),
        (address("10.1.0.2"), Some(address("10.1.0.1")))
    );
    assert_eq!(site.guests[0].memory_bytes.mib(), 64);
    assert_eq!(site.dns, [address("10.1.0.53"), address("::1")]);
    assert_eq!(site.domain, "s.internal");
    assert_eq!(site.networks[1].bridge.as_str(), "gg-dmz-a");
}

#[test]
fn later_wins_key_by_key_and_every_value_tells_where_it_came_from() {
    let site = "name = \"s\"\n[networks.lan]\nmode = \"nat\"\nsubnet = \"10.1.0.0/24\"\n[defaults]\nmemory = \"100M\"\n\
                disk = \"3G\"\nprofile = \"base\"\ncpus = 3\nconsole_log = \"1M\"\n";
    let files = [
        ("site.toml", site),
        ("templates/big.toml", "extends = \"node\"\nmemory = \"300M\"\ndescription = \"big\"\n"),
        ("templates/node.conf", "MEMORY=200\nDISK=5G\nCONSOLE_LOG=2M\n"),
        ("guests/ce.toml", "extends = \"big\"\ndisk = \"6G\"\n"),
    ];
    let Loaded { site, explain } = loaded_with(&files, &options(&["ce.cpus=4", "defaults.memory=1G"]));
    let guest = &site.guests[0];
    assert_eq!(
        guest.memory_bytes.mib(),
        300,
        "the last template over the first, the defaults and the command line's"
    );
    assert_eq!(guest.disk_bytes.mib(), 6144, "the guest's file over its template");
    assert_eq!(guest.profile, "ce", "the role over the site's defaults");
    assert_eq!(guest.description, "big", "the template over the role");
    assert_eq!(guest.console_log_bytes.mib(), 2, "the template of the template over the site's defaults");
    assert_eq!(guest.cpus, 4, "the command line over all");
    let memory = explain.find("ce.memory").unwrap();
    let overrides: Vec<&str> = memory[0].overrides.iter().map(|o| o.value.as_str()).collect();
    assert_eq!(overrides, ["\"200M\"", "\"1G\"", "\"100M\"", "\"256M\""]);
    assert!(memory[0].origin.ends_with("templates/big.toml:2:10"), "{}", memory[0].origin);
    assert!(memory[0].overrides[0].origin.ends_with("templates/node.conf:1:8"));
    assert_eq!(memory[0].overrides[1].origin, "--set defaults.memory=1G");
    assert_eq!(memory[0].overrides[3].origin, "shipped default");
    assert_eq!(explain.find("memory").unwrap(), memory);
    assert_eq!(explain.find("profile").unwrap()[0].origin, "shipped default of role 'ce'");
    assert_eq!(
        explain.find("ce.mac").unwrap()[0].origin,
        "derived from the names of site 's' and guest 'ce'"
    );
    assert_eq!(explain.find("domain").unwrap()[0].origin, "derived from the site's name");
    assert_eq!(explain.find("networks.lan.bridge").unwrap()[0].value, "\"gg-lan\"");
    assert_eq!(explain.find("ce.memroy").unwrap_err(), "did you mean 'ce.memory'?");
}

#[test]
fn counted_guests_count_their_addresses_up() {
    let wn = "count = 3\naddress = \"10.1.0.20\"\nmac = \"52:54:00:00:00:ff\"\nhostname = \"node\"\n";
    let files = [("site.toml", SITE), ("guests/ce.toml", "after = [\"wn\"]"), ("guests/wn.toml", wn)];
    // A worker node waits for the computing element by its role; here it is the other way round.
    let set = options(&["wn.after=", "wn2.address=10.1.0.99", "wn3.memory=64M", "wn.cpus=2"]);
    let site = loaded_with(&files, &set).site;
    assert_eq!(names(&site), ["ce", "wn1", "wn2", "wn3"]);
    let addresses: Vec<String> = site.guests.iter().map(|g| g.address.to_string()).collect();
    assert_eq!(addresses[1..], ["10.1.0.20", "10.1.0.99", "10.1.0.22"]);
    let macs: Vec<String> = site.guests.iter().map(|g| g.mac.to_string()).collect();
    assert_eq!(macs[1..], ["52:54:00:00:00:ff", "52:54:00:00:01:00", "52:54:00:00:01:01"]);
    assert_eq!(site.guests[2].fqdn, "node2.s.test");
    assert_eq!(site.guests[3].memory_bytes.mib(), 64);
    assert!(site.guests[1..].iter().all(|g| g.cpus == 2 && g.role == "wn"));
    let after: Vec<&str> = site.guests[0].after.iter().map(|g| g.as_str()).collect();
    assert_eq!(after, ["wn1", "wn2", "wn3"]);
    let one = loaded(&[("site.toml", SITE), ("guests/wn.toml", "count = 1")]);
    assert_eq!(names(&one), ["wn1"]);
}

#[test]
fn derived_values_are_free_stable_and_in_the_order_of_names() {
    let files = [
        ("site.toml", &*format!("dns = [\"10.1.0.3\"]\n{SITE}")),
        ("guests/b.toml", ""),
        ("guests/a.toml", "address = \"10.1.0.2\""),
        ("guests/n.toml", "count = 11"),
    ];
    let site = loaded(&files);
    assert_eq!(site, loaded(&files));
    let address_of = |name: &str| site.guest(&name.parse().unwrap()).unwrap().address.to_string();
    assert_eq!(address_of("b"), "10.1.0.4", ".1 is the gateway, .2 is a's, .3 is the name server");
    assert_eq!(address_of("n1"), "10.1.0.5");
    assert_eq!(address_of("n2"), "10.1.0.6");
    assert_eq!(address_of("n11"), "10.1.0.15");
    // These are promises: a guest keeps its address on the wire when gridgate is upgraded.
    assert_eq!(site.guests[0].mac.to_string(), "52:54:00:d0:f6:47");
    assert_eq!(site.networks[0].gateway, Some(address("10.1.0.1")));
}

#[test]
fn one_switch_rehearses_a_real_site() {
    let site =
        "name = \"s\"\n[networks.lan]\nmode = \"bridge\"\nuplink = \"eth0\"\nsubnet = \"10.1.0.0/24\"\n";
    let files = [("site.toml", site), ("guests/a.toml", "address = \"10.1.0.1\"")];
    let real = loaded(&files);
    assert_eq!(real.networks[0].uplink.as_ref().map(|u| u.as_str()), Some("eth0"));
    assert_eq!(real.networks[0].gateway, None);
    for rehearsed in [
        loaded_with(&files, &LoadOptions { rehearsal: true, ..LoadOptions::default() }).site,
        loaded_with(&files, &options(&["rehearsal=yes"])).site,
        loaded(&[("site.toml", &format!("rehearsal = true\n{site}")), files[1]]),
    ] {
        assert!(rehearsed.rehearsed());
        let network = &rehearsed.networks[0];
        assert_eq!(
            (&network.uplink, network.gateway),
            (&None, Some(address("10.1.0.2"))),
            "a's address stays a's"
        );
        assert_eq!(rehearsed.guests[0].address, real.guests[0].address);
        assert_eq!(rehearsed.guests[0].mac, real.guests[0].mac);
    }
}

#[test]
fn guests_are_those_that_are_listed_in_their_order_or_all() {
    let files =
        [("guests/b.toml", ""), ("guests/a.conf", ""), ("guests/notes.txt", "?"), ("guests/.c.toml", "?")];
    let all = [&[("site.toml", SITE)], &files[..]].concat();
    assert_eq!(names(&loaded(&all)), ["a", "b"]);
    let listed = format!("guests = [\"b\", \"a\"]\n{SITE}");
    assert_eq!(names(&loaded(&[&[("site.toml", listed.as_str())], &files[..]].concat())), ["b", "a"]);
    let listed = format!("guests = [\"b\",\n \"aa\", \"b\"]\n{SITE}");
    let told = told(&[&[("site.toml", listed.as_str())], &files[..]].concat());
    let missing = "site.toml:2:2: there is no file 'guests/aa.toml' or 'guests/aa.conf'";
    assert_eq!(told, [missing, "site.toml:2:8: guest 'b' is listed twice"]);
}

#[test]
fn who_may_read_consoles_and_what_is_kept_of_them_is_asked_for() {
    let site = loaded(&[("site.toml", SITE), ("guests/ce.toml", "role = \"ce\"\n")]);
    assert_eq!((site.admin_group, site.guests[0].console_record), (None, false));
    let conf = format!("{SITE_CONF}ADMIN_GROUP=operators\n");
    let site = loaded(&[("site.conf", &conf), ("guests/ce.conf", "ROLE=ce\nCONSOLE_RECORD=yes\n")]);
    assert_eq!((site.admin_group.as_deref(), site.guests[0].console_record), (Some("operators"), true));
    let bad = format!("admin_group = \"0 wheel\"\n{SITE}");
    assert_eq!(
        told(&[("site.toml", &bad), ("guests/ce.toml", "")]),
        ["site.toml:1:15: admin_group '0 wheel' is not the name of a group"]
    );
}

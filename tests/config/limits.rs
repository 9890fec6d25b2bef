//! How much of the host a guest may use, as sites say it and as `gridgate limit` changes it.

use gridgate::config::site::Site;
use gridgate::config::{LoadOptions, Loaded, load};

use crate::SITE;
use crate::described::{directory, loaded_with, options};

fn loaded(files: &[(&str, &str)], set: &[&str]) -> Loaded {
    loaded_with(files, &options(set))
}

/// With the hints.
fn told(guest: &str) -> Vec<String> {
    let dir = directory(&[("site.toml", SITE), ("guests/ce.toml", guest)]);
    let problems = load(dir.path(), &LoadOptions::default()).expect_err("this site has problems");
    let prefix = format!("{}/guests/", dir.path().display());
    problems.iter().map(|p| format!("{p}").replace(&prefix, "")).collect()
}

fn limits(site: &Site, guest: &str) -> String {
    site.guest(&guest.parse().unwrap()).unwrap().limits.to_string()
}

#[test]
fn limits_are_merged_key_by_key_and_none_lifts_one() {
    let site = format!("{SITE}[defaults.limits]\ncpu = \"50%\"\npids = 500\nnet_in = \"1M\"\n");
    let template = "[limits]\ncpu = \"70%\"\ncpu_weight = 20\n";
    let ce = "extends = \"t\"\n[limits]\nnet_in = \"none\"\nmemory = \"1G\"\n";
    let files = [
        ("site.toml", site.as_str()),
        ("templates/t.toml", template),
        ("guests/ce.toml", ce),
        ("guests/ui.toml", ""),
    ];
    let both = loaded(&files, &["ce.limits.pids=300", "defaults.limits.disk_write=2M"]);
    assert_eq!(limits(&both.site, "ce"), "cpu=70% cpu_weight=20 memory=1G pids=300 disk_write=2M");
    assert_eq!(limits(&both.site, "ui"), "cpu=50% pids=500 disk_write=2M net_in=1M");
    let explained = both.explain.find("ce.limits.cpu").unwrap();
    assert_eq!(explained.len(), 1);
    assert!(explained[0].origin.ends_with("templates/t.toml:2:7"), "{:?}", explained[0]);
    assert_eq!(explained[0].value, "\"70%\"");
    assert_eq!(explained[0].overrides[0].value, "\"50%\"");
}

#[test]
fn shell_variables_say_the_same_as_toml() {
    let conf = "SITE_NAME=s NETWORK_MODE=nat NETWORK_SUBNET=10.1.0.0/24\nDEFAULT_LIMIT_CPU=50\n";
    let guest = "LIMIT_MEMORY=512 LIMIT_DISK_READ=10M LIMIT_DISK_WRITE_OPS=7 LIMIT_NET_OUT=2M\n";
    let site = loaded(&[("site.conf", conf), ("guests/ce.conf", guest)], &[]).site;
    assert_eq!(limits(&site, "ce"), "cpu=50% memory=512M disk_read=10M disk_write_ops=7 net_out=2M");
}

#[test]
fn a_wrong_limit_is_refused_where_it_stands_and_with_a_hint() {
    assert_eq!(
        told("[limits]\ncpu = 50\n"),
        ["ce.toml:2:7: cpu '50' has no '%'; 100% is one processor\n  hint: for example: cpu = \"50%\""]
    );
    assert_eq!(
        told("[limits]\nmemroy = \"1G\"\n"),
        ["ce.toml:2:1: unknown key 'memroy'\n  hint: did you mean 'memory'?"]
    );
    assert_eq!(
        told("[limits]\nquota = \"5%\"\n"),
        ["ce.toml:2:1: unknown key 'quota'\n  hint: it is called 'cpu' here"]
    );
    assert!(told("limits = \"50%\"\n")[0].contains("limits must be a table, not text"));
    assert!(told("[limits]\npids = true\n")[0].contains("pids must be a whole number"));
    assert!(told("[limits]\nnet_in = \"1K\"\n")[0].contains("is less than 6K"));
}

#[test]
fn a_memory_limit_that_a_guest_could_not_boot_with_is_refused() {
    let guest = "backend = \"uml\"\nmemory = \"256M\"\n[limits]\nmemory = \"260M\"\n";
    assert_eq!(
        told(guest),
        ["ce.toml:4:10: a limit of 260M is too little for 256M of memory and its hypervisor\n  \
          hint: limits.memory = \"288M\" is the least that a guest lives with, or give it less memory"]
    );
    // A container has no memory of its own.
    let files =
        [("site.toml", SITE), ("guests/ce.toml", "backend = \"nspawn\"\n[limits]\nmemory = \"64M\"\n")];
    assert_eq!(limits(&loaded(&files, &[]).site, "ce"), "memory=64M");
}

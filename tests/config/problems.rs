//! What is wrong with a site, and how it is told.

use std::fs;
use std::path::Path;

use gridgate::config::{LoadOptions, load};

use crate::SITE;
use crate::described::{directory, loaded, loaded_with, options, told, told_with};

const SITE_CONF: &str = "SITE_NAME=s DOMAIN=s.test\nNETWORK_MODE=nat NETWORK_SUBNET=10.1.0.0/24\n";

/// Problems of one guest's file in a good site.
fn told_of_guest(content: &str) -> Vec<String> {
    told(&[("site.toml", SITE), ("guests/ce.toml", content)])
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_files_and_lines() {
    let files = [
        (
            "site.toml",
            "name = \"S!\"\ncolour = 1\n[networks.lan]\nmode = \"nat\"\nsubnet = \"10.1.0.0/24\"\n",
        ),
        ("guests/a.toml", "memroy = 1\nmemory = \"5X\"\naddress = \"10.2.0.1\"\n"),
        ("guests/b.conf", "MEMORY=8\nCPUS=many\nIPADDR=10.1.0.1\nAFTER=c\n"),
        ("guests/d.toml", "x = \n"),
        ("guests/e.conf", "A=1 | sh\n"),
    ];
    assert_eq!(
        told(&files),
        [
            "guests/a.toml:1:1: unknown key 'memroy'",
            "guests/a.toml:2:10: memory '5X' has an unknown unit; use K, M, G or T",
            "guests/a.toml:3:11: address 10.2.0.1 is outside network 'lan', 10.1.0.0/24",
            "guests/b.conf:1:8: MEMORY '8M' is less than 32M",
            "guests/b.conf:2:6: CPUS must be a whole number, not text",
            "guests/b.conf:4:7: unknown guest 'c'",
            "guests/d.toml:1:5: string values must be quoted, expected literal string",
            "guests/e.conf:1:5: '|' is a pipe between commands",
            "site.toml:1:8: name 'S!' may have only lower-case letters, digits and '-'",
            "site.toml:2:1: unknown key 'colour'",
        ]
    );
}

#[test]
fn a_wrong_value_is_told_with_what_would_be_right() {
    for (content, expected) in [
        ("memory = 512", "memory 512 has no unit"),
        ("memory = \"512\"", "memory '512' has no unit"),
        ("memory = \"16M\"", "memory '16M' is less than 32M"),
        ("memory = 1.5", "memory must be a size as text, not a number with a fraction"),
        ("cpus = \"2\"", "cpus must be a whole number, not text"),
        ("cpus = 0", "cpus 0 is not between 1 and 256"),
        ("cpus = 99999999999999999999", "the number 99999999999999999999 is too large"),
        ("autostart = \"yes\"", "autostart must be true or false, not text"),
        ("after = \"se\"", "after must be a list of texts, not text"),
        ("after = [1]", "after must be text, not a number"),
        ("after = [\"nobody\"]", "unknown guest 'nobody'"),
        ("needs = [\"role:xx\"]", "no other guest has the role 'xx'"),
        ("address = \"10.1.0.300\"", "address '10.1.0.300' is not an address"),
        ("address = \"10.1.0.0\"", "address 10.1.0.0 is that of network 'lan' itself"),
        ("address = \"10.1.0.255\"", "address 10.1.0.255 reaches all of network 'lan'"),
        ("address = \"10.1.0.9/16\"", "a prefix of 16 bits is not that of network 'lan', 10.1.0.0/24"),
        ("prefix = 16", "a prefix of 16 bits is not that of network 'lan', 10.1.0.0/24"),
        ("gateway = \"10.9.0.1\"", "gateway 10.9.0.1 is no host's address in network 'lan', 10.1.0.0/24"),
        (
            "mac = \"01:00:00:00:00:00\"",
            "mac '01:00:00:00:00:00' is a multicast address; the first byte must be even",
        ),
        ("network = \"lam\"", "unknown network 'lam'"),
        ("profile = \"basic\"", "unknown profile 'basic'"),
        ("image = \"debian-99\"", "unknown image 'debian-99'"),
        ("backend = \"xen\"", "backend 'xen' is not supported yet"),
        ("backend = \"kvm\"", "backend 'kvm' is not a backend; auto, qemu, uml and nspawn are"),
        ("extends = \"none\"", "there is no template 'none'"),
        ("ready = [\"tcp:0\"]", "ready 'tcp:0' has no port between 1 and 65535"),
        ("ready = [\"console:(\"]", "ready 'console:(' is not a good regular expression"),
        ("ready_timeout = 90", "ready_timeout 90 has no unit"),
        ("stop_timeout = \"9d\"", "stop_timeout '9d' must be a time such as 90s, 2min or 1h"),
        ("hostname = \"Ce\"", "hostname 'Ce' must be in lower case"),
        ("description = \"a\\nb\"", "description 'a\\nb' must be one line without control characters"),
        ("count = 0", "count 0 is not between 1 and 1000"),
    ] {
        let told = told_of_guest(content);
        assert_eq!(told.len(), 1, "{content}: {told:?}");
        assert_eq!(told[0].split_once(": ").unwrap().1, expected);
        assert!(told[0].starts_with("guests/ce.toml:1:"), "{}", told[0]);
    }
}

#[test]
fn backends_refuse_what_they_cannot_do() {
    let told = told_of_guest("backend = \"nspawn\"\nkernel_args = \"quiet\"");
    assert_eq!(
        told,
        ["guests/ce.toml:2:15: a guest of backend 'nspawn' has no kernel of its own for kernel_args"]
    );
    let told = told_of_guest("cpus = 2\nbackend = \"uml\"");
    assert_eq!(told, ["guests/ce.toml:1:8: user-mode Linux runs one processor, not 2"]);
}

#[test]
fn two_guests_never_share_a_name_or_an_address() {
    let twice = [
        ("site.toml", SITE),
        ("guests/a.toml", "address = \"10.1.0.5\"\nmac = \"52:54:00:00:00:05\"\n"),
        ("guests/b.toml", "mac = \"52:54:00:00:00:05\"\naddress = \"10.1.0.5\"\n"),
        ("guests/c.conf", "HOSTNAME=a.s.test"),
    ];
    assert_eq!(
        told(&twice),
        [
            "guests/b.toml:1:7: mac 52:54:00:00:00:05 is already that of guest 'a'",
            "guests/b.toml:2:11: address 10.1.0.5 is already that of guest 'a'",
            "guests/c.conf:1:10: host name a.s.test is already that of guest 'a'",
        ]
    );
    let counted = [("site.toml", SITE), ("guests/wn.toml", "count = 2"), ("guests/wn2.toml", "")];
    assert_eq!(told(&counted), ["guests/wn2.toml:1:1: two guests are called 'wn2'"]);
    let both = [("site.toml", SITE), ("guests/ce.toml", ""), ("guests/ce.conf", "")];
    assert!(told(&both)[0].starts_with("guests/ce.conf:1:1: there is '"));
}

#[test]
fn circles_are_named() {
    let site = ("site.toml", SITE);
    let told_of = |ce: &str, se: &str| told(&[site, ("guests/ce.toml", ce), ("guests/se.toml", se)]);
    let circle = "guests wait for each other in a circle";
    assert_eq!(
        told_of("after = [\"se\"]", "needs = [\"ce\"]"),
        [format!("guests/se.toml:1:10: {circle}: ce -> se -> ce")]
    );
    assert_eq!(told_of("needs = [\"ce\"]", ""), [format!("guests/ce.toml:1:10: {circle}: ce -> ce")]);
    let templates = [
        site,
        ("guests/ce.toml", "extends = \"a\""),
        ("templates/a.toml", "extends = \"b\""),
        ("templates/b.conf", "EXTENDS=a"),
    ];
    assert_eq!(
        told(&templates),
        ["templates/b.conf:1:9: templates extend each other in a circle: a -> b -> a"]
    );
}

#[test]
fn networks_are_checked_alone_and_together() {
    for (networks, expected) in [
        ("", "site.toml:1:1: the site has no network"),
        ("[networks.a]\nsubnet = \"10.1.0.0/24\"", "site.toml:2:11: network 'a' has no mode"),
        ("[networks.a]\nmode = \"nat\"", "site.toml:2:11: network 'a' has no subnet"),
        (
            "[networks.a]\nmode = \"bridge\"\nsubnet = \"10.1.0.0/24\"",
            "site.toml:2:11: network 'a' is a bridge to nowhere",
        ),
        (
            "[networks.a]\nmode = \"nat\"\nuplink = \"eth0\"\nsubnet = \"10.1.0.0/24\"",
            "site.toml:4:10: only a network of mode 'bridge' has an uplink",
        ),
        (
            "[networks.a]\nmode = \"nat\"\nsubnet = \"10.1.0.7/24\"",
            "site.toml:4:10: subnet '10.1.0.7/24' is an address within a network; the network is 10.1.0.0/24",
        ),
        (
            "[networks.a]\nmode = \"nat\"\nsubnet = \"10.1.0.0/24\"\ngateway = \"10.2.0.1\"",
            "site.toml:5:11: gateway 10.2.0.1 is no host's address in 10.1.0.0/24",
        ),
        (
            "[networks.a]\nmode = \"nat\"\nsubnet = \"10.1.0.0/24\"\nbridge = \"longer-than-fifteen\"",
            "site.toml:5:10: bridge 'longer-than-fifteen' must have 1 to 15 bytes",
        ),
        (
            "networks.a = { mode = \"nat\", subnet = \"10.1.0.0/24\", bridge = \"br0\" }\n\
             networks.b = { mode = \"nat\", subnet = \"10.2.0.0/24\", bridge = \"br0\" }",
            "site.toml:3:63: bridge 'br0' is already that of network 'a'",
        ),
        (
            "networks.a = { mode = \"nat\", subnet = \"10.1.0.0/24\" }\n\
             networks.b = { mode = \"nat\", subnet = \"10.1.0.0/25\" }",
            "site.toml:3:39: subnet 10.1.0.0/25 overlaps 10.1.0.0/24 of network 'a'",
        ),
        (
            "networks.a = { mode = \"nat\", subnet = \"10.1.0.0/24\" }\n\
             networks.b = { mode = \"rehearsal\", subnet = \"10.2.0.0/24\" }",
            "site.toml:3:23: either all networks are rehearsed or none",
        ),
    ] {
        let first = networks.find("networks.").map_or("a", |at| &networks[at + 9..at + 10]);
        let guest = format!("network = \"{first}\"");
        let guest = if networks.is_empty() { "" } else { &guest };
        let told = told(&[("site.toml", &format!("name = \"s\"\n{networks}")), ("guests/x.toml", guest)]);
        assert_eq!(told, [expected], "{networks}");
    }
    let several = "name = \"s\"\nnetworks.a = { mode = \"nat\", subnet = \"10.1.0.0/24\" }\n\
                   networks.b = { mode = \"nat\", subnet = \"10.2.0.0/24\" }";
    let told = told(&[("site.toml", several), ("guests/x.toml", "")]);
    assert_eq!(told, ["guests/x.toml:1:1: guest 'x' must say which network it is on"]);
}

#[test]
fn a_default_that_is_wrong_for_all_guests_is_told_once() {
    let site = format!("{SITE}[defaults]\nimage = \"x\"\naddress = \"10.1.0.7\"\n");
    let told = told(&[
        ("site.toml", &site),
        ("guests/a.toml", "address = \"10.1.0.8\""),
        ("guests/b.toml", "address = \"10.1.0.9\""),
    ]);
    assert_eq!(
        told,
        ["site.toml:7:9: unknown image 'x'", "site.toml:8:1: address cannot be the same for all guests"]
    );
}

#[test]
fn images_and_profiles_of_the_site_and_of_the_machine_are_known() {
    let guest = ("guests/a.toml", "image = \"mine\"\nprofile = \"own\"");
    let files = [("site.toml", SITE), guest, ("images/mine.toml", ""), ("profiles/own.toml", "")];
    assert_eq!(loaded(&files).guests[0].image.as_str(), "mine");
    let elsewhere = directory(&[("mine/disk.ext4", ""), ("other.toml", "")]);
    let options = LoadOptions { image_dirs: vec![elsewhere.path().to_owned()], ..LoadOptions::default() };
    loaded_with(&[("site.toml", SITE), guest, ("profiles/own.toml", "")], &options);
}

#[test]
fn administrators_keys_are_public_keys() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti a@b";
    let guest = ("guests/a.toml", "");
    let site = format!("admin_keys = ['{key}']\nadmin_key_file = \"keys\"\n{SITE}");
    let file = format!("# ours\n\nfrom=\"10.0.0.1\" {key}\n");
    let read = loaded(&[("site.toml", &site), guest, ("keys", &file)]);
    assert_eq!(read.admin_keys, [key.to_owned(), format!("from=\"10.0.0.1\" {key}")]);
    let conf = format!("{SITE_CONF}ADMIN_KEYS='\n{key}\nfrom=\"10.0.0.1\" {key}\n'\n");
    assert_eq!(loaded(&[("site.conf", &conf), guest]).admin_keys, read.admin_keys);

    let secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n";
    let told_of_file = told(&[("site.toml", &site), guest, ("keys", secret)]);
    assert_eq!(told_of_file.len(), 1);
    assert!(told_of_file[0].starts_with("keys:1:1: this line is a private key"), "{told_of_file:?}");
    assert!(!told_of_file[0].contains("c2VjcmV0"));
    let missing = told(&[("site.toml", &site), guest]);
    assert!(missing[0].starts_with("site.toml:2:18: there is no file"), "{missing:?}");
}

#[test]
fn the_command_line_is_checked_like_a_file() {
    let files = [("site.toml", SITE), ("guests/ce.toml", "")];
    for (set, expected) in [
        ("ce.memroy=1", "--set ce.memroy=1: unknown key 'memroy'"),
        ("ce.memory=1", "--set ce.memory=1: memory '1' has no unit"),
        ("nobody.memory=1G", "--set nobody.memory=1G: unknown guest 'nobody'"),
        (
            "networks.lan.mode=x",
            "--set networks.lan.mode=x: mode 'x' is not a mode; bridge, nat, isolated and rehearsal are",
        ),
        ("memory", "--set memory: this is not KEY=VALUE"),
        ("a.b.c.d=1", "--set a.b.c.d=1: this is not KEY=VALUE"),
        (
            "ce.address=10.2.0.1",
            "--set ce.address=10.2.0.1: address 10.2.0.1 is outside network 'lan', 10.1.0.0/24",
        ),
    ] {
        assert_eq!(told_with(&files, &options(&[set])), [expected]);
    }
}

#[test]
fn files_are_data_and_nothing_else_is_read() {
    let with_guest = |make: &dyn Fn(&Path)| {
        let dir = directory(&[("site.toml", SITE), ("guests/a.toml", "")]);
        make(&dir.path().join("guests/b.toml"));
        let problems = load(dir.path(), &LoadOptions::default()).expect_err("b is no configuration");
        let problems: Vec<String> =
            problems.iter().map(|p| format!("{}:{} {}", p.origin.line, p.origin.column, p.message)).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    };
    let large = with_guest(&|path| fs::write(path, vec![b'#'; (1 << 20) + 1]).unwrap());
    assert_eq!(large, "1:1 this file is larger than 1 MiB, which no configuration is");
    let latin = with_guest(&|path| fs::write(path, b"# a\ndescription = \"\xe9\"").unwrap());
    assert_eq!(latin, "2:16 this is not UTF-8 text");
    let fifo = with_guest(&|path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
    assert_eq!(fifo, "1:1 this is not a plain file");
    let endless = with_guest(&|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap());
    assert_eq!(endless, "1:1 this is not a plain file");
    let dangling = with_guest(&|path| std::os::unix::fs::symlink("/nowhere", path).unwrap());
    assert!(dangling.starts_with("1:1 reading it: No such file"), "{dangling}");
}

#[test]
fn shell_files_tell_of_what_a_shell_would_have_done() {
    let told_of = |conf: &str| told(&[("site.toml", SITE), ("guests/a.conf", conf)]);
    assert_eq!(
        told_of("\nMEMORY=$(free -m)"),
        ["guests/a.conf:2:8: '$(' would run a command; gridgate never runs a configuration file"]
    );
    assert_eq!(told_of("MEMORY=${SIZE}M")[0], "guests/a.conf:1:8: '$SIZE' has no value here");
    assert_eq!(told_of("MEMROY=512"), ["guests/a.conf:1:1: unknown variable 'MEMROY'"]);
    assert_eq!(
        told_of("VCPUS=2 CPUS=3"),
        ["guests/a.conf:1:9: CPUS says the same as VCPUS at DIR/guests/a.conf:1:1".replace("DIR/", "")]
    );
    assert_eq!(told_of("NETMASK=255.0.255.0"), ["guests/a.conf:1:9: NETMASK '255.0.255.0' is not a netmask"]);
    assert_eq!(told_of("DESCRIPTION=$'\\xff'"), ["guests/a.conf:1:13: DESCRIPTION is not UTF-8 text"]);
}

#[test]
fn a_missing_site_leads_to_init() {
    let dir = tempfile::tempdir().unwrap();
    for (path, message) in [
        (dir.path().to_owned(), "there is neither site.toml nor site.conf"),
        (dir.path().join("x"), "there is no such directory"),
    ] {
        let problems = load(&path, &LoadOptions::default()).expect_err("there is no site");
        let problem = problems.iter().next().unwrap();
        assert_eq!(problem.message, message);
        assert_eq!(problem.hint, format!("'gridgate init {}' writes a site to start from", path.display()));
    }
}

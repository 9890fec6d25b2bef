//! A machine of its own for every test, and other machines beside it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gridgate::config::site::{NetworkMode, Site};
use gridgate::facts::network::gather;
use gridgate::host::Live;
use gridgate::host::net::{Link, Net, Port, in_netns};
use gridgate::host::programs::{Program, Programs};
use gridgate::names::{IfName, MacAddr};
use gridgate::network::{apply, namespace};
use gridgate::paths::Paths;
use gridgate::plan::network::{NetStep, names, plan, teardown};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::described::loaded;

pub(crate) const LIMIT: Duration = Duration::from_secs(300);
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const GUEST_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// Runs a test on a thread with namespaces of its own.
pub(crate) fn private(test: impl FnOnce(&Paths) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this test makes network namespaces, which needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Paths::new(Path::new("/nowhere"), Path::new("/nowhere"));
    paths.run = dir.path().join("run").join(paths.id());
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(e) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                eprintln!("skipped: this machine gives no namespaces: {e}");
                return;
            }
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
            // In a container /proc/sys is read-only; a namespace's own settings are the test's to change. Where a fresh /proc
            // may not be mounted, the tests that need it say so themselves.
            let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>);
            Live.set_up(None, &name("lo")).unwrap();
            test(&paths);
        });
        thread.join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn site(mode: NetworkMode, uplink: Option<&str>) -> Site {
    let mode = serde_json::to_string(&mode).unwrap();
    let uplink_line = uplink.map(|uplink| format!("uplink = '{uplink}'\n")).unwrap_or_default();
    let described = format!(
        "name = 'test'\ndomain = 'example.org'\n[networks.grid]\nmode = {mode}\nbridge = 'gg0'\n{uplink_line}\
         subnet = '192.0.2.0/24'\ngateway = '192.0.2.1'\n"
    );
    let guest = format!("backend = 'nspawn'\naddress = '{GUEST}'\nmac = '{GUEST_MAC}'\n");
    loaded(&[("site.toml", &described), ("guests/ce.toml", &guest)])
}

pub(crate) fn has_nft() -> bool {
    let found = Live.find_program("nft").is_some();
    if !found {
        eprintln!("skipped: translation needs the program 'nft'");
    }
    found
}

/// Every mode that this machine can do.
pub(crate) fn modes() -> Vec<(NetworkMode, Option<&'static str>)> {
    let mut modes = vec![
        (NetworkMode::Bridge, Some("eth1")),
        (NetworkMode::Isolated, None),
        (NetworkMode::Rehearsal, None),
    ];
    if has_nft() {
        modes.push((NetworkMode::Nat, None));
    }
    modes
}

/// All that a site may change in a namespace. Link-local addresses come and go on their own.
pub(crate) fn snapshot(paths: &Paths) -> (Vec<Link>, String, Option<String>, Vec<PathBuf>) {
    let mut links = Live.links(None).unwrap();
    for link in &mut links {
        link.addresses.retain(|a| !a.to_string().starts_with("fe80:"));
    }
    let rules = match Live.find_program("nft") {
        Some(_) => Live.run(&Program::new("nft").args(["list", "ruleset"])).unwrap().text(),
        None => String::new(),
    };
    let mut files: Vec<PathBuf> = [paths.netns(), paths.uplinks(), paths.forwarding()].into();
    files.retain(|f| f.exists());
    (links, rules, Live.sysctl_read(None, "net/ipv4/ip_forward").unwrap(), files)
}

pub(crate) fn planned(site: &Site, paths: &Paths) -> Vec<NetStep> {
    plan(site, &gather(&Live, paths).unwrap(), &paths.id()).unwrap()
}

pub(crate) fn up(site: &Site, paths: &Paths) {
    for step in planned(site, paths) {
        apply(&Live, paths, &step).unwrap();
    }
    assert_eq!(planned(site, paths), [], "the second plan");
}

pub(crate) fn down(paths: &Paths) {
    for step in teardown(&gather(&Live, paths).unwrap(), &paths.id()) {
        apply(&Live, paths, &step).unwrap();
    }
    assert_eq!(teardown(&gather(&Live, paths).unwrap(), &paths.id()), [], "the second teardown");
}

pub(crate) fn problem(site: &Site, paths: &Paths) -> String {
    let problems = plan(site, &gather(&Live, paths).unwrap(), &paths.id()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].what.clone()
}

pub(crate) fn link(ns: Option<&Path>, name: &str) -> Option<Link> {
    Live.links(ns).unwrap().into_iter().find(|l| l.name == name)
}

/// Waits until an interface has gone: the kernel takes namespaces down in its own time, and a child that another test has just
/// forked may have a descriptor of it.
pub(crate) fn until_gone(ns: Option<&Path>, name: &str) {
    let until = Instant::now() + LIMIT;
    while link(ns, name).is_some() {
        assert!(Instant::now() < until, "'{name}' is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Another machine, on a cable that ends as an interface here.
pub(crate) fn neighbour(dir: &Path, interface: &str) -> PathBuf {
    let netns = dir.join(format!("neighbour-{interface}"));
    Live.make_netns(&netns).unwrap();
    let scaffold = name("scaffold0");
    Live.make_bridge(None, &scaffold, "test").unwrap();
    let port = Port { name: &name(interface), bridge: &scaffold, alias: "test" };
    let ns = Live.open_netns(&netns).unwrap();
    Live.make_veth(None, port, ns.as_fd(), &name("eth0"), MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
    Live.set_master(None, port.name, None).unwrap();
    Live.remove_link(None, &scaffold).unwrap();
    Live.set_up(Some(&netns), &name("eth0")).unwrap();
    netns
}

/// A guest's network side: a namespace whose interface has the guest's MAC and address.
pub(crate) fn guest(paths: &Paths, site: &Site, address: &str) -> PathBuf {
    let netns = paths.run.join("guest");
    Live.make_netns(&netns).unwrap();
    let ns = Live.open_netns(&netns).unwrap();
    let guest = &site.guests[0];
    let port = Port {
        name: &names::port_name(&paths.id(), &guest.name, site.rehearsed()).unwrap(),
        bridge: &site.networks[0].bridge,
        alias: &names::guest_alias(&paths.id(), &guest.name),
    };
    Live.make_veth(namespace(site, paths).as_deref(), port, ns.as_fd(), &name("host0"), guest.mac).unwrap();
    Live.set_up(Some(&netns), &name("host0")).unwrap();
    Live.add_address(Some(&netns), &name("host0"), address.parse().unwrap()).unwrap();
    netns
}

pub(crate) fn listen(ns: &Path, address: &str) -> TcpListener {
    in_netns(Some(ns), || Ok(TcpListener::bind(address)?)).unwrap()
}

/// Connects to the listener and checks that it is that one; the listener's view of who came.
pub(crate) fn connect(ns: Option<&Path>, to: SocketAddr, listener: &TcpListener) -> SocketAddr {
    let until = Instant::now() + LIMIT;
    let mut client = loop {
        match in_netns(ns, || Ok(TcpStream::connect_timeout(&to, LIMIT)?)) {
            Ok(client) => break client,
            // An IPv6 address is not used before it is known to be nobody else's.
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => panic!("connecting to {to}: {e}"),
        }
    };
    let (mut server, from) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    from
}

//! How fast packets go through a guest's port, measured.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gridgate::config::site::NetworkMode;
use gridgate::host::Live;
use gridgate::host::net::{LinkKind, Net, Port, Rates, in_netns, lost_shapers};
use gridgate::names::IfName;

use crate::lab::{LIMIT, down, guest, link, listen, name, private, site, until_gone, up};

const RATE: u64 = 2 << 20;
const TIME: Duration = Duration::from_millis(700);

fn rates(to_guest: Option<u64>, from_guest: Option<u64>) -> Rates {
    Rates { to_guest, from_guest }
}

/// What is held against how many bytes a second come through: from the first one on never more than a limit lets pass,
/// however a busy machine stalls in between, and at some time as many as it has to.
struct Pace {
    limit: Option<u64>,
    began: Instant,
    bytes: u64,
    moment: (Instant, u64),
    seen: Vec<u64>,
}

impl Pace {
    fn of(limit: Option<u64>) -> Pace {
        let now = Instant::now();
        Pace { limit, began: now, bytes: 0, moment: (now, 0), seen: Vec::new() }
    }

    /// Whether that was fast enough; panics where it was too fast, and where it never was fast enough.
    fn is_kept(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        if let Some(rate) = self.limit {
            let due = rate as f64 * self.began.elapsed().as_secs_f64();
            // What may pass at once after a rest, and what the kernel's clock makes of a rate.
            let most = due * 1.05 + (rate / 50 + (64 << 10)) as f64;
            assert!(self.bytes as f64 <= most, "{} bytes where {rate} a second let {most} pass", self.bytes);
        }
        let time = self.moment.0.elapsed();
        if time < TIME {
            return false;
        }
        let speed = ((self.bytes - self.moment.1) as f64 / time.as_secs_f64()) as u64;
        self.seen.push(speed);
        self.moment = (Instant::now(), self.bytes);
        let enough = self.limit.map_or(10 * RATE, |rate| rate * 7 / 10);
        assert!(self.began.elapsed() < LIMIT, "{:?} bytes a second, never {enough}", self.seen);
        speed > enough
    }
}

/// Sends over a TCP connection until it keeps the pace: as fast as the limit, or far faster than any where there is none.
fn keeps(limit: Option<u64>, client: Option<&Path>, server: &Path, address: &str, direction: Direction) {
    let listener = listen(server, address);
    let to: SocketAddr = listener.local_addr().unwrap();
    let near = in_netns(client, || Ok(TcpStream::connect_timeout(&to, LIMIT)?)).unwrap();
    let far = listener.accept().unwrap().0;
    let (mut sender, mut receiver) = match direction {
        Direction::ToServer => (near, far),
        Direction::FromServer => (far, near),
    };
    let closer = receiver.try_clone().unwrap();
    let mut pace = Pace::of(limit);
    std::thread::scope(|scope| {
        let _ending = Ending(|| closer.shutdown(Shutdown::Both).unwrap());
        scope.spawn(move || while sender.write(&[7; 32 << 10]).is_ok() {});
        let mut buffer = vec![0; 256 << 10];
        while !pace.is_kept(receiver.read(&mut buffer).unwrap() as u64) {}
    });
}

/// Ends the thread that sends, after a panic, too: a scope waits for its threads.
struct Ending<F: Fn()>(F);

impl<F: Fn()> Drop for Ending<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    FromServer,
}

#[test]
fn a_container_is_as_fast_as_its_limits_in_each_direction_and_fast_without() {
    private(|paths| {
        let site = site(NetworkMode::Rehearsal, None);
        up(&site, paths);
        let ns = paths.netns();
        let server = guest(paths, &site, "192.0.2.10/24");
        let port = name("gg-ce");
        let towards = |limit, address| keeps(limit, Some(&ns), &server, address, Direction::ToServer);
        let away = |limit, address| keeps(limit, Some(&ns), &server, address, Direction::FromServer);
        towards(None, "192.0.2.10:81");

        Live.set_rates(Some(&ns), &port, rates(Some(RATE), Some(RATE / 2))).unwrap();
        towards(Some(RATE), "192.0.2.10:82");
        away(Some(RATE / 2), "192.0.2.10:83");
        // Another rate at once, and only for one direction.
        Live.set_rates(Some(&ns), &port, rates(None, Some(2 * RATE))).unwrap();
        towards(None, "192.0.2.10:84");
        away(Some(2 * RATE), "192.0.2.10:85");

        let kinds = |links: &[gridgate::host::net::Link]| {
            links.iter().filter(|l| l.kind == LinkKind::Other("ifb".to_owned())).count()
        };
        assert_eq!(kinds(&Live.links(Some(&ns)).unwrap()), 1);
        for _ in 0..2 {
            Live.set_rates(Some(&ns), &port, Rates::default()).unwrap();
            assert_eq!(kinds(&Live.links(Some(&ns)).unwrap()), 0);
        }
        away(None, "192.0.2.10:86");
        Live.remove_netns(&server).unwrap();
        down(paths);
    });
}

/// An Ethernet frame with as many bytes as go into one, UDP to everybody.
fn frame() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, 1, 8, 0]);
    let mut ip = vec![0x45, 0, 0x05, 0xdc, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 10, 192, 0, 2, 255];
    let mut sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(ip);
    // Without a checksum, which IPv4 allows.
    frame.extend([0, 99, 0, 99, 0x05, 0xc8, 0, 0]);
    frame.resize(14 + 1500, 7);
    frame
}

fn flood(tap: BorrowedFd<'_>, stop: &AtomicBool) {
    let frame = frame();
    while !stop.load(Ordering::Relaxed) {
        // About ten times the rate; a loop without rest would leave no processor to those who receive.
        for _ in 0..16 {
            rustix::io::write(tap, &frame).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_tap_that_floods_the_host_is_held_to_its_rate_and_its_shaper_is_found_when_it_is_gone() {
    private(|paths| {
        let site = site(NetworkMode::Rehearsal, None);
        up(&site, paths);
        let ns = paths.netns();
        let port: IfName = name("gg-ce");
        let (bridge, alias) = (&site.networks[0].bridge, format!("gridgate:{}:ce", paths.id()));
        let tap = Live.open_tap(Some(&ns), Port { name: &port, bridge, alias: &alias }, None).unwrap();
        Live.set_rates(Some(&ns), &port, rates(None, Some(RATE))).unwrap();
        let socket = in_netns(Some(&ns), || Ok(UdpSocket::bind("0.0.0.0:99")?)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ending = Ending(|| stop.store(true, Ordering::Relaxed));
            let (mut pace, mut buffer) = (Pace::of(Some(RATE)), [0; 2000]);
            scope.spawn(|| flood(tap.as_fd(), &stop));
            // Headers travel, too.
            while !pace.is_kept(socket.recv(&mut buffer).unwrap() as u64 + 42) {}
        });

        let links = || Live.links(Some(&ns)).unwrap();
        assert_eq!(lost_shapers(&links()).count(), 0);
        drop(tap);
        until_gone(Some(&ns), "gg-ce");
        let links = links();
        let lost: Vec<_> = lost_shapers(&links).collect();
        assert_eq!(lost.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["go-ce"]);
        Live.remove_link(Some(&ns), &name("go-ce")).unwrap();
        assert_eq!(link(Some(&ns), "go-ce"), None);
        down(paths);
    });
}

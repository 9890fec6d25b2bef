//! How fast packets go through a guest's port, measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gridgate::config::site::NetworkMode;
use gridgate::host::Live;
use gridgate::host::net::{LinkKind, Net, Port, Rates, in_netns, lost_shapers};
use gridgate::names::IfName;

use crate::lab::{LIMIT, down, guest, link, listen, name, private, site, up};

const RATE: u64 = 2 << 20;
const TIME: Duration = Duration::from_millis(700);

fn rates(to_guest: Option<u64>, from_guest: Option<u64>) -> Rates {
    Rates { to_guest, from_guest }
}

/// Bytes a second that come out of a TCP connection once it has found its speed.
fn speed(client: Option<&Path>, server: &Path, address: &str, direction: Direction) -> u64 {
    let listener = listen(server, address);
    let to: SocketAddr = listener.local_addr().unwrap();
    let near = in_netns(client, || Ok(TcpStream::connect_timeout(&to, LIMIT)?)).unwrap();
    let far = listener.accept().unwrap().0;
    let (mut sender, mut receiver) = match direction {
        Direction::ToServer => (near, far),
        Direction::FromServer => (far, near),
    };
    let closer = receiver.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || while sender.write(&[7; 32 << 10]).is_ok() {});
        let mut buffer = vec![0; 256 << 10];
        let warm = Instant::now() + TIME / 2;
        while Instant::now() < warm {
            assert!(receiver.read(&mut buffer).unwrap() > 0);
        }
        let (began, mut bytes) = (Instant::now(), 0u64);
        while began.elapsed() < TIME {
            bytes += receiver.read(&mut buffer).unwrap() as u64;
        }
        let speed = bytes * 1000 / began.elapsed().as_millis() as u64;
        closer.shutdown(std::net::Shutdown::Both).unwrap();
        speed
    })
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    FromServer,
}

fn is_near(speed: u64, rate: u64) {
    assert!(speed > rate * 7 / 10 && speed < rate * 12 / 10, "{speed} bytes a second, limited to {rate}");
}

#[test]
fn a_container_is_as_fast_as_its_limits_in_each_direction_and_fast_without() {
    private(|paths| {
        let site = site(NetworkMode::Rehearsal, None);
        up(&site, paths);
        let ns = paths.netns();
        let server = guest(paths, &site, "192.0.2.10/24");
        let port = name("gg-ce");
        let towards = |address| speed(Some(&ns), &server, address, Direction::ToServer);
        let away = |address| speed(Some(&ns), &server, address, Direction::FromServer);
        assert!(towards("192.0.2.10:81") > 10 * RATE, "what is not limited is fast");

        Live.set_rates(Some(&ns), &port, rates(Some(RATE), Some(RATE / 2))).unwrap();
        is_near(towards("192.0.2.10:82"), RATE);
        is_near(away("192.0.2.10:83"), RATE / 2);
        // Another rate at once, and only for one direction.
        Live.set_rates(Some(&ns), &port, rates(None, Some(2 * RATE))).unwrap();
        assert!(towards("192.0.2.10:84") > 10 * RATE, "it is still limited");
        is_near(away("192.0.2.10:85"), 2 * RATE);

        let kinds = |links: &[gridgate::host::net::Link]| {
            links.iter().filter(|l| l.kind == LinkKind::Other("ifb".to_owned())).count()
        };
        assert_eq!(kinds(&Live.links(Some(&ns)).unwrap()), 1);
        for _ in 0..2 {
            Live.set_rates(Some(&ns), &port, Rates::default()).unwrap();
            assert_eq!(kinds(&Live.links(Some(&ns)).unwrap()), 0);
        }
        assert!(away("192.0.2.10:86") > 10 * RATE, "what is not limited any more is fast");
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
        let bytes = std::thread::scope(|scope| {
            scope.spawn(|| flood(tap.as_fd(), &stop));
            let (began, mut bytes, mut buffer) = (Instant::now(), 0, [0; 2000]);
            while began.elapsed() < TIME {
                // Headers travel, too.
                bytes += socket.recv(&mut buffer).unwrap() as u64 + 42;
            }
            stop.store(true, Ordering::Relaxed);
            bytes
        });
        is_near(bytes, RATE);

        let links = || Live.links(Some(&ns)).unwrap();
        assert_eq!(lost_shapers(&links()).count(), 0);
        drop(tap);
        let links = links();
        let lost: Vec<_> = lost_shapers(&links).collect();
        assert_eq!(lost.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["go-ce"]);
        Live.remove_link(Some(&ns), &name("go-ce")).unwrap();
        assert_eq!(link(Some(&ns), "go-ce"), None);
        down(paths);
    });
}

//! When a guest is ready, and waiting for it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use gridgate::config::site::ReadyCheck;
use gridgate::console::client;
use gridgate::console::protocol::{Event, For, Kind, Mode, Settings};
use gridgate::console::record::{ReadyRecord, ReadyState};

use crate::support::{self, LIMIT, Site, eventually, guest};

#[test]
fn a_guest_is_ready_when_its_login_prompt_and_its_port_are_there() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let settings = Settings {
        ready: vec![ReadyCheck::Login, ReadyCheck::Tcp(port)],
        address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ready_timeout_ms: 60_000,
        ..Settings::default()
    };
    site.spawn(&ce, "printf 'ce lo'; sleep 0.05; printf 'gin: '; exec cat", "uml", settings).unwrap();
    let login = || ReadyRecord::read(&site.paths, &ce).unwrap().filter(|r| r.state == ReadyState::Waiting);
    eventually("it is waiting", login);
    eventually("the prompt is seen", || site.state(&ce).filter(|s| s.ready.checks[0].at_ms.is_some()));
    assert_eq!(site.state(&ce).unwrap().ready.state, ReadyState::Waiting);
    let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let event = client::wait_event(&site.paths, &ce, For::Ready, None, LIMIT).unwrap();
    let Some(Event::Ready(record)) = event else { panic!("{event:?}") };
    assert_eq!(record.state, ReadyState::Ready);
    assert_eq!(ReadyRecord::read(&site.paths, &ce).unwrap(), Some(record));
}

#[test]
fn a_guest_that_is_slow_is_degraded_and_lives() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let settings = Settings { ready: vec![ReadyCheck::Login], ready_timeout_ms: 50, ..Settings::default() };
    site.spawn(&ce, "read go; printf 'ce login: '; exec cat", "uml", settings).unwrap();
    let degraded =
        || ReadyRecord::read(&site.paths, &ce).unwrap().filter(|r| r.state == ReadyState::Degraded);
    eventually("it is degraded", degraded);
    let none = client::wait_event(&site.paths, &ce, For::Ready, None, Duration::from_millis(50)).unwrap();
    assert_eq!(none, None);
    site.attach(&ce, Mode::Write, false, None).send(Kind::Input, b"\n");
    let event = client::wait_event(&site.paths, &ce, For::Ready, None, LIMIT).unwrap();
    assert!(matches!(event, Some(Event::Ready(_))), "{event:?}");
}

#[test]
fn a_prompt_that_came_while_no_holder_was_there_counts() {
    if !support::take_over::is_possible() {
        return;
    }
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { ready: vec![ReadyCheck::Login], ..Settings::default() };
    let ce = site.guest("ce", "printf 'ce lo'; read go; printf 'gin: '; exec sleep 1000", settings);
    site.attach(&ce.name, Mode::Write, false, None).read_until(|seen| seen.output() == b"ce lo");
    site.attach(&ce.name, Mode::Write, false, None).send(Kind::Input, b"\n");
    eventually("it is there", || site.state(&ce.name).filter(|s| s.ready.state == ReadyState::Ready));
    site.kill_holder();
    std::fs::remove_file(site.paths.ready_record(&ce.name)).unwrap();
    site.start_holder();
    assert_eq!(site.state(&ce.name).unwrap().ready.state, ReadyState::Ready);
    assert!(ReadyRecord::read(&site.paths, &ce.name).unwrap().is_some());
}

#[test]
fn waiting_ends_with_the_guest() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let began = gridgate::console::now_ms();
    let settings = Settings { ready: vec![ReadyCheck::Login], ..Settings::default() };
    site.spawn(&ce, "read go; exit 1", "uml", settings).unwrap();
    let paths = site.paths.clone();
    let wait = move || client::wait_event(&paths, &guest("ce"), For::Ready, Some(began), LIMIT).unwrap();
    let waiter = std::thread::spawn(wait.clone());
    site.attach(&ce, Mode::Write, false, None).send(Kind::Input, b"\n");
    for event in [waiter.join().unwrap(), wait()] {
        let ended = matches!(&event, Some(Event::Stopped(Some(exit))) if exit.code == Some(1));
        assert!(ended, "{event:?}");
    }
    let none = client::wait_event(&site.paths, &ce, For::Ready, None, Duration::from_millis(50)).unwrap();
    assert_eq!(none, None, "an end that is past");
}

#[test]
fn waiting_outlives_the_holder() {
    if !support::take_over::is_possible() {
        return;
    }
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { ready: vec![ReadyCheck::Login], ..Settings::default() };
    let ce = site.guest("ce", "read go; printf 'ce login: '; exec cat", settings);
    let paths = site.paths.clone();
    let waiter =
        std::thread::spawn(move || client::wait_event(&paths, &guest("ce"), For::Ready, None, LIMIT));
    site.kill_holder();
    site.start_holder();
    site.attach(&ce.name, Mode::Write, false, None).send(Kind::Input, b"\n");
    assert!(matches!(waiter.join().unwrap().unwrap(), Some(Event::Ready(_))));
}

#[test]
fn a_guest_says_itself_that_it_is_ready_and_lives_and_a_flood_of_it_does_no_harm() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let ready = vec![ReadyCheck::Notify, ReadyCheck::Heartbeat(1)];
    site.spawn(&ce, "exec cat", "nspawn", Settings { ready, ..Settings::default() }).unwrap();
    let socket = site.paths.notify_socket(&ce);
    let mode = std::os::unix::fs::MetadataExt::mode(&socket.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let guest = UnixDatagram::unbound().unwrap();
    let say = |text: &str| guest.send_to(text.as_bytes(), &socket).map(drop);
    say("STATUS=Startup finished.\n").unwrap();
    eventually("its words are shown", || {
        ReadyRecord::read(&site.paths, &ce)
            .unwrap()
            .filter(|r| r.said.as_deref() == Some("Startup finished."))
    });
    say("READY=1").unwrap();
    let record = |state| ReadyRecord::read(&site.paths, &ce).unwrap().filter(|record| record.state == state);
    // A beat lasts for a second, which a busy machine may miss.
    let beats = |what: &str| {
        eventually(what, || {
            say("WATCHDOG=1").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            record(ReadyState::Ready)
        })
    };
    let first = beats("it is ready").ready_at_ms;
    eventually("its heart has stopped", || record(ReadyState::Degraded));
    assert_eq!(beats("it beats again").ready_at_ms, first);

    // One that cannot stop has to wait, and the others' consoles do not.
    guest.set_nonblocking(true).unwrap();
    eventually("something is held back", || {
        let flood = |_| say(&format!("STATUS={}\nWATCHDOG=1", "x".repeat(2000))).is_err();
        (0..1000).any(flood).then_some(())
    });
    assert!(site.state(&ce).is_some(), "the holder answers");
}

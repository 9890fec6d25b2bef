//! The console holder with real terminals: programs on ptys stand for guests.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod support;

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use gridgate::config::site::ReadyCheck;
use gridgate::console::client;
use gridgate::console::logread::{self, BootReader};
use gridgate::console::protocol::{Event, For, Kind, Mode, Position, Settings};
use gridgate::console::record::{Cause, ExitRecord, ReadyRecord, ReadyState, RunRecord};
use gridgate::paths::Paths;
use rustix::process::Signal;
use support::{LIMIT, Site, eventually, guest, kill};

/// Not a test: a process that [`Site::launch`] starts becomes a guest here.
#[test]
fn launcher() {
    support::launcher();
}

fn plain() -> Settings {
    Settings::default()
}

fn log_of(paths: &Paths, name: &str, boot: i64) -> Vec<u8> {
    let dir = paths.console(&guest(name));
    let mut bytes = Vec::new();
    let number = logread::resolve(&dir, boot).unwrap();
    std::io::Read::read_to_end(&mut BootReader::new(&dir, number), &mut bytes).unwrap();
    bytes
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// What `i=0; while [ $i -lt N ]; do echo "line $i"` says.
fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
}

fn numbers(count: usize) -> String {
    format!("i=0; while [ $i -lt {count} ]; do echo \"line $i\"; i=$((i+1)); done")
}

#[test]
fn a_console_is_logged_from_its_first_byte() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "printf first; exec sleep 1000", plain());
    let mut reader = site.attach(&ce.name, Mode::Read, false, None);
    reader.read_until(|seen| seen.output() == b"first");
    assert_eq!(log_of(&site.paths, "ce", 0), b"first");
}

#[test]
fn a_client_is_shown_the_whole_boot_and_what_comes_after() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", &format!("{}; exec cat", numbers(20_000)), plain());
    eventually("all is said", || {
        site.state(&ce.name).filter(|s| s.output_bytes == numbered(20_000).len() as u64)
    });
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"hello");
    let seen = writer.read_until(|seen| seen.live.len() == 5);
    assert_eq!(seen.replay, numbered(20_000));
    assert_eq!(seen.live, b"hello");
    assert_eq!(seen.positions, [Position { boot: 1, offset: 0 }]);
}

#[test]
fn a_holder_killed_in_mid_stream_loses_nothing() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", &format!("{}; exec sleep 1000", numbers(60_000)), plain());
    let want = numbered(60_000);
    let mut client = site.attach(&ce.name, Mode::Read, false, None);
    let mut shown = Vec::new();
    for kills in 1..=8 {
        client.read_until(|seen| seen.output().len() > want.len() / 20);
        site.kill_holder();
        shown.extend(client.seen.output());
        // As a client does that is cut off: what it has not read of the old connection comes again.
        site.start_holder();
        let from = Position { boot: 1, offset: shown.len() as u64 };
        client = site.attach(&ce.name, Mode::Read, false, Some(from));
        assert!(RunRecord::read(&site.paths, &ce.name).unwrap().unwrap().is_alive(), "after kill {kills}");
        if shown.len() > want.len() * 3 / 4 {
            break;
        }
    }
    client.read_until(|seen| shown.len() + seen.output().len() >= want.len());
    shown.extend(client.seen.output());
    assert!(shown == want, "{} bytes, not {}", shown.len(), want.len());
    assert!(log_of(&site.paths, "ce", 0) == want);
    assert_eq!(client.seen.notices, Vec::<String>::new());
}

#[test]
fn a_reader_that_stalls_holds_nobody_up_and_is_skipped_forward() {
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { log_bytes: 256 << 10, ..plain() };
    let ce =
        site.guest("ce", "read go; head -c 8000000 /dev/zero | tr '\\0' x; echo done; exec cat", settings);
    let mut stalled = site.attach(&ce.name, Mode::Read, false, None);
    let before = memory(site.holder_pid());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"go\n");
    eventually("the guest says all it has", || site.state(&ce.name).filter(|s| s.output_bytes == 8_000_005));
    let grown = memory(site.holder_pid()).saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more");
    let seen = stalled.read_until(|seen| contains(&seen.output(), "done\n"));
    let skipped: u64 =
        seen.notices.iter().map(|n| n.strip_suffix(" bytes skipped").unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(skipped + seen.output().len() as u64, 8_000_005);
    assert!(skipped > 7_000_000, "{skipped}");
}

fn memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|l| l.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_second_writer_reads_until_it_takes_the_console() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", plain());
    let mut first = site.attach(&ce.name, Mode::Write, false, None);
    let mut second = site.attach(&ce.name, Mode::Write, false, None);
    assert_eq!((first.greeting.mode, second.greeting.mode), (Mode::Write, Mode::Read));
    second.read_until(|seen| seen.notices == ["Write is writing; you are reading (--take to write)"]);
    second.send(Kind::Input, b"ignored");
    let mut third = site.attach(&ce.name, Mode::Write, true, None);
    assert_eq!(third.greeting.mode, Mode::Write);
    let seen = first.read_until(|seen| !seen.notices.is_empty());
    assert_eq!(
        (seen.modes.as_slice(), seen.notices.as_slice()),
        (&[Mode::Read][..], &["Write is writing now; you are reading".to_owned()][..])
    );
    first.send(Kind::Input, b"too late");
    third.send(Kind::Input, b"mine");
    for client in [&mut first, &mut second, &mut third] {
        client.read_until(|seen| seen.live == b"mine");
    }
}

#[test]
fn a_writer_that_leaves_makes_room_for_the_next() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", plain());
    let mut first = site.attach(&ce.name, Mode::Write, false, None);
    first.send(Kind::Detach, b"");
    eventually("nobody writes", || site.state(&ce.name).filter(|s| s.writer.is_none() && s.attached == 0));
    assert_eq!(site.attach(&ce.name, Mode::Write, false, None).greeting.mode, Mode::Write);
}

#[test]
fn the_writers_window_is_the_guests_window() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "while read line; do stty size; done", plain());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Resize, &[0, 132, 0, 50]);
    writer.send(Kind::Input, b"\n");
    writer.read_until(|seen| seen.live == b"50 132\n");
}

#[test]
fn a_guest_that_does_not_read_blocks_nobody() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec sleep 1000", plain());
    let se = site.guest("se", "exec cat", plain());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    for _ in 0..4 {
        writer.send(Kind::Input, &[b'x'; 32 << 10]);
    }
    let mut other = site.attach(&se.name, Mode::Write, false, None);
    other.send(Kind::Input, b"still served");
    other.read_until(|seen| seen.live == b"still served");
    let seen = writer.read_until(|seen| !seen.notices.is_empty());
    assert!(seen.notices[0].starts_with("the guest does not read its console: "), "{:?}", seen.notices);
}

#[test]
fn much_input_reaches_a_guest_that_reads_slowly() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "sleep 0.3; head -c 500000 | cksum; exec cat", plain());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    for _ in 0..50 {
        writer.send(Kind::Input, &[b'y'; 10_000]);
    }
    let seen = writer.read_until(|seen| contains(&seen.live, "\n"));
    assert_eq!(seen.live, b"1626787048 500000\n", "{:?}", seen.notices);
}

#[test]
fn the_log_keeps_to_its_bound() {
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { log_bytes: 128 << 10, ..plain() };
    let ce = site.guest("ce", &format!("{}; exec sleep 1000", numbers(40_000)), settings);
    let said = numbered(40_000);
    let state =
        eventually("all is said", || site.state(&ce.name).filter(|s| s.output_bytes == said.len() as u64));
    assert!(state.log_bytes <= 128 << 10 && state.log_bytes > 96 << 10, "{}", state.log_bytes);
    let kept = log_of(&site.paths, "ce", 0);
    assert_eq!(kept.len() as u64, state.log_bytes);
    assert!(said.ends_with(&kept));
    let mut reader = site.attach(&ce.name, Mode::Read, false, None);
    let seen = reader.read_until(|seen| seen.replay.len() == kept.len());
    assert_eq!(seen.notices, [format!("{} bytes skipped", said.len() - kept.len())]);
}

#[test]
fn the_end_of_a_guest_is_written_down_with_its_last_words() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "read go; printf '\\033[31mKernel panic\\033[0m\\nnot syncing'; exit 7", "uml", plain())
        .unwrap();
    let mut writer = site.attach(&ce, Mode::Write, false, None);
    writer.send(Kind::Input, b"\n");
    let exit = writer.read_until(|seen| seen.exit.is_some()).exit.clone().unwrap();
    assert_eq!(writer.seen.output(), b"\x1b[31mKernel panic\x1b[0m\nnot syncing");
    assert_eq!((exit.cause, exit.code, exit.boot), (Cause::Exit, Some(7), 1));
    assert_eq!(exit.last_lines, ["Kernel panic", "not syncing"]);
    assert_eq!(ExitRecord::read(&site.paths, &ce).unwrap(), Some(exit));
    assert_eq!(RunRecord::read(&site.paths, &ce).unwrap(), None);
    assert_eq!(ReadyRecord::read(&site.paths, &ce).unwrap(), None);
    assert_eq!(client::list(&site.paths).unwrap(), []);
}

#[test]
fn a_guest_that_is_killed_ended_by_a_signal() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec sleep 1000", "uml", plain()).unwrap();
    kill(site.state(&ce).unwrap().pid, Signal::KILL);
    let event = client::wait_event(&site.paths, &ce, For::Stopped, None, LIMIT).unwrap();
    let Some(Event::Stopped(Some(exit))) = event else { panic!("{event:?}") };
    assert_eq!((exit.cause, exit.code), (Cause::Signal, Some(9)));
}

#[test]
fn a_guest_of_a_service_manager_ends_for_reasons_that_others_know() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "read go; echo bye", plain());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"\n");
    let exit = writer.read_until(|seen| seen.exit.is_some()).exit.clone().unwrap();
    assert_eq!(
        (exit.cause, exit.code, exit.last_lines.as_slice()),
        (Cause::Unknown, None, &["bye".to_owned()][..])
    );
    site.reap(&ce);
}

#[test]
fn a_guest_that_ended_while_no_holder_was_there_is_noticed() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo hello; exec sleep 1000", plain());
    eventually("it has spoken", || site.state(&ce.name).filter(|s| s.output_bytes == 6));
    site.kill_holder();
    kill(ce.pid, Signal::KILL);
    site.reap(&ce);
    site.start_holder();
    assert_eq!(client::list(&site.paths).unwrap(), []);
    let exit = ExitRecord::read(&site.paths, &ce.name).unwrap().unwrap();
    assert_eq!((exit.cause, exit.last_lines), (Cause::Unknown, vec!["hello".to_owned()]));
    assert_eq!(RunRecord::read(&site.paths, &ce.name).unwrap(), None);
}

#[test]
fn a_second_boot_has_a_log_of_its_own() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    for words in ["one", "two"] {
        site.spawn(&ce, &format!("echo {words}"), "uml", plain()).unwrap();
        client::wait_event(&site.paths, &ce, For::Stopped, None, LIMIT).unwrap().unwrap();
    }
    assert_eq!(
        (log_of(&site.paths, "ce", 0), log_of(&site.paths, "ce", -1)),
        (b"two\n".to_vec(), b"one\n".to_vec())
    );
    let boots = logread::boots(&site.paths.console(&ce));
    assert!(boots.iter().all(|b| b.started_at_ms.is_some() && b.ended.is_some()), "{boots:?}");
}

#[test]
fn a_container_that_reboots_is_started_again() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let script = "read word; echo said $word; [ $word = reboot ] && exit 133; exit 0";
    site.spawn(&ce, script, "nspawn", plain()).unwrap();
    let first = site.state(&ce).unwrap();
    let mut writer = site.attach(&ce, Mode::Write, false, None);
    writer.send(Kind::Input, b"reboot\n");
    writer.read_until(|seen| seen.notices.iter().any(|n| n == "guest rebooted"));
    let second = eventually("it is there again", || site.state(&ce));
    assert_ne!(first.pid, second.pid);
    assert_eq!(second.boot, 2);
    writer.send(Kind::Input, b"end\n");
    let seen = writer.read_until(|seen| seen.exit.is_some());
    assert_eq!(seen.output(), b"said reboot\nsaid end\n");
    assert_eq!(seen.positions, [Position { boot: 1, offset: 0 }, Position { boot: 2, offset: 0 }]);
}

#[test]
fn a_container_that_is_stopped_does_not_reboot() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "read word; exit 133", "nspawn", plain()).unwrap();
    client::stopping(&site.paths, &ce).unwrap();
    let mut writer = site.attach(&ce, Mode::Write, false, None);
    writer.send(Kind::Input, b"\n");
    let exit = writer.read_until(|seen| seen.exit.is_some()).exit.clone().unwrap();
    assert_eq!((exit.cause, exit.code), (Cause::Exit, Some(133)));
    assert_eq!(client::list(&site.paths).unwrap(), []);
}

#[test]
fn a_launcher_that_fails_says_why() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let refused = site.spawn(&ce, "fail", "uml", plain()).unwrap_err();
    let why = "starting guest 'ce': its launcher ended with status 3 before the guest was there: ";
    let text = refused.to_string();
    assert!(text.starts_with(why) && text.ends_with("no such kernel | use another"), "{text}");
    let mut missing = site.launch(&ce, "", "uml", None);
    missing.argv = vec!["/nowhere/gridgate".to_owned()];
    let refused = client::spawn(&site.paths, &ce, missing, plain(), LIMIT).unwrap_err();
    assert!(
        refused.to_string().starts_with("starting guest 'ce': starting '/nowhere/gridgate': "),
        "{refused}"
    );
    let pattern = Settings { ready: vec![ReadyCheck::Console("(".to_owned())], ..plain() };
    let refused = site.spawn(&ce, "exec cat", "uml", pattern).unwrap_err();
    assert!(
        refused.to_string().starts_with("starting guest 'ce': understanding the pattern '('"),
        "{refused}"
    );
    site.spawn(&ce, "exec cat", "uml", plain()).unwrap();
}

#[test]
fn a_guest_cannot_be_started_twice() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", plain()).unwrap();
    let pid = site.state(&ce).unwrap().pid;
    let refused = site.spawn(&ce, "exec cat", "uml", plain()).unwrap_err();
    assert_eq!(refused.to_string(), format!("starting guest 'ce': it is running already, as process {pid}"));
}

#[test]
fn the_holder_quits_only_when_no_guest_is_left() {
    let Some(mut site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", plain()).unwrap();
    let refused = client::quit(&site.paths).unwrap_err();
    assert_eq!(refused.to_string(), "ending the console holder: guests are running: ce");
    kill(site.state(&ce).unwrap().pid, Signal::TERM);
    client::wait_event(&site.paths, &ce, For::Stopped, None, LIMIT).unwrap().unwrap();
    client::quit(&site.paths).unwrap();
    assert!(site.holder.take().unwrap().wait().unwrap().success());
}

#[test]
fn sigterm_ends_the_holder_and_not_the_guests() {
    let Some(mut site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", plain()).unwrap();
    let pid = site.state(&ce).unwrap().pid;
    kill(site.holder_pid().cast_signed(), Signal::TERM);
    assert!(site.holder.take().unwrap().wait().unwrap().success());
    assert!(RunRecord::read(&site.paths, &ce).unwrap().unwrap().is_alive());
    site.start_holder();
    let mut writer = site.attach(&ce, Mode::Write, false, None);
    writer.send(Kind::Input, b"alive");
    writer.read_until(|seen| seen.live == b"alive");
    assert_eq!(site.state(&ce).unwrap().pid, pid);
}

#[test]
fn a_guest_is_ready_when_its_login_prompt_and_its_port_are_there() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let settings = Settings {
        ready: vec![ReadyCheck::Login, ReadyCheck::Tcp(port)],
        address: Some(IpAddr::from([127, 0, 0, 1])),
        ready_timeout_ms: 60_000,
        ..plain()
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
    let settings = Settings { ready: vec![ReadyCheck::Login], ready_timeout_ms: 50, ..plain() };
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
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { ready: vec![ReadyCheck::Login], ..plain() };
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
    let settings = Settings { ready: vec![ReadyCheck::Login], ..plain() };
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
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { ready: vec![ReadyCheck::Login], ..plain() };
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
fn a_holder_is_started_once_whoever_asks() {
    let Some(site) = Site::without_holder() else { return };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let paths = site.paths.clone();
            std::thread::spawn(move || client::ensure_holder(&paths, &support::exe()))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(client::list(&site.paths).unwrap(), []);
    let second = std::process::Command::new(support::exe())
        .arg("--site")
        .arg(&site.paths.site)
        .arg("--state")
        .arg(&site.paths.state)
        .arg("hold")
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(contains(&second.stderr, "another holder is there already"));
    client::quit(&site.paths).unwrap();
}

#[test]
fn an_idle_holder_does_nothing() {
    let Some(site) = Site::new() else { return };
    for name in ["ce", "se", "ui", "wn"] {
        site.spawn(&guest(name), "echo hello; exec cat", "uml", plain()).unwrap();
        eventually("it has spoken", || site.state(&guest(name)).filter(|s| s.output_bytes == 6));
    }
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.holder_pid())).unwrap();
        status.lines().filter(|l| l.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    std::thread::sleep(Duration::from_millis(50));
    let (before, began) = (switches(), Instant::now());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(switches(), before, "within {:?}", began.elapsed());
    let used = memory(site.holder_pid());
    eprintln!("a holder with four idle consoles: {used} KiB PSS (this build)");
}

/// A filesystem of 64 KiB, gone with the guard.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(path: &std::path::Path) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        std::fs::create_dir_all(path).unwrap();
        if mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=64k").is_err() {
            eprintln!("skipped: this test needs to mount a small filesystem");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_costs_the_log_and_not_the_console() {
    let Some(mut site) = Site::new() else { return };
    let Some(_disk) = SmallDisk::at(&site.paths.console(&guest("ce"))) else { return };
    let ce = site.guest("ce", &format!("{}; exec cat", numbers(20_000)), plain());
    let said = numbered(20_000).len() as u64;
    let state = eventually("all is said", || site.state(&ce.name).filter(|s| s.output_bytes == said));
    assert!(state.lost_bytes > 0 && state.log_bytes < 64 << 10, "{state:?}");
    assert_eq!(state.lost_bytes + state.log_bytes, said);
    assert!(state.log_trouble.is_some_and(|t| t.starts_with("No space left on device")));
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    let kept = usize::try_from(state.log_bytes).unwrap();
    writer.read_until(|seen| seen.replay.len() == kept && seen.notices.len() == 1);
    writer.send(Kind::Input, b"still served");
    let seen = writer.read_until(|seen| seen.live.len() == 12);
    assert_eq!(seen.live, b"still served");
    assert_eq!(seen.notices, [format!("{} bytes skipped", state.lost_bytes)]);
}

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use super::*;
use proptest::prelude::*;

/// As the holder does it.
fn watch(run: &RunRecord, settings: &Settings, earlier: Option<ReadyRecord>) -> Result<Watch> {
    let place = Place { guest: "ce".parse().unwrap(), agent: "/nowhere".into(), checks: "false".to_owned() };
    Watch::new(&place, run, settings, run.launched(), earlier)
}

fn run() -> RunRecord {
    RunRecord::of_this_process("uml", 3, None).unwrap()
}

fn settings(ready: Vec<ReadyCheck>, ready_timeout_ms: u64) -> Settings {
    Settings {
        ready,
        ready_timeout_ms,
        address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..Settings::default()
    }
}

fn state(watch: &mut Watch) -> ReadyState {
    watch.conclude(Instant::now());
    watch.record().state
}

#[test]
fn a_guest_with_nothing_to_wait_for_is_ready_at_once() {
    let mut watch = self::watch(&run(), &settings(vec![], 1000), None).unwrap();
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert_eq!(watch.timer(), None);
}

#[test]
fn a_login_prompt_is_seen_across_any_two_chunks() {
    let text = b"Debian GNU/Linux 12 ce tty0\r\n\r\n\x1b[0mce \x1b[1mlogin: ";
    for cut in 0..text.len() {
        let mut watch = self::watch(&run(), &settings(vec![ReadyCheck::Login], 0), None).unwrap();
        watch.output(&text[..cut]);
        assert_eq!(state(&mut watch), ReadyState::Waiting, "cut at {cut}");
        watch.output(&text[cut..]);
        assert_eq!(state(&mut watch), ReadyState::Ready, "cut at {cut}");
    }
}

#[test]
fn all_signs_must_be_seen() {
    let checks = vec![ReadyCheck::Login, ReadyCheck::Console("^service .* up$".to_owned())];
    let mut watch = self::watch(&run(), &settings(checks, 0), None).unwrap();
    assert!(!watch.has_news());
    watch.output(b"ce login: ");
    assert_eq!(state(&mut watch), ReadyState::Waiting);
    assert!(watch.has_news() && !watch.has_news());
    watch.output(b"\r\nservice gatekeeper up\r\n");
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert!(watch.record().checks.iter().all(|c| c.at_ms.is_some()));
}

#[test]
fn a_slow_guest_is_degraded_and_may_still_become_ready() {
    let mut late = run();
    late.start_ticks -= 5 * rustix::param::clock_ticks_per_second();
    let mut watch = self::watch(&late, &settings(vec![ReadyCheck::Login], 1000), None).unwrap();
    assert!(watch.timer().is_some_and(|t| t <= Instant::now()));
    assert_eq!(state(&mut watch), ReadyState::Degraded);
    assert_eq!(watch.timer(), None);
    watch.output(b"ce login: ");
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert!(watch.record().after_ms >= 5000);
}

#[test]
fn the_next_holder_counts_on_whatever_the_clock_says_meanwhile() {
    let limited = settings(vec![ReadyCheck::Login], 600_000);
    for set_to_ms in [0, now_ms() + 3_600_000] {
        let first = watch(&run(), &limited, None).unwrap();
        // As if the clock had been set since the launch.
        let earlier = ReadyRecord { began_at_ms: set_to_ms, ..first.record().clone() };
        let mut next = watch(&run(), &limited, Some(earlier)).unwrap();
        let left = next.timer().unwrap().saturating_duration_since(Instant::now());
        assert!((300_000..=600_000).contains(&left.as_millis()), "{left:?}");
        assert_eq!(state(&mut next), ReadyState::Waiting);
        next.output(b"ce login: ");
        assert_eq!(state(&mut next), ReadyState::Ready);
        assert!(next.record().after_ms < 300_000, "{}", next.record().after_ms);
    }
}

#[test]
fn what_another_holder_saw_counts_for_the_same_process_only() {
    let checks = settings(vec![ReadyCheck::Login], 0);
    let mut first = watch(&run(), &checks, None).unwrap();
    first.output(b"ce login: ");
    assert_eq!(state(&mut first), ReadyState::Ready);
    let mut same = watch(&run(), &checks, Some(first.record().clone())).unwrap();
    assert_eq!(state(&mut same), ReadyState::Ready);
    let mut other = run();
    other.start_ticks += 1;
    let mut other = watch(&other, &checks, Some(first.record().clone())).unwrap();
    assert_eq!(state(&mut other), ReadyState::Waiting);
}

#[test]
fn a_pattern_that_cannot_be_understood_is_refused() {
    let refused = watch(&run(), &settings(vec![ReadyCheck::Console("(".to_owned())], 0), None);
    assert!(refused.unwrap_err().to_string().starts_with("understanding the pattern '('"));
}

/// Asks until one attempt has come to its end, whatever that is.
fn ask(watch: &mut Watch) -> ReadyState {
    let mut attempt: Option<OwnedFd> = None;
    watch.tick(Instant::now(), |_, fd| attempt = Some(fd.try_clone_to_owned().unwrap()));
    while let (Some(fd), Some(Sign::Asked(Asked { pending: true, .. }))) = (&attempt, watch.signs.first()) {
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let flags = rustix::event::PollFlags::IN;
        // A connection attempt becomes writable first, and then there may be something to read.
        let _ = rustix::event::poll(
            &mut [rustix::event::PollFd::new(fd, rustix::event::PollFlags::OUT | flags)],
            Some(&limit),
        );
        watch.attempted(0, Instant::now());
        std::thread::yield_now();
    }
    state(watch)
}

fn port_seen(check: ReadyCheck, netns: Option<PathBuf>) -> ReadyState {
    let there = RunRecord { netns, ..run() };
    ask(&mut watch(&there, &settings(vec![check], 0), None).unwrap())
}

#[test]
fn only_a_server_that_says_so_is_an_ssh_server() {
    let says = |banner: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            // The client may have seen enough before all is written.
            let _ = client.write_all(banner);
        });
        let state = port_seen(ReadyCheck::Ssh(port), None);
        server.join().unwrap();
        state
    };
    assert_eq!(says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), ReadyState::Ready);
    assert_eq!(says(b"no shell today\r\nSSH-1.99-x\r\n"), ReadyState::Ready);
    assert_eq!(says(b"220 ce ESMTP SSH-2.0-no\r\n"), ReadyState::Waiting);
    assert_eq!(says(&[b'x'; 100_000]), ReadyState::Waiting);
    assert_eq!(says(b""), ReadyState::Waiting);
}

#[test]
fn a_command_is_run_with_guest_and_address_until_it_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let line = format!("test \"$GUEST $ADDRESS\" = 'ce 127.0.0.1' && test -e {}", flag.display());
    let mut watch = self::watch(&run(), &settings(vec![ReadyCheck::Command(line)], 0), None).unwrap();
    let before = Instant::now();
    assert_eq!(ask(&mut watch), ReadyState::Waiting);
    let next = watch.timer().unwrap();
    assert!(next >= before + Duration::from_millis(500), "it is not run again at once");
    std::fs::write(&flag, "").unwrap();
    let Some(Sign::Asked(asked)) = watch.signs.first_mut() else { panic!("{watch:?}") };
    asked.next = Instant::now();
    assert_eq!(ask(&mut watch), ReadyState::Ready);
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let line = format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    let mut watch = self::watch(&run(), &settings(vec![ReadyCheck::Command(line)], 0), None).unwrap();
    watch.tick(Instant::now(), |_, _| ());
    let began = Instant::now();
    while !pids.exists() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    let text = std::fs::read_to_string(&pids).unwrap();
    drop(watch);
    for pid in text.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()) {
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while stat().contains("(sh)") || stat().contains("(sleep) S") {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", stat());
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_missing_heartbeat_degrades_and_the_next_one_mends() {
    let mut watch = self::watch(&run(), &settings(vec![ReadyCheck::Heartbeat(30)], 0), None).unwrap();
    let start = Instant::now();
    assert_eq!(state(&mut watch), ReadyState::Waiting);
    watch.beat(start);
    assert_eq!(state(&mut watch), ReadyState::Ready);
    let first_ready = watch.record().ready_at_ms;
    watch.tick(start + Duration::from_secs(29), |_, _| ());
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert_eq!(watch.timer(), Some(start + Duration::from_secs(30)));
    watch.tick(start + Duration::from_secs(30), |_, _| ());
    assert_eq!(state(&mut watch), ReadyState::Degraded);
    assert_eq!(watch.timer(), None);
    watch.beat(start + Duration::from_secs(40));
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert_eq!(watch.record().ready_at_ms, first_ready);
}

#[test]
fn what_the_guest_says_of_itself_counts_where_it_is_asked_for() {
    let checks = vec![ReadyCheck::Notify, ReadyCheck::Login];
    let mut watch = self::watch(&run(), &settings(checks, 0), None).unwrap();
    watch.told_ready();
    assert_eq!(state(&mut watch), ReadyState::Waiting);
    watch.output(b"ce login: ");
    assert_eq!(state(&mut watch), ReadyState::Ready);
    assert!(watch.told("starting".to_owned()));
    assert!(!watch.told("starting".to_owned()));
    assert!(watch.told(String::new()));
    assert_eq!(watch.record().said, None);
}

#[test]
fn a_guest_agent_is_there_when_it_answers_the_question_that_was_asked() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = std::thread::spawn(move || {
        for answer in ["\n\u{0}garbage", "RIGHT"] {
            let (mut client, _) = listener.accept().unwrap();
            let mut line = Vec::new();
            BufReader::new(client.try_clone().unwrap()).read_until(b'\n', &mut line).unwrap();
            assert_eq!(line[0], 0xff);
            let asked: serde_json::Value = serde_json::from_slice(&line[1..]).unwrap();
            let id = &asked["arguments"]["id"];
            let text = format!("{{\"return\": {id}}}\n");
            let bytes = match answer {
                "RIGHT" => [b"{\"half\xff", text.as_bytes()].concat(),
                other => other.as_bytes().to_vec(),
            };
            client.write_all(&bytes).unwrap();
        }
    });
    let place = Place { guest: "ce".parse().unwrap(), agent: path, checks: "false".to_owned() };
    let settings = settings(vec![ReadyCheck::Agent], 0);
    let mut watch = Watch::new(&place, &run(), &settings, Moment::now(), None).unwrap();
    assert_eq!(ask(&mut watch), ReadyState::Waiting);
    let Some(Sign::Asked(asked)) = watch.signs.first_mut() else { panic!("{watch:?}") };
    asked.next = Instant::now();
    assert_eq!(ask(&mut watch), ReadyState::Ready);
    agent.join().unwrap();
}

proptest! {
    #[test]
    fn whatever_a_server_or_an_agent_says_is_understood_or_not(said in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = port::is_ssh(&said);
        let _ = agent::synchronised(&said);
    }
}

#[test]
fn a_port_is_looked_for_in_the_network_namespace_of_the_guest() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    // A thread of its own: a network namespace belongs to a thread.
    let inside = std::thread::spawn(move || {
        let lo_up = || std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err()
            || !lo_up().is_ok_and(|s| s.success())
        {
            return eprintln!("skipped: this test needs 'ip' and a network namespace of its own");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let namespace = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        tell.send((listener.local_addr().unwrap().port(), PathBuf::from(namespace))).unwrap();
        let _ = ended.recv();
    });
    if let Ok((port, namespace)) = told.recv() {
        let home = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = home();
        assert_eq!(port_seen(ReadyCheck::Tcp(port), Some(namespace)), ReadyState::Ready);
        assert_eq!(port_seen(ReadyCheck::Tcp(port), Some(PathBuf::from("/nowhere"))), ReadyState::Waiting);
        assert_eq!(home(), before);
    }
    drop(end);
    inside.join().unwrap();
}

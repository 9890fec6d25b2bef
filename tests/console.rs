//! The console holder with real terminals: programs on ptys stand for guests.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gridgate::console::logread::{self, BootReader};
use gridgate::console::protocol::{Kind, Mode, Position, Settings};
use gridgate::console::record::RunRecord;
use gridgate::paths::Paths;
use support::{Site, eventually, guest};

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
    if !support::take_over::is_possible() {
        return;
    }
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

/// Seconds until five guests at once have each said eight megabytes.
fn all_talk(site: &Site, guests: &[support::Guest], bytes: u64) -> f64 {
    let began = Instant::now();
    for guest in guests {
        let mut writer = site.attach(&guest.name, Mode::Write, false, None);
        writer.send(Kind::Input, b"go\n");
        writer.send(Kind::Detach, b"");
    }
    for guest in guests {
        eventually("it has said all", || site.state(&guest.name).filter(|s| s.output_bytes == bytes));
    }
    began.elapsed().as_secs_f64()
}

#[test]
fn five_guests_at_full_speed_are_not_slowed_by_readers_that_never_read() {
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { log_bytes: 256 << 10, ..plain() };
    let talk = "while read go; do head -c 8000000 /dev/zero | tr '\\0' x; done";
    let guests: Vec<_> = (0..5).map(|n| site.guest(&format!("g{n}"), talk, settings.clone())).collect();
    let alone = all_talk(&site, &guests, 8_000_000);
    let stuck: Vec<_> = guests.iter().map(|g| site.attach(&g.name, Mode::Read, false, None)).collect();
    let before = memory(site.holder_pid());
    let watched = all_talk(&site, &guests, 16_000_000);
    let grown = memory(site.holder_pid()).saturating_sub(before);
    assert!(grown < 5 * 1024, "{grown} KiB more");
    // Twice is a busy machine; one that waits for a reader never ends.
    assert!(watched < 2.0 * alone + 1.0, "{watched} s, and {alone} s without readers");
    for mut reader in stuck {
        let seen = reader.read_until(|seen| !seen.notices.is_empty());
        assert!(seen.notices[0].ends_with(" bytes skipped"), "{:?}", seen.notices);
    }
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
fn who_waits_to_write_is_the_writer_when_the_other_leaves() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", plain());
    let mut first = site.attach(&ce.name, Mode::Write, false, None);
    let mut reader = site.attach(&ce.name, Mode::Read, false, None);
    let mut second = site.attach(&ce.name, Mode::Write, false, None);
    let mut taker = site.attach(&ce.name, Mode::Write, true, None);
    first.read_until(|seen| seen.modes == [Mode::Read]);
    taker.send(Kind::Detach, b"");
    // The one who has waited longest.
    first.read_until(|seen| seen.modes == [Mode::Read, Mode::Write] && seen.notices.len() == 2);
    assert_eq!(first.seen.notices[1], "Write has left; you are writing now");
    drop(first);
    second.read_until(|seen| seen.modes == [Mode::Write]);
    second.send(Kind::Input, b"mine");
    reader.read_until(|seen| seen.live == b"mine");
    assert_eq!(reader.seen.modes, []);
    let clients = site.state(&ce.name).unwrap().clients;
    assert_eq!(clients.iter().map(|c| c.mode).collect::<Vec<_>>(), [Mode::Read, Mode::Write]);
}

#[test]
fn who_typed_is_written_down_and_not_what() {
    use gridgate::console::writers::writers;
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", plain());
    let dir = site.paths.console(&ce.name);
    let mut first = site.attach(&ce.name, Mode::Write, false, None);
    first.send(Kind::Input, b"sec");
    first.send(Kind::Input, b"ret\n");
    first.read_until(|seen| seen.live == b"secret\n");
    assert_eq!(writers(&dir).iter().map(|w| w.bytes).collect::<Vec<_>>(), [None]);
    let mut second = site.attach(&ce.name, Mode::Write, true, None);
    first.read_until(|seen| seen.modes == [Mode::Read]);
    second.send(Kind::Input, b"x");
    second.read_until(|seen| seen.output() == b"secret\nx");
    second.send(Kind::Detach, b"");
    eventually("they have left", || site.state(&ce.name).filter(|s| s.attached == 1));
    let known = writers(&dir);
    assert_eq!(
        known.iter().map(|w| (w.who.as_str(), w.bytes)).collect::<Vec<_>>(),
        [("Write", Some(7)), ("Write", Some(1))]
    );
    assert!(
        known
            .iter()
            .all(|w| w.pid == std::process::id().cast_signed() && w.ended_at_ms >= Some(w.began_at_ms))
    );
    assert!(!dir.join("typed.jsonl").exists());
}

#[test]
fn what_is_typed_is_kept_for_root_if_the_site_asks_for_it() {
    use std::os::unix::fs::MetadataExt;
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings { record: true, ..plain() });
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"hal\x1b[D");
    writer.send(Kind::Input, b"t\r");
    writer.read_until(|seen| seen.live.ends_with(b"t\r"));
    let path = site.paths.console(&ce.name).join("typed.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""text":"hal\\x1b[Dt\\r""#), "{text}");
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn the_administrators_group_reads_a_consoles_files_and_nobody_else() {
    use std::os::unix::fs::MetadataExt;
    let Some(adm) = nix::unistd::Group::from_name("adm").unwrap() else {
        eprintln!("skipped: this host has no group 'adm'");
        return;
    };
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo hello; exec cat", plain());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"x");
    writer.read_until(|seen| seen.output() == b"hello\nx");
    let dir = site.paths.console(&ce.name);
    let told = |path: &std::path::Path| {
        let meta = path.metadata().unwrap();
        (meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(told(&dir), (adm.gid.as_raw(), 0o750));
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(told(&entry.path()), (adm.gid.as_raw(), 0o640), "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(
        names,
        ["000001-000000000000.log", "000001-000000000000.times", "index.jsonl", "writers.jsonl"]
    );
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
    std::fs::write(site.paths.console(&guest("ce")).join("ballast"), [0; 20_000]).unwrap();
    let ce = site.guest("ce", &format!("{}; exec cat", numbers(20_000)), plain());
    let said = numbered(20_000).len() as u64;
    let state = eventually("all is said", || site.state(&ce.name).filter(|s| s.output_bytes == said));
    assert!(state.lost_bytes > 0 && state.log_bytes < 64 << 10, "{state:?}");
    assert_eq!(state.lost_bytes + state.log_bytes, said);
    assert!(state.log_trouble.is_some_and(|t| t.starts_with("No space left on device")));
    let told = "ce: the log of its console cannot be written: No space left on device";
    assert!(status(&site).contains(told), "{}", status(&site));
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    let kept = usize::try_from(state.log_bytes).unwrap();
    writer.read_until(|seen| seen.replay.len() == kept && seen.notices.len() == 1);
    writer.send(Kind::Input, b"still served");
    let seen = writer.read_until(|seen| seen.live.len() == 12);
    assert_eq!(seen.live, b"still served");
    assert_eq!(seen.notices, [format!("{} bytes skipped", state.lost_bytes)]);
    // Somebody makes room.
    std::fs::remove_file(site.paths.console(&ce.name).join("ballast")).unwrap();
    writer.send(Kind::Input, b", and logged");
    writer.read_until(|seen| seen.notices.len() == 2);
    let lost = state.lost_bytes + 12;
    assert_eq!(writer.seen.notices[1], format!("the log is written again; {lost} bytes are missing in it"));
    assert_eq!(writer.seen.live, b"still served, and logged");
    let now = site.state(&ce.name).unwrap();
    assert_eq!((now.lost_bytes, now.log_trouble), (lost, None));
    assert!(log_of(&site.paths, "ce", 0).ends_with(b", and logged"));
    assert!(!status(&site).contains(told));
    let events = std::fs::read_to_string(site.paths.events()).unwrap();
    let troubles: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let troubles = troubles.iter().filter(|event| event["event"] == "console-trouble");
    let troubles: Vec<&str> = troubles.map(|event| event["why"].as_str().unwrap()).collect();
    assert!(troubles[0].starts_with("its log cannot be written: No space left on device"));
    assert_eq!(troubles[1..], [""]);
}

/// What `gridgate status` says, of a site that has a guest `ce`.
fn status(site: &Site) -> String {
    let text = "name = \"x\"\n[defaults]\nbackend = \"uml\"\n[networks.lan]\nmode = \"rehearsal\"\n\
                subnet = \"10.77.0.0/24\"\n";
    std::fs::create_dir_all(site.paths.site.join("guests")).unwrap();
    std::fs::write(site.paths.site.join("site.toml"), text).unwrap();
    std::fs::write(site.paths.site.join("guests/ce.toml"), "").unwrap();
    let mut status = Command::new(support::exe());
    status.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state).arg("status");
    let ran = status.output().unwrap();
    String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
}

/// What the holder tells its service manager, and the descriptor that came with it.
fn told_manager(manager: &UnixDatagram) -> (String, Option<OwnedFd>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut ancillary, mut text) = (RecvAncillaryBuffer::new(&mut space), [0; 4096]);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(manager, &mut [std::io::IoSliceMut::new(&mut text)], &mut ancillary, flags).unwrap();
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (String::from_utf8(text[..got.bytes].to_vec()).unwrap(), fd)
}

#[test]
fn a_service_manager_hands_the_terminals_to_the_next_holder() {
    let Some(mut site) = Site::without_holder() else { return };
    let manager = UnixDatagram::bind(site.paths.state.join("notify")).unwrap();
    manager.set_read_timeout(Some(support::LIMIT)).unwrap();
    let mut holder = Command::new(support::exe());
    holder.env("NOTIFY_SOCKET", site.paths.state.join("notify")).stdin(Stdio::null());
    site.start_holder_as(holder);
    assert_eq!(told_manager(&manager).0, "READY=1");
    let ce = site.guest("ce", "echo booted; exec cat", plain());
    let (text, master) = told_manager(&manager);
    let mut record = RunRecord::read(&site.paths, &ce.name).unwrap().unwrap();
    let name = format!("ce.{}.{}", ce.pid, record.start_ticks);
    assert_eq!(text, format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"));
    site.kill_holder();
    // As if the guest's process had none, or could not be asked for it.
    record.console_fd = 9999;
    record.write(&site.paths, &ce.name).unwrap();
    let mut next = Command::new("sh");
    next.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 0</dev/null"]).arg(support::exe());
    next.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", &name).stdin(master.unwrap());
    next.env("NOTIFY_SOCKET", site.paths.state.join("notify"));
    site.start_holder_as(next);
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Input, b"hello");
    writer.read_until(|seen| seen.output() == b"booted\nhello");
    assert_eq!(told_manager(&manager).0, format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"));
    assert_eq!(told_manager(&manager).0, "READY=1");
    support::kill(ce.pid, rustix::process::Signal::KILL);
    assert_eq!(told_manager(&manager).0, format!("FDSTOREREMOVE=1\nFDNAME={name}"));
}

#[test]
fn an_emptied_run_directory_is_filled_again() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo booted; exec cat", plain());
    let mut old = site.attach(&ce.name, Mode::Write, false, None);
    old.read_until(|seen| seen.output() == b"booted\n");
    let record = RunRecord::read(&site.paths, &ce.name).unwrap();
    std::fs::remove_dir_all(&site.paths.run).unwrap();
    old.read_until(|seen| seen.notices.iter().any(|n| n.starts_with("the run directory was emptied")));
    old.send(Kind::Input, b"still there");
    old.read_until(|seen| seen.output() == b"booted\nstill there");
    assert_eq!(RunRecord::read(&site.paths, &ce.name).unwrap(), record);
    let mut new = site.attach(&ce.name, Mode::Read, false, None);
    new.read_until(|seen| seen.output() == b"booted\nstill there");
    assert!(site.paths.ready_record(&ce.name).exists() && site.paths.console_record(&ce.name).exists());
    // And once more, file by file.
    for path in [site.paths.holder_socket(), site.paths.holder_lock(), site.paths.holder_inflight()] {
        std::fs::remove_file(path).unwrap();
    }
    eventually("it can be asked again", || gridgate::console::client::holder_runs(&site.paths).then_some(()));
    let mut second = Command::new(support::exe());
    second.arg("--site").arg(&site.paths.site).arg("--state").arg(&site.paths.state).arg("hold");
    assert_eq!(second.stderr(Stdio::null()).status().unwrap().code(), Some(1), "it is refused as before");
    if support::take_over::is_possible() {
        site.kill_holder();
        site.start_holder();
        site.attach(&ce.name, Mode::Read, false, None)
            .read_until(|seen| seen.output() == b"booted\nstill there");
    }
}

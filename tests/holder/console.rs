//! The console holder with real terminals: programs on ptys stand for guests.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use gridgate::console::protocol::{Kind, Mode, Position, Settings};
use gridgate::console::record::RunRecord;

use crate::log::{contains, log_of, numbered, numbers};
use crate::support::{self, Site, eventually, guest};

#[test]
fn a_console_is_logged_from_its_first_byte() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "printf first; exec sleep 1000", Settings::default());
    let mut reader = site.attach(&ce.name, Mode::Read, false, None);
    reader.read_until(|seen| seen.output() == b"first");
    assert_eq!(log_of(&site.paths, "ce", 0), b"first");
}

#[test]
fn a_client_is_shown_the_whole_boot_and_what_comes_after() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", &format!("{}; exec cat", numbers(20_000)), Settings::default());
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
    let ce = site.guest("ce", &format!("{}; exec sleep 1000", numbers(60_000)), Settings::default());
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
    let settings = Settings { log_bytes: 256 << 10, ..Settings::default() };
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

/// Five guests at once say eight megabytes each.
fn all_talk(site: &Site, guests: &[support::Guest], bytes: u64) {
    for guest in guests {
        let mut writer = site.attach(&guest.name, Mode::Write, false, None);
        writer.send(Kind::Input, b"go\n");
        writer.send(Kind::Detach, b"");
    }
    for guest in guests {
        eventually("it has said all", || site.state(&guest.name).filter(|s| s.output_bytes == bytes));
    }
}

#[test]
fn five_guests_at_full_speed_do_not_wait_for_readers_that_never_read() {
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { log_bytes: 256 << 10, ..Settings::default() };
    let talk = "while read go; do head -c 8000000 /dev/zero | tr '\\0' x; done";
    let guests: Vec<_> = (0..5).map(|n| site.guest(&format!("g{n}"), talk, settings.clone())).collect();
    all_talk(&site, &guests, 8_000_000);
    let stuck: Vec<_> = guests.iter().map(|g| site.attach(&g.name, Mode::Read, false, None)).collect();
    let before = memory(site.holder_pid());
    all_talk(&site, &guests, 16_000_000);
    let grown = memory(site.holder_pid()).saturating_sub(before);
    assert!(grown < 5 * 1024, "{grown} KiB more");
    for mut reader in stuck {
        let seen = reader.read_until(|seen| !seen.notices.is_empty());
        assert!(seen.notices[0].ends_with(" bytes skipped"), "{:?}", seen.notices);
    }
}

/// KiB that are the process's own. A page of its program counts for more when another that has it mapped ends, and tests end
/// all the time: such pages are left out.
fn memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let own = |name: &str| -> u64 {
        let line = rollup.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    own("Pss_Anon:") + own("Pss_Shmem:")
}

#[test]
fn the_log_keeps_to_its_bound() {
    let Some(mut site) = Site::new() else { return };
    let settings = Settings { log_bytes: 128 << 10, ..Settings::default() };
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
        site.spawn(&guest(name), "echo hello; exec cat", "uml", Settings::default()).unwrap();
        eventually("it has spoken", || site.state(&guest(name)).filter(|s| s.output_bytes == 6));
    }
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.holder_pid())).unwrap();
        status.lines().filter(|l| l.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    // Once it is done with what they said: on a busy machine that takes as long as it takes.
    eventually("it is idle", || {
        let before = switches();
        std::thread::sleep(Duration::from_secs(2));
        (switches() == before).then_some(())
    });
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
    let ce = site.guest("ce", &format!("{}; exec cat", numbers(20_000)), Settings::default());
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
    let ce = site.guest("ce", "echo booted; exec cat", Settings::default());
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
    let ce = site.guest("ce", "echo booted; exec cat", Settings::default());
    let mut old = site.attach(&ce.name, Mode::Write, false, None);
    old.read_until(|seen| seen.output() == b"booted\n");
    let record = RunRecord::read(&site.paths, &ce.name).unwrap();
    // Again, if something is put back while it is emptied.
    eventually("it is emptied", || std::fs::remove_dir_all(&site.paths.run).ok());
    old.read_until(|seen| seen.notices.iter().any(|n| n.starts_with("the run directory was emptied")));
    old.send(Kind::Input, b"still there");
    old.read_until(|seen| seen.output() == b"booted\nstill there");
    assert_eq!(RunRecord::read(&site.paths, &ce.name).unwrap(), record);
    let mut new = site.attach(&ce.name, Mode::Read, false, None);
    new.read_until(|seen| seen.output() == b"booted\nstill there");
    assert!(site.paths.ready_record(&ce.name).exists() && site.paths.console_record(&ce.name).exists());
    // And once more: the one file by which it is found, and then all, one by one.
    std::fs::remove_file(site.paths.holder_socket()).unwrap();
    eventually("it can be asked again", || gridgate::console::client::holder_runs(&site.paths).then_some(()));
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

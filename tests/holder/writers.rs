//! Who types into a console, and how it reaches the guest.

use std::os::unix::fs::MetadataExt;

use gridgate::console::protocol::{Kind, Mode, Settings};

use crate::log::contains;
use crate::support::{Site, eventually};

#[test]
fn a_second_writer_reads_until_it_takes_the_console() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings::default());
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
    let ce = site.guest("ce", "exec cat", Settings::default());
    let mut first = site.attach(&ce.name, Mode::Write, false, None);
    first.send(Kind::Detach, b"");
    eventually("nobody writes", || site.state(&ce.name).filter(|s| s.writer.is_none() && s.attached == 0));
    assert_eq!(site.attach(&ce.name, Mode::Write, false, None).greeting.mode, Mode::Write);
}

#[test]
fn who_waits_to_write_is_the_writer_when_the_other_leaves() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings::default());
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
    let ce = site.guest("ce", "exec cat", Settings::default());
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
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec cat", Settings { record: true, ..Settings::default() });
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
    let Some(adm) = nix::unistd::Group::from_name("adm").unwrap() else {
        eprintln!("skipped: this host has no group 'adm'");
        return;
    };
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "echo hello; exec cat", Settings::default());
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
    let ce = site.guest("ce", "while read line; do stty size; done", Settings::default());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.send(Kind::Resize, &[0, 132, 0, 50]);
    writer.send(Kind::Input, b"\n");
    writer.read_until(|seen| seen.live == b"50 132\n");
}

#[test]
fn a_guest_that_does_not_read_blocks_nobody() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "exec sleep 1000", Settings::default());
    let se = site.guest("se", "exec cat", Settings::default());
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
    let ce = site.guest("ce", "echo on; sleep 0.3; head -c 500000 | cksum; exec cat", Settings::default());
    let mut writer = site.attach(&ce.name, Mode::Write, false, None);
    writer.read_until(|seen| seen.output() == b"on\n");
    for _ in 0..50 {
        writer.send(Kind::Input, &[b'y'; 10_000]);
    }
    let seen = writer.read_until(|seen| contains(&seen.output(), "500000\n"));
    assert_eq!(seen.output(), b"on\n1626787048 500000\n", "{:?}", seen.notices);
}

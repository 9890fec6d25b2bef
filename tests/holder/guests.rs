//! Guests under the console holder: how they start, end, and start again.

use gridgate::config::site::ReadyCheck;
use gridgate::console::client;
use gridgate::console::logread;
use gridgate::console::protocol::{Event, For, Kind, Mode, Position, Settings};
use gridgate::console::record::{Cause, ExitRecord, ReadyRecord, RunRecord};
use rustix::process::Signal;

use crate::log::{contains, log_of};
use crate::support::{self, LIMIT, Site, eventually, guest, kill};

#[test]
fn the_end_of_a_guest_is_written_down_with_its_last_words() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(
        &ce,
        "read go; printf '\\033[31mKernel panic\\033[0m\\nnot syncing'; exit 7",
        "uml",
        Settings::default(),
    )
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
    site.spawn(&ce, "exec sleep 1000", "uml", Settings::default()).unwrap();
    kill(site.state(&ce).unwrap().pid, Signal::KILL);
    let event = client::wait_event(&site.paths, &ce, For::Stopped, None, LIMIT).unwrap();
    let Some(Event::Stopped(Some(exit))) = event else { panic!("{event:?}") };
    assert_eq!((exit.cause, exit.code), (Cause::Signal, Some(9)));
}

#[test]
fn a_guest_of_a_service_manager_ends_for_reasons_that_others_know() {
    let Some(mut site) = Site::new() else { return };
    let ce = site.guest("ce", "read go; echo bye", Settings::default());
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
    let ce = site.guest("ce", "echo hello; exec sleep 1000", Settings::default());
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
        site.spawn(&ce, &format!("echo {words}"), "uml", Settings::default()).unwrap();
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
    site.spawn(&ce, script, "nspawn", Settings::default()).unwrap();
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
    site.spawn(&ce, "read word; exit 133", "nspawn", Settings::default()).unwrap();
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
    let refused = site.spawn(&ce, "fail", "uml", Settings::default()).unwrap_err();
    let why = "starting guest 'ce': its launcher ended with status 3 before the guest was there: ";
    let text = refused.to_string();
    assert!(text.starts_with(why) && text.ends_with("no such kernel | use another"), "{text}");
    let mut missing = site.launch(&ce, "", "uml", None);
    missing.argv = vec!["/nowhere/gridgate".to_owned()];
    let refused = client::spawn(&site.paths, &ce, missing, Settings::default(), LIMIT).unwrap_err();
    assert!(
        refused.to_string().starts_with("starting guest 'ce': starting '/nowhere/gridgate': "),
        "{refused}"
    );
    let pattern = Settings { ready: vec![ReadyCheck::Console("(".to_owned())], ..Settings::default() };
    let refused = site.spawn(&ce, "exec cat", "uml", pattern).unwrap_err();
    assert!(
        refused.to_string().starts_with("starting guest 'ce': understanding the pattern '('"),
        "{refused}"
    );
    site.spawn(&ce, "exec cat", "uml", Settings::default()).unwrap();
}

#[test]
fn a_guest_cannot_be_started_twice() {
    let Some(site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", Settings::default()).unwrap();
    let pid = site.state(&ce).unwrap().pid;
    let refused = site.spawn(&ce, "exec cat", "uml", Settings::default()).unwrap_err();
    assert_eq!(refused.to_string(), format!("starting guest 'ce': it is running already, as process {pid}"));
}

#[test]
fn the_holder_quits_only_when_no_guest_is_left() {
    let Some(mut site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", Settings::default()).unwrap();
    let refused = client::quit(&site.paths).unwrap_err();
    assert_eq!(refused.to_string(), "ending the console holder: guests are running: ce");
    kill(site.state(&ce).unwrap().pid, Signal::TERM);
    client::wait_event(&site.paths, &ce, For::Stopped, None, LIMIT).unwrap().unwrap();
    client::quit(&site.paths).unwrap();
    assert!(site.holder.take().unwrap().wait().unwrap().success());
}

#[test]
fn sigterm_ends_the_holder_and_not_the_guests() {
    if !support::take_over::is_possible() {
        return;
    }
    let Some(mut site) = Site::new() else { return };
    let ce = guest("ce");
    site.spawn(&ce, "exec cat", "uml", Settings::default()).unwrap();
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

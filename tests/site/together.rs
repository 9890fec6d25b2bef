//! Several commands, and several people, at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Running, TestSite, eventually, kill, take_over};

#[test]
fn a_guest_that_is_slow_to_boot_keeps_nobody_from_the_others() {
    let Some(site) = TestSite::quick(&["ce", "se"], "") else { return };
    site.replace(
        "guests/se.toml",
        "address",
        "ready = [\"console:never said\"]\nready_timeout = \"80s\"\naddress",
    );
    let up = site.start(&["up"]);
    eventually("ce is ready and se runs", || {
        (site.status("ce")["ready"] == "ready" && site.status("se")["observed"] == "running").then_some(())
    });
    site.run(&["kill", "ce"]).exits(0);
    site.run(&["start", "ce"]).exits(0);
    site.run(&["kill", "se"]).exits(0);
    up.end().exits(5).says("guest 'se' was stopped by another command while this one waited for it");
    assert_eq!(
        (&site.status("se")["desired"], &site.status("ce")["ready"]),
        (&"stopped".into(), &"ready".into())
    );
}

/// A generator of plain numbers, so that a storm can be had again by its seed (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

const GUESTS: [&str; 4] = ["ce", "se", "ui", "wn"];

/// One turn of the storm; what the guest was last asked to be, if this asked for anything.
fn turn(
    site: &TestSite,
    guest: &str,
    dice: &mut Dice,
    attached: &mut Vec<Running>,
) -> (String, Option<bool>) {
    // A command that meets another one at work gives up after its patience; that is an answer, too.
    let ask = |verb: &str, up: bool| {
        let ran = site.run(&[verb, guest]);
        let was_asked = !ran.err.contains("another gridgate command is at work");
        (format!("{verb} {guest}: {:?}", ran.status.code()), was_asked.then_some(up))
    };
    match dice.throw(8) {
        0 | 1 => ask("start", true),
        2 => ask("stop", false),
        3 => ask("restart", true),
        4 => ask("kill", false),
        5 => {
            if let Some(pid) = site.status(guest)["pid"].as_i64() {
                kill(pid as i32, Signal::KILL);
            }
            (format!("{guest}'s process killed"), None)
        }
        6 => {
            attached.push(site.start(&["console", guest, "--read-only"]));
            if attached.len() > 3 {
                attached.remove(0).signal(Signal::KILL);
            }
            (format!("attached to {guest}"), None)
        }
        _ => {
            let reboot = site.start(&["ssh", guest, "systemctl --force reboot"]);
            std::thread::sleep(Duration::from_millis(300));
            reboot.signal(Signal::TERM);
            reboot.end();
            (format!("{guest} told to reboot"), None)
        }
    }
}

/// `GRIDGATE_STORM_SECONDS` and `GRIDGATE_STORM_SEED` make another one of it.
#[test]
fn after_a_storm_guests_are_as_they_were_last_asked_to_be_and_nothing_is_left() {
    if !take_over::is_possible() {
        return;
    }
    let Some(site) = TestSite::quick(&GUESTS, "restart_delay = \"1s\"") else { return };
    let seed = number("GRIDGATE_STORM_SEED", u64::from(std::process::id()) + 1);
    let limit = Duration::from_secs(number("GRIDGATE_STORM_SECONDS", 30));
    eprintln!("the storm's seed is {seed}");
    site.run(&["up"]).exits(0);
    let began = Instant::now();
    let mut dice = Dice(seed);
    let mut history = Vec::new();
    let mut asked: BTreeMap<&str, bool> = GUESTS.iter().map(|guest| (*guest, true)).collect();
    std::thread::scope(|scope| {
        let weathers: Vec<_> = GUESTS
            .iter()
            .map(|guest| {
                let (site, mut dice) = (&site, Dice(dice.throw(u64::MAX) | 1));
                scope.spawn(move || {
                    let (mut history, mut attached, mut last) = (Vec::new(), Vec::new(), true);
                    while began.elapsed() < limit {
                        let (what, asked) = turn(site, guest, &mut dice, &mut attached);
                        history.push((began.elapsed(), what));
                        last = asked.unwrap_or(last);
                    }
                    for client in attached {
                        client.signal(Signal::KILL);
                        client.end();
                    }
                    (*guest, history, last)
                })
            })
            .collect();
        // And the holder of all the consoles goes again and again.
        let holders = scope.spawn(|| {
            let mut killed = 0;
            while began.elapsed() < limit {
                std::thread::sleep(Duration::from_secs(3));
                killed += usize::from(site.holder().is_some_and(|pid| {
                    kill(pid, Signal::KILL);
                    true
                }));
            }
            killed
        });
        for weather in weathers {
            let (guest, what, last) = weather.join().unwrap();
            history.extend(what);
            asked.insert(guest, last);
        }
        assert!(holders.join().unwrap() > 2);
    });
    history.sort();
    let told: Vec<String> =
        history.iter().map(|(at, what)| format!("{:.1} {what}", at.as_secs_f64())).collect();
    for (guest, up) in asked {
        let desired = if up { "running" } else { "stopped" };
        assert_eq!(site.status(guest)["desired"], desired, "{guest}, seed {seed}: {told:#?}");
        // One that was killed from outside, or with the holder of its console, comes back by itself or with the next word.
        if up {
            site.run(&["start", guest]).exits(0);
        }
        let expected = if up { "ready" } else { "no" };
        assert_eq!(site.status(guest)["ready"], expected, "{guest}, seed {seed}: {told:#?}");
    }
    site.run(&["gc"]).exits(0);
    site.run(&["down"]).exits(0);
    assert_eq!(site.left(), [""; 0], "seed {seed}: {told:#?}");
}

#[test]
fn every_process_of_gridgate_may_be_killed_and_the_guest_does_not_notice() {
    if !take_over::is_possible() {
        return;
    }
    let Some(site) = TestSite::one("ce", "") else { return };
    site.run(&["up"]).exits(0);
    let pid = site.pid("ce");
    let unharmed = |when: &str| {
        let status = site.status("ce");
        assert_eq!((&status["pid"], &status["ready"]), (&pid.into(), &"ready".into()), "{when}: {status}");
    };
    for words in
        [&["console", "ce"][..], &["events", "--follow"], &["status", "--watch"], &["ssh", "ce", "cat"]]
    {
        let mut command = site.command(words);
        command.stdin(std::process::Stdio::piped());
        let running = site.spawn(command);
        // It is at work when it is asleep.
        eventually("it waits for something", || running.sleeps().then_some(()));
        running.signal(Signal::KILL);
        running.end();
        unharmed(words[0]);
    }
    // The holder, with somebody attached: what the guest says next is seen there all the same.
    let attached = site.start(&["console", "ce", "--log", "--follow"]);
    eventually("it follows", || attached.said("login:").then_some(()));
    let holder = site.holder().unwrap();
    kill(holder, Signal::KILL);
    eventually("the holder is gone", || (site.holder() != Some(holder)).then_some(()));
    site.run(&["ssh", "ce", "echo heard-by-those-who-follow >/dev/console"]).exits(0);
    eventually("it is heard", || attached.said("heard-by-those-who-follow").then_some(()));
    attached.signal(Signal::KILL);
    attached.end();
    unharmed("holder");
    // A stop: the guest was asked, and goes down; whoever asks again is told how it went.
    let stop = site.start(&["stop", "ce"]);
    eventually("it was asked", || site.console("ce").contains("Stopped target").then_some(()));
    stop.signal(Signal::KILL);
    stop.end();
    site.run(&["wait", "ce", "--for", "stopped", "--timeout", "60s"]).exits(0);
    site.run(&["stop", "ce"]).exits(0);
    assert_eq!(
        (&site.status("ce")["desired"], &site.status("ce")["observed"]),
        (&"stopped".into(), &"stopped".into())
    );
}

//! What a console costs: processor time for 100 MB of output, memory, time from attach to the first byte and to the whole
//! boot, what a client costs that never reads. The same through other console holders, where they are installed.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod measure;
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../table/mod.rs"]
mod table;

use std::time::{Duration, Instant};

use gridgate::console::protocol::{Kind, Mode, Settings};
use measure::{cpu, pss, talk, wakeups};
use support::{Guest, Site, eventually};
use table::{Target, median, row};

/// As in the measurements that the targets come from.
pub const SESSIONS: usize = 5;
/// All sessions together.
pub const BYTES: u64 = 100_000_000;
const RUNS: usize = 5;
const BOOT: u64 = 1 << 20;

fn sessions(site: &mut Site, script: &str) -> Vec<Guest> {
    (0..SESSIONS).map(|n| site.guest(&format!("g{n}"), script, Settings::default())).collect()
}

fn go(site: &Site, guest: &Guest) {
    let mut writer = site.attach(&guest.name, Mode::Write, true, None);
    writer.send(Kind::Input, b"\n");
    writer.send(Kind::Detach, b"");
}

fn all_said(site: &Site, guests: &[Guest], bytes: u64) {
    for guest in guests {
        eventually("all is said", || {
            // Each question costs the holder time too.
            std::thread::sleep(Duration::from_millis(50));
            site.state(&guest.name).filter(|s| s.output_bytes == bytes)
        });
    }
}

/// Seconds for [`BYTES`] of five sessions, and kB that it cost to have clients that never read meanwhile.
fn output(readers: usize) -> (f64, f64) {
    let each = BYTES / SESSIONS as u64;
    let mut site = Site::new().unwrap();
    let guests = sessions(&mut site, &format!("read go; {}; exec sleep 1000", talk(each)));
    let stuck: Vec<_> =
        (0..readers).flat_map(|_| &guests).map(|g| site.attach(&g.name, Mode::Read, false, None)).collect();
    let before = pss(site.holder_pid());
    for guest in &guests {
        go(&site, guest);
    }
    all_said(&site, &guests, each);
    let grown = pss(site.holder_pid()) - before;
    drop(stuck);
    (cpu(site.holder_pid()), grown)
}

/// Milliseconds from connecting to the first byte, and to all of it.
fn attach(boot_bytes: u64) -> (f64, f64) {
    let mut site = Site::new().unwrap();
    let ce = site.guest("ce", &format!("{}; exec sleep 1000", talk(boot_bytes)), Settings::default());
    all_said(&site, std::slice::from_ref(&ce), boot_bytes);
    let kept = usize::try_from(site.state(&ce.name).unwrap().log_bytes).unwrap();
    let one = |_| {
        let began = Instant::now();
        let mut client = site.attach(&ce.name, Mode::Read, false, None);
        client.read_until(|seen| !seen.replay.is_empty());
        let first = table::millis(began.elapsed());
        client.read_until(|seen| seen.replay.len() == kept);
        (first, table::millis(began.elapsed()))
    };
    let (first, whole) = (0..21).map(one).unzip();
    (median(first), median(whole))
}

/// kB of a holder without consoles, with five idle ones, and how often that wakes up in a second.
fn idle() -> (f64, f64, f64) {
    let mut site = Site::new().unwrap();
    // After its beginning, and after each request, it gives memory back.
    let settled = || std::thread::sleep(Duration::from_millis(2500));
    settled();
    let alone = pss(site.holder_pid());
    let guests = sessions(&mut site, &format!("{}; exec sleep 1000", talk(50_000)));
    all_said(&site, &guests, 50_000);
    settled();
    let with = pss(site.holder_pid());
    let (before, began) = (wakeups(site.holder_pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let per_second = (wakeups(site.holder_pid()) - before) / began.elapsed().as_secs_f64();
    (alone, with, per_second)
}

fn main() {
    if std::env::var_os("LAUNCH_STATE").is_some() {
        return support::launcher();
    }
    if !table::asked_for() {
        return;
    }
    table::heading("a console, five sessions");
    let ours = median((0..RUNS).map(|_| output(0).0).collect());
    row("CPU time for 100 MB, logged, nobody attached", "s", ours, None, Target::AtMost(0.30));
    let (stuck, grown): (Vec<f64>, Vec<f64>) = (0..RUNS).map(|_| output(1)).unzip();
    let (with_stuck, grown) = (median(stuck), median(grown));
    row("the same, a stuck reader each", "s", with_stuck, None, Target::None);
    row("memory of a stuck reader", "MiB", grown / 1024.0 / SESSIONS as f64, None, Target::AtMost(1.0));
    let (alone, with, per_second) = idle();
    row("PSS of the holder alone", "MiB", alone / 1024.0, None, Target::AtMost(1.5));
    row("PSS of an idle console", "KiB", (with - alone) / SESSIONS as f64, None, Target::AtMost(64.0));
    row("wake-ups of five idle consoles, each second", "", per_second, None, Target::AtMost(1.0));
    let (first, whole) = attach(BOOT);
    row("attach to first byte, boot of 1 MiB", "ms", first, None, Target::AtMost(5.0));
    row("attach to all of it", "ms", whole, None, Target::AtMost(5.0));
    row("attach to first byte, boot of 12 MB", "ms", attach(12_000_000).0, None, Target::AtMost(5.0));
    for peer in peers::ALL {
        let Some(theirs) = peers::measure(peer) else { continue };
        row(&format!("CPU time for 100 MB / {}", peer.name), "s", ours, Some(theirs.cpu), Target::Ratio(1.0));
        row(
            &format!("PSS, five idle / {}", peer.name),
            "MiB",
            with / 1024.0,
            Some(theirs.pss / 1024.0),
            Target::None,
        );
        row(
            &format!("attach to first byte / {}", peer.name),
            "ms",
            first,
            theirs.first_byte,
            Target::Ratio(1.0),
        );
        match theirs.stuck {
            Some(grown) => row(
                &format!("a stuck reader / {}", peer.name),
                "MiB",
                0.0,
                Some(grown / 1024.0),
                Target::None,
            ),
            None => println!("{}: a reader that never reads stops the guest", peer.name),
        }
    }
}

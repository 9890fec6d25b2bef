//! What a console costs: processor time for 100 MB of output, time from attach to the first byte, memory of four idle
//! consoles. The same output through other console holders, where they are installed, gives the ratios.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

#[path = "../tests/support/mod.rs"]
mod support;
mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gridgate::console::protocol::{Mode, Settings};
use support::{Site, eventually, guest};
use table::{Target, median, row};

const BYTES: u64 = 100_000_000;
const RUNS: usize = 5;

/// Lines of 84 bytes.
fn talk(bytes: u64) -> String {
    format!("yes {} | head -c {bytes}", "x".repeat(83))
}

/// User and system time of a process, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// kB
fn pss(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn output(readers: usize) -> f64 {
    let one = |_| {
        let mut site = Site::new().unwrap();
        let script = format!("read go; {}; exec sleep 1000", talk(BYTES));
        let ce = site.guest("ce", &script, Settings::default());
        let mut writer = site.attach(&ce.name, Mode::Write, false, None);
        let clients: Vec<_> = (0..readers).map(|_| site.attach(&ce.name, Mode::Read, false, None)).collect();
        let followers: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                std::thread::spawn(move || {
                    let mut seen = 0;
                    while seen < BYTES && !client.seen.closed {
                        client.read_some();
                        let new = (client.seen.live.len() + client.seen.replay.len()) as u64;
                        seen += new;
                        // A reader that fell behind is skipped forward, and told where it is now.
                        if let Some(now) = client.seen.positions.last() {
                            seen = seen.max(now.offset + new);
                        }
                        client.seen = support::Seen::default();
                    }
                })
            })
            .collect();
        writer.send(gridgate::console::protocol::Kind::Input, b"\n");
        writer.send(gridgate::console::protocol::Kind::Detach, b"");
        eventually("all is said", || site.state(&ce.name).filter(|s| s.output_bytes == BYTES));
        for follower in followers {
            follower.join().unwrap();
        }
        cpu(site.holder_pid())
    };
    median((0..RUNS).map(one).collect())
}

/// Runs the same output under another holder; `None` if that is not installed.
fn other(start: &[&str], pattern: &str) -> Option<f64> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).any(|dir| dir.join(start[0]).is_file());
    if !found {
        eprintln!("skipped: '{}' is not installed", start[0]);
        return None;
    }
    let one = |_| {
        let dir = tempfile::tempdir().unwrap();
        let (socket, done) = (dir.path().join("socket"), dir.path().join("done"));
        let script = format!("{}; touch {}; exec sleep 1000", talk(BYTES), done.display());
        let fill = |arg: &&str| match *arg {
            "SOCKET" => socket.to_str().unwrap().to_owned(),
            "SCRIPT" => script.clone(),
            arg => arg.to_owned(),
        };
        let args: Vec<String> = start[1..].iter().map(fill).collect();
        Command::new(start[0]).args(args).stdin(Stdio::null()).status().unwrap();
        let pid = eventually("it runs", || with_argument(pattern, &socket));
        eventually("all is said", || done.exists().then_some(()));
        let used = cpu(pid);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        used
    };
    Some(median((0..RUNS).map(one).collect()))
}

/// The process of that name which was given this socket.
fn with_argument(name: &str, socket: &Path) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8(std::fs::read(entry.path().join("cmdline")).ok()?).ok()?;
        let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.starts_with(name) && line.contains(socket.to_str()?)).then_some(pid)
    })
}

fn first_byte(boot_bytes: u64) -> f64 {
    let mut site = Site::new().unwrap();
    let ce = site.guest("ce", &format!("{}; exec sleep 1000", talk(boot_bytes)), Settings::default());
    eventually("all is said", || site.state(&ce.name).filter(|s| s.output_bytes == boot_bytes));
    let one = |_| {
        let began = Instant::now();
        site.attach(&ce.name, Mode::Read, false, None).read_until(|seen| !seen.replay.is_empty());
        began.elapsed().as_secs_f64() * 1000.0
    };
    median((0..21).map(one).collect())
}

/// kB of the holder.
fn idle() -> f64 {
    let mut site = Site::new().unwrap();
    for name in ["ce", "se", "ui", "wn"] {
        let name = site.guest(name, &format!("{}; exec sleep 1000", talk(50_000)), Settings::default()).name;
        eventually("all is said", || site.state(&name).filter(|s| s.output_bytes == 50_000));
    }
    let alone = pss(site.holder_pid());
    let exe = std::fs::read_link(format!("/proc/{}/exe", site.holder_pid())).unwrap();
    assert_eq!(exe, support::exe(), "{:?}", guest("ce"));
    alone
}

fn main() {
    if std::env::var_os("LAUNCH_STATE").is_some() {
        return support::launcher();
    }
    if !table::asked_for() {
        return;
    }
    table::heading("a console");
    let what = "CPU time for 100 MB, logged, nobody attached";
    let ours = output(0);
    row(what, "s", ours, None, Target::AtMost(0.30));
    row("the same, one reader", "s", output(1), None, Target::None);
    let others: [(&str, &[&str]); 4] = [
        ("dtach", &["dtach", "-n", "SOCKET", "sh", "-c", "SCRIPT"]),
        ("abduco", &["abduco", "-n", "SOCKET", "sh", "-c", "SCRIPT"]),
        ("tmux", &["tmux", "-S", "SOCKET", "-f", "/dev/null", "new-session", "-d", "SCRIPT"]),
        (
            "screen",
            &[
                "screen",
                "-c",
                "/dev/null",
                "-S",
                "gridgate-bench",
                "-d",
                "-m",
                "sh",
                "-c",
                "SCRIPT",
                "SOCKET",
            ],
        ),
    ];
    for (name, start) in others {
        if let Some(theirs) = other(start, name) {
            row(&format!("CPU time for 100 MB / {name}"), "s", ours, Some(theirs), Target::None);
        }
    }
    row("attach to first byte, boot of 1 MB", "ms", first_byte(1_000_000), None, Target::AtMost(5.0));
    row("attach to first byte, boot of 12 MB", "ms", first_byte(12_000_000), None, Target::AtMost(5.0));
    row("PSS of the holder, four idle consoles", "MiB", idle() / 1024.0, None, Target::None);
}

//! One style for all benchmarks: what was measured, gridgate's number beside its peer's, their ratio, the target.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;

/// The heading, once for a benchmark.
pub fn heading(title: &str) {
    println!("\n{title}\n{:<46} {:>10} {:>10} {:>6}  target", "what", "gridgate", "peer", "ratio");
}

/// What a number is held against.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// gridgate's number is at most this.
    AtMost(f64),
    /// gridgate's number is at most so many times the peer's.
    Ratio(f64),
    /// gridgate's number is at most so much more than the peer's.
    Over(f64),
    /// At most so many times the peer's and so much more.
    RatioAnd(f64, f64),
    /// For the reader to judge.
    None,
}

/// One line; numbers are in the unit given.
pub fn row(what: &str, unit: &str, ours: f64, peer: Option<f64>, target: Target) {
    let number = |n: f64| format!("{n:.*} {unit}", if n < 10.0 { 2 } else { 0 });
    let against = peer.unwrap_or_default();
    let (limit, told) = match target {
        Target::AtMost(limit) => (limit, number(limit)),
        Target::Ratio(times) => (times * against, format!("{times:.2} x")),
        Target::Over(more) => (against + more, format!("+ {}", number(more))),
        Target::RatioAnd(times, more) => (times * against + more, format!("{times:.2} x + {}", number(more))),
        Target::None => (f64::INFINITY, String::new()),
    };
    let verdict = match target {
        Target::None => "",
        _ if ours <= limit => ", met",
        _ => ", MISSED",
    };
    let ratio = peer.map(|peer| format!("{:.2}", ours / peer)).unwrap_or_default();
    let peer = peer.map(number).unwrap_or_default();
    println!("{what:<46} {:>10} {peer:>10} {ratio:>6}  {told}{verdict}", number(ours));
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Milliseconds that the work takes.
pub fn time(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    millis(started.elapsed())
}

/// `cargo test --benches` starts benchmarks too, without this word.
pub fn asked_for() -> bool {
    std::env::args().any(|a| a == "--bench")
}

/// A state directory with a golden image and kernels: `GRIDGATE_TEST_STATE`, else what the tests or the demonstration
/// have left.
pub fn prepared() -> Option<PathBuf> {
    let named = std::env::var_os("GRIDGATE_TEST_STATE").map(PathBuf::from);
    let places = ["build/test/state", "build/demo/state"].map(PathBuf::from);
    let found = named.into_iter().chain(places).find(|dir| dir.join("images/debian-12/disk.ext4").exists());
    let found = found.and_then(|dir| dir.canonicalize().ok());
    if found.is_none() {
        eprintln!(
            "skipped: no golden image; 'make demo' makes one, or GRIDGATE_TEST_STATE=DIR says where one is"
        );
    }
    found
}

/// Mounts of this process's own, which end with it, however it ends.
pub fn own_mounts() {
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// Where disks are made: `GRIDGATE_BENCH_DIR`, else `target/`, since /tmp is often in memory.
pub fn scratch() -> tempfile::TempDir {
    let base = std::env::var_os("GRIDGATE_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = tempfile::tempdir_in(base.canonicalize().unwrap_or(base));
    dir.unwrap_or_else(|e| panic!("no directory to work in: {e}"))
}

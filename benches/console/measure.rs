//! What the kernel says of processes.

/// Lines of 84 bytes.
pub fn talk(bytes: u64) -> String {
    format!("yes {} | head -c {bytes}", "x".repeat(83))
}

/// User and system time of a process, in seconds.
pub fn cpu(pid: u32) -> f64 {
    // As exact as the kernel's own books, where the clock's ticks in `stat` are too coarse.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// kB
pub fn pss(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How often it was given a processor.
pub fn wakeups(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let switches = status.lines().filter(|l| l.contains("ctxt_switches"));
    switches.map(|l| l.split_whitespace().last().unwrap().parse::<f64>().unwrap()).sum()
}

//! Watching a guest until it is ready. Started and ready are different: a guest that takes too long is degraded, never
//! killed, and may still become ready.
//!
//! ```text
//!   waiting --- all signs seen ---> ready
//!      |                              ^
//!      +--- time over ---> degraded --+ all signs seen
//! ```

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::bytes::{Regex, RegexBuilder};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::site::ReadyCheck;
use crate::console::lines::{Lines, is_login_prompt};
use crate::console::now_ms;
use crate::console::protocol::Settings;
use crate::console::record::{CheckRecord, ReadyRecord, ReadyState, RunRecord};

/// Between two attempts to connect. A guest needs seconds to boot; this is little beside it, and little work.
const RETRY: Duration = Duration::from_millis(150);
/// The same for a guest that nobody waits for any more.
const RETRY_DEGRADED: Duration = Duration::from_secs(2);
/// An attempt without any answer is given up after this: the kernel's own repetition (1 s, 3 s, 7 s) would be late.
const PATIENCE: Duration = Duration::from_millis(1000);
/// Bound of a compiled pattern, and of its cache; enough for any line of a console.
const PATTERN_BYTES: usize = 1 << 20;

/// Compiles a console pattern as the watcher will; for checking a site's files too.
pub fn pattern(text: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(text);
    let built = builder.size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    built.with_context(|| format!("understanding the pattern '{text}'"))
}

#[derive(Debug)]
enum Sign {
    Login,
    Line(Regex),
    Port(Port),
}

#[derive(Debug)]
struct Port {
    to: Option<SocketAddr>,
    attempt: Option<OwnedFd>,
    /// When to begin the next attempt or give this one up.
    next: Instant,
}

/// One run of a guest, watched.
#[derive(Debug)]
pub struct Watch {
    record: ReadyRecord,
    signs: Vec<Sign>,
    lines: Lines,
    netns: Option<PathBuf>,
    launched_at_ms: u64,
    deadline: Option<Instant>,
}

impl Watch {
    /// Begins to watch; without any sign to wait for, the guest is ready at once. `earlier` is what another holder had seen of the
    /// same process.
    pub fn new(run: &RunRecord, settings: &Settings, earlier: Option<ReadyRecord>) -> Result<Self> {
        let now = Instant::now();
        let mut signs = Vec::new();
        for check in &settings.ready {
            signs.push(match check {
                ReadyCheck::Login => Sign::Login,
                ReadyCheck::Console(text) => Sign::Line(pattern(text)?),
                ReadyCheck::Tcp(port) => {
                    let to = settings.address.map(|mut to| {
                        to.set_port(*port);
                        to
                    });
                    Sign::Port(Port { to, attempt: None, next: now })
                }
                other => bail!("watching for {other:?}: the console holder cannot do it yet"),
            });
        }
        let since = Duration::from_millis(now_ms().saturating_sub(run.launched_at_ms));
        let limit = Duration::from_millis(settings.ready_timeout_ms);
        let deadline = (!limit.is_zero()).then(|| now + limit.saturating_sub(since));
        let same = |r: &ReadyRecord| {
            let checks = r.checks.iter().map(|c| &c.check);
            r.pid == run.pid && r.start_ticks == run.start_ticks && checks.eq(settings.ready.iter())
        };
        let fresh = || ReadyRecord {
            state: ReadyState::Waiting,
            at_ms: run.launched_at_ms,
            after_ms: 0,
            pid: run.pid,
            start_ticks: run.start_ticks,
            checks: settings.ready.iter().map(|c| CheckRecord { check: c.clone(), at_ms: None }).collect(),
        };
        let record = earlier.filter(same).unwrap_or_else(fresh);
        let launched_at_ms = run.launched_at_ms;
        let (lines, netns) = (Lines::default(), run.netns.clone());
        Ok(Self { record, signs, lines, netns, launched_at_ms, deadline })
    }

    /// How far it has come.
    pub fn record(&self) -> &ReadyRecord {
        &self.record
    }

    /// Whether output is still of interest.
    pub fn looks_at_output(&self) -> bool {
        self.record.state != ReadyState::Ready
    }

    /// The guest said something.
    pub fn output(&mut self, bytes: &[u8]) {
        let Self { lines, signs, record, .. } = self;
        lines.push(bytes, |line| {
            for (sign, check) in signs.iter().zip(&mut record.checks) {
                let seen = check.at_ms.is_none()
                    && match sign {
                        Sign::Login => is_login_prompt(line),
                        Sign::Line(pattern) => pattern.is_match(line),
                        Sign::Port(_) => false,
                    };
                if seen {
                    check.at_ms = Some(now_ms());
                }
            }
        });
    }

    /// When [`Watch::tick`] wants to be called; never, if there is nothing left to do.
    pub fn timer(&self) -> Option<Instant> {
        if self.record.state == ReadyState::Ready {
            return None;
        }
        let deadline = self.deadline.filter(|_| self.record.state == ReadyState::Waiting);
        let ports = self.open_ports().map(|port| port.next);
        ports.chain(deadline).min()
    }

    fn open_ports(&self) -> impl Iterator<Item = &Port> {
        self.signs.iter().zip(&self.record.checks).filter_map(|(sign, check)| match sign {
            Sign::Port(port) if check.at_ms.is_none() && port.to.is_some() => Some(port),
            _ => None,
        })
    }

    /// Does what is due. Calls `watch` with every new attempt: its number, and the socket that becomes writable when it has
    /// succeeded or failed.
    pub fn tick(&mut self, now: Instant, mut watch: impl FnMut(usize, BorrowedFd<'_>)) {
        let retry = self.retry();
        for index in 0..self.signs.len() {
            let Sign::Port(port) = &mut self.signs[index] else { continue };
            let Some(to) = port.to.filter(|_| self.record.checks[index].at_ms.is_none() && port.next <= now)
            else {
                continue;
            };
            match connect(to, self.netns.as_deref()) {
                Ok((_, true)) => self.record.checks[index].at_ms = Some(now_ms()),
                Ok((socket, false)) => {
                    watch(index, socket.as_fd());
                    port.attempt = Some(socket);
                    port.next = now + PATIENCE;
                }
                Err(_) => {
                    port.attempt = None;
                    port.next = now + retry;
                }
            }
        }
    }

    fn retry(&self) -> Duration {
        if self.record.state == ReadyState::Degraded { RETRY_DEGRADED } else { RETRY }
    }

    /// An attempt's socket has become writable.
    pub fn attempted(&mut self, index: usize, now: Instant) {
        let retry = self.retry();
        let Some(Sign::Port(port)) = self.signs.get_mut(index) else { return };
        let Some(socket) = port.attempt.take() else { return };
        match rustix::net::sockopt::socket_error(&socket) {
            Ok(Ok(())) if rustix::net::getpeername(&socket).is_ok() => {
                self.record.checks[index].at_ms = Some(now_ms());
            }
            _ => port.next = now + retry,
        }
    }

    /// Draws the conclusion from what was seen; true if the state is another one now.
    pub fn conclude(&mut self, now: Instant) -> bool {
        let all = self.record.checks.iter().all(|c| c.at_ms.is_some());
        let state = match self.record.state {
            ReadyState::Ready => ReadyState::Ready,
            _ if all => ReadyState::Ready,
            ReadyState::Waiting if self.deadline.is_some_and(|d| d <= now) => ReadyState::Degraded,
            same => same,
        };
        if state == self.record.state {
            return false;
        }
        self.record.state = state;
        self.record.at_ms = now_ms();
        self.record.after_ms = self.record.at_ms.saturating_sub(self.launched_at_ms);
        if state == ReadyState::Ready {
            // Patterns and their caches are the largest thing that a console has.
            self.signs = Vec::new();
            self.lines = Lines::default();
        }
        true
    }
}

/// Begins to connect; true if it is connected already.
fn connect(to: SocketAddr, netns: Option<&Path>) -> Result<(OwnedFd, bool)> {
    let socket = socket_in(to.ip(), netns)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(e) => Err(e).with_context(|| format!("connecting to '{to}'")),
    }
}

/// A socket belongs for ever to the network namespace that it was made in; this thread is there only meanwhile.
fn socket_in(ip: IpAddr, netns: Option<&Path>) -> Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let make = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).context("making a socket")
    };
    let Some(netns) = netns else { return make() };
    let enter =
        |namespace: &File| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    let open = |path: &Path| File::open(path).with_context(|| format!("opening '{}'", path.display()));
    let (home, there) = (open(Path::new("/proc/thread-self/ns/net"))?, open(netns)?);
    enter(&there).with_context(|| format!("entering the network namespace '{}'", netns.display()))?;
    let socket = make();
    enter(&home).context("coming back from a network namespace")?;
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut watch = Watch::new(&run(), &settings(vec![], 1000), None).unwrap();
        assert_eq!(state(&mut watch), ReadyState::Ready);
        assert_eq!(watch.timer(), None);
    }

    #[test]
    fn a_login_prompt_is_seen_across_any_two_chunks() {
        let text = b"Debian GNU/Linux 12 ce tty0\r\n\r\n\x1b[0mce \x1b[1mlogin: ";
        for cut in 0..text.len() {
            let mut watch = Watch::new(&run(), &settings(vec![ReadyCheck::Login], 0), None).unwrap();
            watch.output(&text[..cut]);
            assert_eq!(state(&mut watch), ReadyState::Waiting, "cut at {cut}");
            watch.output(&text[cut..]);
            assert_eq!(state(&mut watch), ReadyState::Ready, "cut at {cut}");
        }
    }

    #[test]
    fn all_signs_must_be_seen() {
        let checks = vec![ReadyCheck::Login, ReadyCheck::Console("^service .* up$".to_owned())];
        let mut watch = Watch::new(&run(), &settings(checks, 0), None).unwrap();
        watch.output(b"ce login: ");
        assert_eq!(state(&mut watch), ReadyState::Waiting);
        watch.output(b"\r\nservice gatekeeper up\r\n");
        assert_eq!(state(&mut watch), ReadyState::Ready);
        assert!(watch.record().checks.iter().all(|c| c.at_ms.is_some()));
    }

    #[test]
    fn a_slow_guest_is_degraded_and_may_still_become_ready() {
        let mut late = run();
        late.launched_at_ms -= 5000;
        let mut watch = Watch::new(&late, &settings(vec![ReadyCheck::Login], 1000), None).unwrap();
        assert!(watch.timer().is_some_and(|t| t <= Instant::now()));
        assert_eq!(state(&mut watch), ReadyState::Degraded);
        assert_eq!(watch.timer(), None);
        watch.output(b"ce login: ");
        assert_eq!(state(&mut watch), ReadyState::Ready);
        assert!(watch.record().after_ms >= 5000);
    }

    #[test]
    fn what_another_holder_saw_counts_for_the_same_process_only() {
        let checks = settings(vec![ReadyCheck::Login], 0);
        let mut first = Watch::new(&run(), &checks, None).unwrap();
        first.output(b"ce login: ");
        assert_eq!(state(&mut first), ReadyState::Ready);
        let mut same = Watch::new(&run(), &checks, Some(first.record().clone())).unwrap();
        assert_eq!(state(&mut same), ReadyState::Ready);
        let mut other = run();
        other.start_ticks += 1;
        let mut other = Watch::new(&other, &checks, Some(first.record().clone())).unwrap();
        assert_eq!(state(&mut other), ReadyState::Waiting);
    }

    #[test]
    fn a_pattern_that_cannot_be_understood_is_refused() {
        let refused = Watch::new(&run(), &settings(vec![ReadyCheck::Console("(".to_owned())], 0), None);
        assert!(refused.unwrap_err().to_string().starts_with("understanding the pattern '('"));
    }

    /// Watches one port until it has an answer, whatever that is.
    fn port_seen(port: u16, netns: Option<PathBuf>) -> ReadyState {
        let there = RunRecord { netns, ..run() };
        let mut watch = Watch::new(&there, &settings(vec![ReadyCheck::Tcp(port)], 0), None).unwrap();
        let mut socket = None;
        watch.tick(Instant::now(), |_, attempt| socket = Some(attempt.try_clone_to_owned().unwrap()));
        if let Some(socket) = socket {
            let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::OUT)];
            rustix::event::poll(&mut fds, Some(&limit)).unwrap();
            watch.attempted(0, Instant::now());
        }
        state(&mut watch)
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
            assert_eq!(port_seen(port, Some(namespace)), ReadyState::Ready);
            assert_eq!(port_seen(port, Some(PathBuf::from("/nowhere"))), ReadyState::Waiting);
            assert_eq!(home(), before);
        }
        drop(end);
        inside.join().unwrap();
    }
}

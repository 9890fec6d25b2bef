//! The near end of a command that runs on another box: what the user types and presses goes there.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::frames::{BEAT, Frame, LONGEST};
use super::signals::Signals;
use super::ssh::{Group, Ssh, Streams, start};

/// Bytes that wait for the link; then the user's input has to.
const WAITING: usize = 256 << 10;
/// After the user has asked twice, the far end has this long to tell how it ended.
const PATIENCE: Duration = Duration::from_secs(3);

/// How ssh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// With this status, which may be that of the command.
    Status(i32),
    /// The user has asked twice, and nothing came back.
    GivenUp,
}

/// Gives the command this terminal: ssh has it until the end, and what is pressed here is read there.
pub fn on_a_terminal(ssh: &Ssh, line: &str, signals: &Signals) -> Result<Over> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    let program = ssh.program(&["-t"], Some(line));
    let streams = Streams { input: Stdio::inherit(), output: Stdio::inherit() };
    let mut child = start(&program, streams, Group::Ours)?;
    let watch = watch(&child)?;
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&watch, PollFlags::IN)];
        wait(&mut fds, None)?;
        let ended = !fds[1].revents().is_empty();
        while let Some(number) = signals.next() {
            // Ctrl-C is none while the terminal is raw, and before that ssh gets it from the terminal too.
            if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                let _ = kill_process(Pid::from_child(&child), signal);
            }
        }
        if ended {
            break;
        }
    }
    let status = child.wait().context("waiting for ssh")?;
    // An ssh that was killed has left it raw.
    if let Some(before) = before {
        let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    }
    Ok(Over::Status(code(status)))
}

/// Runs the command without a terminal: its outputs come out here byte by byte, each on its own; signals, and input if it
/// reads any, go there as [`Frame`]s.
pub fn on_pipes(ssh: &Ssh, line: &str, input: bool, signals: &Signals) -> Result<Over> {
    // Who it is was proved when the connection began; a question now could not be answered.
    let program = ssh.with("BatchMode=yes").program(&["-T"], Some(line));
    let streams = Streams { input: Stdio::piped(), output: Stdio::inherit() };
    let mut child = start(&program, streams, Group::Own)?;
    let link: OwnedFd = child.stdin.take().context("ssh reads nothing")?.into();
    rustix::io::ioctl_fionbio(&link, true).context("preparing the link")?;
    let mut near = Near {
        watch: watch(&child)?,
        link: Some(link),
        waiting: Vec::new(),
        reading: input,
        next_beat: Instant::now() + BEAT,
        asked: 0,
        until: None,
    };
    loop {
        if near.step(signals)? {
            let status = child.wait().context("waiting for ssh")?;
            return Ok(Over::Status(code(status)));
        }
        if near.until.is_some_and(|until| Instant::now() >= until) {
            let _ = child.kill();
            child.wait().context("waiting for ssh")?;
            return Ok(Over::GivenUp);
        }
    }
}

struct Near {
    watch: OwnedFd,
    /// None as soon as nobody reads it.
    link: Option<OwnedFd>,
    waiting: Vec<u8>,
    reading: bool,
    next_beat: Instant,
    /// How often the user has asked for an end.
    asked: u32,
    until: Option<Instant>,
}

impl Near {
    /// Waits for something to do and does it; true if ssh has ended.
    fn step(&mut self, signals: &Signals) -> Result<bool> {
        let stdin = std::io::stdin();
        let none = PollFlags::empty();
        let reads = self.reading && self.waiting.len() < WAITING;
        let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&self.watch, PollFlags::IN)];
        fds.push(match &self.link {
            Some(link) => PollFd::new(link, if self.waiting.is_empty() { none } else { PollFlags::OUT }),
            None => PollFd::new(&self.watch, none),
        });
        if reads {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let now = Instant::now();
        let next = self.until.map_or(self.next_beat, |until| until.min(self.next_beat));
        wait(&mut fds, Some(next.saturating_duration_since(now)))?;
        let got: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if !got[1].is_empty() {
            return Ok(true);
        }
        while let Some(number) = signals.next() {
            self.send(&Frame::Signal(number));
            self.asked += 1;
            if self.asked == 2 {
                self.until = Some(Instant::now() + PATIENCE);
            }
        }
        if got.get(3).is_some_and(|flags| !flags.is_empty()) {
            self.read()?;
        }
        if Instant::now() >= self.next_beat {
            self.send(&Frame::Beat);
            self.next_beat = Instant::now() + BEAT;
        }
        self.write();
        Ok(false)
    }

    fn send(&mut self, frame: &Frame) {
        self.waiting.extend_from_slice(&frame.bytes());
    }

    fn read(&mut self) -> Result<()> {
        let mut piece = [0; LONGEST];
        match rustix::io::read(std::io::stdin().as_fd(), &mut piece) {
            Ok(0) | Err(Errno::IO) => {
                self.reading = false;
                self.send(&Frame::InputEnds);
            }
            Ok(n) => self.send(&Frame::Input(piece[..n].to_vec())),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error).context("reading the standard input"),
        }
        Ok(())
    }

    fn write(&mut self) {
        let Some(link) = &self.link else { return self.waiting.clear() };
        if self.waiting.is_empty() {
            return;
        }
        match rustix::io::write(link, &self.waiting) {
            Ok(n) => drop(self.waiting.drain(..n)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // ssh is about to end, and tells why.
            Err(_) => (self.link, self.reading) = (None, false),
        }
    }
}

fn watch(child: &Child) -> Result<OwnedFd> {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("watching ssh")
}

fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<()> {
    // Rounded up: a wait that ends a little early would be followed by many.
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    match poll(fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for the other box"),
    }
}

/// 128 + signal if a signal ended it, as shells have it.
fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Whether this process has a terminal to give: input and output both.
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

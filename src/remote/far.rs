//! The far end: runs the command on its box, hands it what the near end sends, and ends it when nobody is there any more.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::frames::{Frame, LONGEST, Reader};

/// A near end that has said nothing for this long is gone: several beats, and time for a suspended terminal.
pub const SILENCE: Duration = Duration::from_secs(120);
/// What the command gets when nobody is there any more, and after how long: asked, told (a second signal ends a gridgate at
/// once), killed. The first leaves time to walk back what was begun.
const LADDER: [(Signal, Duration); 3] = [
    (Signal::HUP, Duration::ZERO),
    (Signal::TERM, Duration::from_secs(60)),
    (Signal::KILL, Duration::from_secs(70)),
];
/// Input that the command has not read yet; then what comes after it has to wait, signals too.
const WAITING: usize = 4 << 20;

/// Runs this program with other words; its standard input is what [`Frame`]s bring, or empty. The command's exit status,
/// 128 + signal if a signal ended it. A near end that says nothing for `silence` is gone.
pub fn run(
    exe: &Path,
    words: &[OsString],
    env: &[(String, String)],
    input: bool,
    silence: Duration,
) -> Result<i32> {
    let mut command = Command::new(exe);
    command.args(words).envs(env.iter().map(|(k, v)| (k, v)));
    // Signals are for the command and all that it starts.
    command.stdin(if input { Stdio::piped() } else { Stdio::null() }).process_group(0);
    let mut child = command.spawn().with_context(|| format!("running '{}'", exe.display()))?;
    let pipe = child.stdin.take().map(OwnedFd::from);
    if let Some(pipe) = &pipe {
        rustix::io::ioctl_fionbio(pipe, true).context("preparing the command's input")?;
    }
    let watch = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("watching the command")?;
    let group = Pid::from_child(&child);
    let mut far = Far {
        watch,
        group,
        pipe,
        waiting: Vec::new(),
        input_over: false,
        reader: Reader::default(),
        heard: Instant::now(),
        silence,
        gone: None,
    };
    while !far.step()? {}
    let status = child_status(&mut child)?;
    if far.gone.is_some() {
        // Nobody could end what it has left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(status)
}

fn child_status(child: &mut Child) -> Result<i32> {
    let status = child.wait().context("waiting for the command")?;
    Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

struct Far {
    watch: OwnedFd,
    group: Pid,
    /// The command's input; none if it is over, or nobody reads it.
    pipe: Option<OwnedFd>,
    waiting: Vec<u8>,
    input_over: bool,
    reader: Reader,
    heard: Instant,
    silence: Duration,
    /// Since when nobody is there, and how many rungs of the ladder were taken.
    gone: Option<(Instant, usize)>,
}

impl Far {
    /// Waits for something to do and does it; true if the command has ended.
    fn step(&mut self) -> Result<bool> {
        let stdin = std::io::stdin();
        let listens = self.gone.is_none() && self.waiting.len() < WAITING;
        let listening = match (self.gone, listens) {
            (None, true) => PollFlags::IN,
            // The end of the near end is noticed all the same.
            (None, false) => PollFlags::RDHUP,
            (Some(_), _) => PollFlags::empty(),
        };
        let mut fds = vec![PollFd::new(&self.watch, PollFlags::IN)];
        if self.gone.is_none() {
            fds.push(PollFd::new(&stdin, listening));
        }
        if let Some(pipe) = self.pipe.as_ref().filter(|_| !self.waiting.is_empty()) {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        match poll(&mut fds, self.limit(listens).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the command"),
        }
        let ended = !fds[0].revents().is_empty();
        let heard = self.gone.is_none() && !fds[1].revents().is_empty();
        drop(fds);
        if ended {
            return Ok(true);
        }
        match (heard, listens) {
            (true, true) => self.listen(),
            (true, false) => self.lose(),
            (false, true) if self.heard.elapsed() >= self.silence => self.lose(),
            // What is not read does not tell whether somebody is there.
            (false, false) => self.heard = Instant::now(),
            (false, true) => {}
        }
        self.feed();
        self.climb();
        Ok(false)
    }

    fn limit(&self, listens: bool) -> Option<Timespec> {
        let limit = match self.gone {
            Some((since, rung)) => {
                LADDER.get(rung).map(|(_, after)| (since + *after).saturating_duration_since(Instant::now()))
            }
            None => listens.then(|| self.silence.saturating_sub(self.heard.elapsed())),
        };
        limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: i64::from(limit.subsec_nanos()),
        })
    }

    fn listen(&mut self) {
        let mut piece = [0; LONGEST];
        let frames = match rustix::io::read(std::io::stdin(), &mut piece) {
            Ok(0) => return self.lose(),
            Ok(n) => self.reader.push(&piece[..n]),
            Err(Errno::INTR | Errno::AGAIN) => return,
            Err(_) => return self.lose(),
        };
        // A stream that is not ours is as good as none.
        let Ok(frames) = frames else { return self.lose() };
        self.heard = Instant::now();
        for frame in frames {
            match frame {
                Frame::Input(bytes) if self.pipe.is_some() => self.waiting.extend_from_slice(&bytes),
                Frame::Signal(number) => {
                    if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                        let _ = kill_process_group(self.group, signal);
                    }
                }
                Frame::InputEnds => self.input_over = true,
                Frame::Input(_) | Frame::Beat => {}
            }
        }
    }

    fn feed(&mut self) {
        if let Some(pipe) = self.pipe.as_ref().filter(|_| !self.waiting.is_empty()) {
            match rustix::io::write(pipe, &self.waiting) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // The command reads no more.
                Err(_) => (self.pipe, self.waiting) = (None, Vec::new()),
            }
        }
        if self.input_over && self.waiting.is_empty() {
            self.pipe = None;
        }
    }

    fn lose(&mut self) {
        self.gone = self.gone.or(Some((Instant::now(), 0)));
        (self.pipe, self.waiting) = (None, Vec::new());
    }

    fn climb(&mut self) {
        let Some((since, rung)) = &mut self.gone else { return };
        while let Some((signal, after)) = LADDER.get(*rung)
            && since.elapsed() >= *after
        {
            let _ = kill_process_group(self.group, *signal);
            *rung += 1;
        }
    }
}

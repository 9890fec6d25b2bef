//! A connection to a box: begun, asked what is there, kept until the last command is over.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::shared::Shared;
use super::signals::Signals;
use super::ssh::{Group, Ssh, Streams, start};
use super::there::{There, script};

/// A box that answers.
#[derive(Debug)]
pub struct Connection {
    /// The way to it.
    pub shared: Shared,
    /// What it has.
    pub there: There,
    /// A shell there that reads its commands here: as long as this process lives the connection does.
    shell: Child,
    input: Option<ChildStdin>,
}

impl Connection {
    /// Connects, and asks. ssh itself talks with the user, about keys and passwords.
    pub fn open(ssh: Ssh, signals: &Signals) -> Result<Self> {
        let what = format!("reaching '{}'", ssh.address);
        let shared = Shared::new(ssh)?;
        let program = shared.first().quiet().program(&["-T"], Some("exec /bin/sh"));
        let streams = Streams { input: Stdio::piped(), output: Stdio::piped() };
        let mut shell = start(&program, streams, Group::Ours)?;
        let mut input = shell.stdin.take().context("ssh reads nothing")?;
        // A shell that never comes is told of by what it prints, which is nothing.
        let _ = input.write_all(script().as_bytes());
        let mut output = shell.stdout.take().context("ssh prints nothing")?;
        let mut connection = Self { shared, there: There::default(), shell, input: Some(input) };
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&output, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context(what),
            }
            let answers = !fds[1].revents().is_empty();
            if signals.next().is_some() {
                // ssh gets the same from the terminal, if it comes from there.
                let _ = connection.shell.kill();
                bail!("{what}: interrupted");
            }
            if !answers {
                continue;
            }
            match output.read(&mut piece).with_context(|| what.clone())? {
                0 => return Err(connection.refused(&bytes).context(what)),
                n => bytes.extend_from_slice(&piece[..n]),
            }
            let heard = String::from_utf8_lossy(&bytes).into_owned();
            let complete = heard.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let mut there = There::default();
            if complete.lines().any(|line| there.hear(line)) {
                connection.there = there;
                return Ok(connection);
            }
            if bytes.len() > MOST_NOISE {
                bail!("{what}: its login prints more than a login should");
            }
        }
    }

    /// Why there was no answer.
    fn refused(&mut self, said: &[u8]) -> anyhow::Error {
        let said = String::from_utf8_lossy(said).trim().to_owned();
        match self.shell.wait().map(|status| status.code()) {
            Ok(Some(255)) => anyhow::anyhow!("ssh did not get through, for the reason above"),
            Ok(Some(code)) => {
                anyhow::anyhow!(
                    "its /bin/sh ended with status {code}{}{said}",
                    if said.is_empty() { "" } else { ": " }
                )
            }
            _ => anyhow::anyhow!("ssh was killed"),
        }
    }
}

/// What a login may print before the answer.
const MOST_NOISE: usize = 1 << 20;

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.input.take());
        // The shell ends with its input; over a link that is dead nobody would hear of it.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

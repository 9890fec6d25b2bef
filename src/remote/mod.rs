//! Another box's gridgate, through the system's ssh.
//!
//! ```text
//!   gridgate --host gw up                      |  gw
//!     ssh 'exec /bin/sh'  --- first, asks ---> |  what is there?    (kept: the connection lives as long as this)
//!     ssh 'exec /bin/sh -c ...' - if agreed -> |  this very program, into ~/.cache/gridgate/VERSION-BUILD
//!     ssh 'exec gridgate hosted -- up' ------> |  the far end, and under it the command
//! ```
//!
//! All three are sessions in one connection. Two ends run the command: the near end (here) and the far end (there). With a
//! terminal, ssh gives the command one there and nothing of ours is in between. Without, the far end reads [`frames`] from the
//! near end, so that signals and the loss of the connection reach the command, and its outputs stay two clean streams.

mod address;
mod connection;
mod copy;
mod far;
mod frames;
mod near;
mod shared;
mod signals;
mod ssh;
mod there;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

pub use address::Address;
pub use far::{SILENCE, run as run_here};
pub use shared::leftovers;
pub use words::decode;

use crate::host::refused::Refused;
use crate::names::Bytes;
use crate::progress::Progress;
use connection::Connection;
use copy::Own;
use near::Over;
use signals::Signals;
use ssh::Ssh;
use there::{Called, calls_itself, copy_dir};

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A digest of the sources that it was built of: programs with the same one understand each other.
pub const BUILD: &str = env!("GRIDGATE_BUILD");
/// Both, as `--version` shows them.
pub const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GRIDGATE_BUILD"), ")");

/// A command for another box.
#[derive(Debug)]
pub struct Order {
    /// The box.
    pub address: Address,
    /// How ssh is called, as in `$GRIDGATE_SSH`.
    pub ssh: String,
    /// The words of the command line for it, options first, without the program's name.
    pub words: Vec<OsString>,
    /// The command's verb, for messages.
    pub verb: String,
    /// What the command wants.
    pub wants: Wants,
    /// Variables that it gets.
    pub env: Vec<(String, String)>,
    /// May this program be copied there without a question?
    pub copy: bool,
    /// Run it as root there, with `sudo`, which must not ask for a password.
    pub sudo: bool,
}

/// What a command does with its standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// It shows itself on a terminal, or reads keys.
    pub terminal: bool,
    /// It reads its standard input.
    pub input: bool,
}

/// Runs the command there; its exit status. Without a gridgate of this version there, the error is a [`Refused`] unless the
/// user agrees to a copy.
pub fn run(order: &Order, progress: &Progress) -> Result<i32> {
    let signals = Signals::listen()?;
    let connection = Connection::open(Ssh::new(&order.ssh, order.address.clone())?, &signals)?;
    let called = match connection.there.same() {
        Some(called) => called,
        None => {
            bring(order, &connection, &signals, progress)?;
            Called::Copied
        }
    };
    let terminal = order.wants.terminal && near::has_terminal();
    let line = line(order, called, terminal);
    let ssh = connection.shared.next().quiet();
    let over = match terminal {
        true => near::on_a_terminal(&ssh, &line, &signals)?,
        false => near::on_pipes(&ssh, &line, order.wants.input, &signals)?,
    };
    match over {
        // ssh says 255 of itself, but only when its connection is gone.
        Over::Status(255) if !connection.shared.is_alive() => bail!(
            "running '{0}' on '{1}': the connection was lost; what runs there is told to end as soon as that is noticed there\nhint: \
             'gridgate --host {1} status' shows how things are",
            order.verb,
            order.address
        ),
        Over::Status(status) => Ok(status),
        Over::GivenUp => bail!(
            "running '{}' on '{}': interrupted, and nothing came back; it is told to end there",
            order.verb,
            order.address
        ),
    }
}

/// The line for the login shell there.
fn line(order: &Order, called: Called, terminal: bool) -> String {
    let sudo = if order.sudo { "sudo -n " } else { "" };
    let mut line = format!("exec {sudo}{} hosted", called.text());
    if terminal {
        line.push_str(" --terminal");
    } else if order.wants.input {
        line.push_str(" --input");
    }
    for (name, value) in &order.env {
        line.push_str(&format!(" --env {}", words::encode(OsStr::new(&format!("{name}={value}")))));
    }
    line.push_str(" --");
    for word in &order.words {
        line.push(' ');
        line.push_str(&words::encode(word));
    }
    line
}

/// Copies this program there, if it can run there and the user agrees.
fn bring(order: &Order, connection: &Connection, signals: &Signals, progress: &Progress) -> Result<()> {
    let (there, to) = (&connection.there, &order.address);
    let found = match &there.installed {
        Some(said) if said.starts_with("gridgate ") => {
            format!("on '{to}' is another version, {said}; this is {}", calls_itself())
        }
        Some(_) => format!("the gridgate on '{to}' does not run"),
        None => format!("there is no gridgate on '{to}'"),
    };
    let here = nix::sys::utsname::uname().context("asking what machine this is")?;
    let (system, machine) = (here.sysname().to_string_lossy(), here.machine().to_string_lossy());
    if there.system != system || there.machine != machine {
        let kind = format!("{} on {}", there.system, there.machine);
        bail!(
            "{found}, and a copy of this one would not run there: it is {kind}, and this is {system} on {machine}\nhint: install {} \
             there",
            calls_itself()
        );
    }
    let own = Own::read()?;
    let place = format!("~/{}/gridgate", copy_dir());
    if !order.copy {
        let question =
            format!("{found}\nCopy this one ({}) there, as {place}? [y/N] ", Bytes(own.size_bytes));
        let agreed =
            std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && asks(&question, signals)?;
        if !agreed {
            let hint = format!("hint: --copy-binary copies this one there, as {place}");
            return Err(Refused(format!("{found}\n{hint}")).into());
        }
    } else {
        progress.detail(&found);
    }
    copy::copy(&connection.shared, &own, signals, progress)
}

/// Asks on the terminal; only a clear yes is one.
fn asks(question: &str, signals: &Signals) -> Result<bool> {
    let (stdin, mut err) = (std::io::stdin(), std::io::stderr());
    err.write_all(question.as_bytes())?;
    err.flush()?;
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for an answer"),
        }
        if !fds[1].revents().is_empty() {
            break;
        }
        if signals.next().is_some() {
            bail!("interrupted");
        }
    }
    // The terminal gives a whole line at once.
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(words: &[&str], wants: Wants) -> Order {
        Order {
            address: "gw".parse().unwrap(),
            ssh: "ssh".to_owned(),
            words: words.iter().map(OsString::from).collect(),
            verb: words[0].to_owned(),
            wants,
            env: Vec::new(),
            copy: false,
            sudo: false,
        }
    }

    #[test]
    fn the_line_says_how_to_run_it_and_then_only_the_commands_own_words() {
        let plain = order(&["status", "a b"], Wants::default());
        assert_eq!(line(&plain, Called::Installed, false), "exec gridgate hosted -- status a+20b");
        let both = Wants { terminal: true, input: true };
        let mut console = order(&["console", "ce"], both);
        console.env = vec![("GRIDGATE_ESCAPE".to_owned(), "^a".to_owned())];
        console.sudo = true;
        let copied = format!("exec sudo -n ~/{}/gridgate hosted", copy_dir());
        let rest = "--env GRIDGATE_ESCAPE=+5ea -- console ce";
        assert_eq!(line(&console, Called::Copied, true), format!("{copied} --terminal {rest}"));
        assert_eq!(line(&console, Called::Copied, false), format!("{copied} --input {rest}"));
    }
}

//! A console on somebody's terminal, or on pipes.
//!
//! stdout gets what the guest says, stderr what is said about it. A holder that ends and comes back is bridged: the client knows
//! its place in the output and goes on from there.

mod greeting;
mod keys;
mod link;
mod print;
mod session;
pub mod terminal;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use regex::bytes::Regex;

use crate::console::protocol::{Mode, Position};
use crate::console::record::ExitRecord;
use crate::names::BadName;

pub use greeting::{log_trouble, show_end};
pub use print::{Printed, Selection, Which, print_log, print_rest};
pub use session::attach;

/// How a console is attached.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is wanted.
    pub mode: Mode,
    /// Become the writer even if there is one.
    pub take: bool,
    /// The key that detaches, if stdin is a terminal.
    pub escape: Escape,
    /// What the guest said comes through unfiltered, also what it said before.
    pub raw: bool,
    /// Whether stdin is read; without it the output is only followed.
    pub input: bool,
    /// Who is shown to others, and where they are.
    pub who: Who,
    /// At first only so many bytes of what the boot has said.
    pub tail: Option<u64>,
    /// Go on from here, instead of at the boot's beginning.
    pub from: Option<Position>,
    /// Only lines that match.
    pub pattern: Option<Regex>,
    /// The program to start a holder with, if it ends and no service manager brings it back.
    pub revive: Option<PathBuf>,
}

/// The other end of a serial line, for what is more than bytes.
pub trait Line {
    /// Sends a break.
    fn send_break(&self) -> Result<Break>;
    /// Gives the guest's kernel a system request (the key that follows a break).
    fn request(&self, key: char) -> Result<()>;
}

/// What became of a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The guest has it; the key after it is typed as any other.
    Sent,
    /// The line knows none, but the key after it can be given to [`Line::request`].
    NextKey,
}

/// Why a console is not attached any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The user's wish, or a signal's, or nobody reads stdout any more.
    Detached,
    /// The guest is gone; how, if that is known.
    Guest(Option<ExitRecord>),
}

/// The key that detaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escape(pub Option<u8>);

impl Default for Escape {
    fn default() -> Self {
        Self(Some(0x1d))
    }
}

impl FromStr for Escape {
    type Err = BadName;

    /// `^]`, `^a` and the like, or `none`.
    fn from_str(text: &str) -> std::result::Result<Self, BadName> {
        if text == "none" {
            return Ok(Self(None));
        }
        match text.as_bytes() {
            [b'^', key] if matches!(key.to_ascii_uppercase(), b'@'..=b'_') => {
                Ok(Self(Some(key.to_ascii_uppercase() & 0x1f)))
            }
            _ => Err(BadName("must be '^' and a letter or one of @[\\]^_, or 'none'".to_owned())),
        }
    }
}

impl std::fmt::Display for Escape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(key) => write!(f, "Ctrl-{}", char::from(key | 0x40)),
            None => f.write_str("none"),
        }
    }
}

/// A user, as others are shown them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The name that they logged in with.
    pub name: String,
    /// The address that they came from, and their terminal.
    pub origin: Option<String>,
}

impl Who {
    /// The calling user. Who uses sudo is who they were before.
    pub fn calls() -> Self {
        use nix::unistd::{Uid, User};
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let named = |uid: u32| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        // proc_pid_loginuid(5); all ones if nobody has logged in, as in a service.
        let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|id| id.trim().parse().ok());
        let uid = rustix::process::getuid().as_raw();
        let name = variable("SUDO_USER")
            .or_else(|| login.filter(|id| *id != u32::MAX).and_then(named))
            .or_else(|| variable("USER"))
            .or_else(|| named(uid))
            .unwrap_or_else(|| format!("user {uid}"));
        let address = variable("SSH_CONNECTION").and_then(|c| c.split(' ').next().map(str::to_owned));
        let terminal = rustix::termios::ttyname(std::io::stdin(), Vec::new()).ok();
        let terminal = terminal.map(|tty| tty.to_string_lossy().trim_start_matches("/dev/").to_owned());
        let origin: Vec<String> = address.into_iter().chain(terminal).collect();
        Self { name, origin: (!origin.is_empty()).then(|| origin.join(", ")) }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_key_is_read_as_it_is_written() {
        let read = |text: &str| text.parse::<Escape>().map(|e| e.0);
        assert_eq!(read("^]"), Ok(Some(0x1d)));
        assert_eq!(read("^a"), Ok(Some(1)));
        assert_eq!(read("^A"), Ok(Some(1)));
        assert_eq!(read("none"), Ok(None));
        for bad in ["", "^", "a", "^1", "^]]", "Ctrl-a"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Escape::default().to_string(), "Ctrl-]");
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_refused(text in "\\PC{0,4}") {
            let _ = text.parse::<Escape>();
        }
    }
}

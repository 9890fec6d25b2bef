//! A console on somebody's terminal, or on pipes.
//!
//! stdout gets what the guest says, stderr what is said about it. A holder that ends and comes back is bridged: the client knows
//! its place in the output and goes on from there.

mod session;
pub mod terminal;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::console::logread::{self, BootReader};
use crate::console::protocol::Mode;
use crate::console::record::ExitRecord;
use crate::console::sanitise::Filter;
use crate::names::{BadName, GuestName};
use crate::paths::Paths;

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
    /// Who is shown to others.
    pub who: String,
    /// The program to start a holder with, if it ends and no service manager brings it back.
    pub revive: Option<PathBuf>,
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
    fn from_str(text: &str) -> Result<Self, BadName> {
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

/// The calling user and where they come from, as others are shown it.
pub fn who() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let user = variable("SUDO_USER").or_else(|| variable("USER"));
    let user = user.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    match variable("SSH_CONNECTION").as_deref().and_then(|c| c.split(' ').next()) {
        Some(from) => format!("{user} (from {from})"),
        None => user,
    }
}

/// Prints what the log has of a boot (as [`logread::resolve`] counts). Nobody reading any more is a normal end.
pub fn print_log(paths: &Paths, guest: &GuestName, boot: i64, raw: bool, out: &mut impl Write) -> Result<()> {
    let dir = paths.console(guest);
    let number = logread::resolve(&dir, boot).with_context(|| no_such_boot(&dir, guest))?;
    let mut reader = BootReader::new(&dir, number);
    let mut filter = Filter::for_terminal();
    let (mut buffer, mut shown) = (vec![0; 32 << 10], Vec::new());
    loop {
        let n = reader.read(&mut buffer).with_context(|| format!("reading '{}'", dir.display()))?;
        shown.clear();
        match (n, raw) {
            (0, true) => return Ok(()),
            (0, false) => filter.finish(&mut shown),
            (n, true) => shown.extend_from_slice(&buffer[..n]),
            (n, false) => filter.push(&buffer[..n], &mut shown),
        }
        match out.write_all(&shown).and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("printing")?,
        }
        if n == 0 {
            return Ok(());
        }
    }
}

fn no_such_boot(dir: &Path, guest: &GuestName) -> String {
    let boots = logread::boots(dir);
    match (boots.first(), boots.last()) {
        (Some(first), Some(last)) => {
            format!(
                "guest '{guest}' has no such boot in its log; there are {} to {}",
                first.number, last.number
            )
        }
        _ => format!("guest '{guest}' has never been started, so there is no log of it"),
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

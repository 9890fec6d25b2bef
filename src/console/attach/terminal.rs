//! The user's own terminal: raw while attached, as it was afterwards, whatever happens.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, Once};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was, and what it is to be sent at the end. A panic hook needs it, and a release build does not unwind.
static BEFORE: Mutex<Option<(Termios, &[u8])>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Ends the modes that a full-screen program may have left: colours, hidden cursor, mouse reports, bracketed paste.
const CALM: &[u8] = b"\x1b[m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l";

/// The terminal's other screen, without a cursor; reports of the mouse's buttons and wheel, marks around pasted text.
const FULL: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[m\x1b[2J";
/// The end of all that. A terminal that has no other screen is left empty.
const FULL_END: &[u8] = b"\x1b[m\x1b[2J\x1b[H\x1b[?2004l\x1b[?1006l\x1b[?1000l\x1b[?25h\x1b[?1049l";
/// A terminal that takes nothing (stopped, or its line is gone) is not waited for longer.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Keeps stdin's terminal raw until it is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// `None` if stdin is not a terminal.
    pub fn enter() -> Result<Option<Self>> {
        Self::begin(CALM)
    }

    /// Takes the whole screen too, on stdout. `None` if stdin is not a terminal.
    pub fn full_screen() -> Result<Option<Self>> {
        let raw = Self::begin(FULL_END)?;
        if let Some(raw) = &raw {
            raw.renew()?;
        }
        Ok(raw)
    }

    /// After somebody else had the terminal, such as the shell that stopped this program: the whole screen again.
    pub fn renew(&self) -> Result<()> {
        let stdin = std::io::stdin();
        let mut raw = tcgetattr(&stdin).context("asking for the terminal's settings")?;
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("making the terminal raw")?;
        let mut out = std::io::stdout();
        out.write_all(FULL).and_then(|()| out.flush()).context("taking the terminal's screen")
    }

    fn begin(end: &'static [u8]) -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("asking for the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut saved) = BEFORE.lock() {
            *saved = Some((before, end));
        }
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("making the terminal raw")?;
        Ok(Some(Self(())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let Some((before, end)) = BEFORE.try_lock().ok().and_then(|mut saved| saved.take()) else { return };
    let mut out = std::io::stdout();
    let takes = |fd: &std::io::Stdout| poll(&mut [PollFd::new(fd, PollFlags::OUT)], Some(&PATIENCE)) == Ok(1);
    if out.is_terminal() && takes(&out) {
        // A terminal that is gone needs no care.
        let _ = out.write_all(end).and_then(|()| out.flush());
    }
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
}

/// Columns and rows of the user's window; none if there is none.
pub fn window() -> Option<(u16, u16)> {
    let Winsize { ws_col, ws_row, .. } = tcgetwinsize(std::io::stdin()).ok()?;
    (ws_col > 0 && ws_row > 0).then_some((ws_col, ws_row))
}

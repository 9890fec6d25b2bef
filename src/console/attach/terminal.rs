//! The user's own terminal: raw while attached, as it was afterwards, whatever happens.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, Once};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was. A panic hook needs it, and a release build does not unwind.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Ends the modes that a full-screen program may have left: colours, hidden cursor, mouse reports, bracketed paste.
const CALM: &[u8] = b"\x1b[m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l";

/// Keeps stdin's terminal raw until it is dropped.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// `None` if stdin is not a terminal.
    pub(super) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("asking for the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut saved) = BEFORE.lock() {
            *saved = Some(before);
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
    let Some(before) = BEFORE.try_lock().ok().and_then(|mut saved| saved.take()) else { return };
    let mut out = std::io::stdout();
    if out.is_terminal() {
        // A terminal that is gone needs no care.
        let _ = out.write_all(CALM).and_then(|()| out.flush());
    }
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
}

/// Columns and rows of the user's window; none if there is none.
pub(super) fn window() -> Option<(u16, u16)> {
    let Winsize { ws_col, ws_row, .. } = tcgetwinsize(std::io::stdin()).ok()?;
    (ws_col > 0 && ws_row > 0).then_some((ws_col, ws_row))
}

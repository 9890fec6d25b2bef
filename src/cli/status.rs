//! `gridgate status`: what was asked for, and what is.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use rustix::event::Timespec;

use super::{Context, Exit};
use crate::config::site::Site;
use crate::names::GuestName;
use crate::progress::{catch_interrupts, interrupted};
use crate::report;
use crate::report::sentences::Detail;
use crate::report::status::Status;

/// Show what was asked for and what is
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Guests to show; all if none is named
    #[arg(value_name = "GUEST")]
    pub guests: Vec<GuestName>,
    /// Show it every second, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// Prints the table, or the document with `--json`. Exit 3 if a guest that was asked to run is not ready; if the site's
/// files cannot be used, what is here is shown all the same, and the exit is theirs. A watch that is ended by Ctrl-C, or
/// by a reader that has gone away, is done.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let (site, unusable) = context.site_if_usable();
    if unusable.is_none() {
        context.known_or_here(&site, &args.guests)?;
    }
    if args.watch {
        return watch(args, context);
    }
    let (status, text) = look(args, context, &site)?;
    super::print(&text)?;
    if let Some(error) = unusable {
        return Err(error);
    }
    Ok(if status.as_desired() { Exit::Done } else { Exit::Differs })
}

fn look(args: &Args, context: &Context, site: &Site) -> Result<(Status, String)> {
    let status = report::status::gather(&context.host, &context.paths, site, &args.guests)?;
    let text = match context.json {
        true => serde_json::to_string_pretty(&status)? + "\n",
        false => {
            let detail = if args.guests.is_empty() { Detail::Short } else { Detail::Full };
            report::text::status(&status, detail)
        }
    };
    Ok((status, text))
}

const EVERY: Duration = Duration::from_secs(1);

/// The files are read again each time; while they cannot be used, what is here is shown.
fn watch(args: &Args, context: &Context) -> Result<Exit> {
    catch_interrupts()?;
    let redraw = !context.json && stdout().is_terminal();
    let mut next = Instant::now();
    while !interrupted() {
        let (_, text) = look(args, context, &context.site_if_usable().0)?;
        let text = if redraw { in_place(&text) } else { text };
        let mut out = stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            other => other?,
        }
        next += EVERY;
        rest(next.saturating_duration_since(Instant::now()));
    }
    Ok(Exit::Done)
}

/// Sleeps, but not through a signal.
fn rest(time: Duration) {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [], Some(&time));
}

/// The text over what the terminal shows, from its upper left corner: each line's old rest is cleared, and what was below.
fn in_place(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrawn_table_leaves_nothing_of_the_one_before() {
        assert_eq!(in_place("A\nB\n"), "\x1b[HA\x1b[K\nB\x1b[K\n\x1b[J");
    }
}

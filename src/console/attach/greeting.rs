//! What a user is told of a console: when they come, and when there is nobody at the other end.

use std::io::Write;

use anyhow::{Context, Result};

use crate::console::logread;
use crate::console::now_ms;
use crate::console::protocol::{ConsoleState, Greeting, Mode};
use crate::console::record::{ExitRecord, ReadyState};
use crate::console::when::{local, span};
use crate::names::GuestName;
use crate::paths::Paths;

/// How much a guest that is not there is quoted with.
const LINES: usize = 20;

/// The first line: which guest, and how it is. `leave` says how to get out again.
pub(super) fn state(paths: &Paths, greeting: &Greeting, leave: &str) -> String {
    let console = &greeting.console;
    let ready = match console.ready.state {
        _ if panic_of(paths, console).is_some() => "its kernel has panicked",
        ReadyState::Ready => "ready",
        ReadyState::Waiting => "not ready yet",
        ReadyState::Degraded => "degraded",
    };
    let reading = if greeting.mode == Mode::Read { ", read only" } else { "" };
    format!("connected to {} (running, {ready}{reading}){leave}", console.guest)
}

/// The second: when it last spoke, who else is here, and whether its log is in trouble.
pub(super) fn company(console: &ConsoleState) -> String {
    let now = now_ms();
    let spoke = match console.last_output_ms {
        Some(at) => format!("last output {} ago", span(now.saturating_sub(at))),
        None if console.output_bytes > 0 => "no output since the console holder was started".to_owned(),
        None => "no output yet".to_owned(),
    };
    // The last one is this client itself.
    let others = &console.clients[..console.clients.len().saturating_sub(1)];
    let does = |mode| if mode == Mode::Write { "writes" } else { "reads" };
    let others: Vec<String> = others.iter().map(|c| format!("{c} {}", does(c.mode))).collect();
    let others = if others.is_empty() { "nobody else is attached".to_owned() } else { others.join(", ") };
    let trouble = console.log_trouble.as_ref().map(|why| log_trouble(why, console.lost_bytes));
    let trouble = trouble.map(|text| format!("; {text}")).unwrap_or_default();
    format!("{spoke}; {others}{trouble}")
}

/// For people, of a log that cannot be written.
pub fn log_trouble(why: &str, lost_bytes: u64) -> String {
    format!("its log cannot be written ({why}): {lost_bytes} bytes are lost so far")
}

/// What a running guest's kernel said when it panicked, if that is the end of what it said.
fn panic_of(paths: &Paths, console: &ConsoleState) -> Option<String> {
    let lines = logread::last_lines(&paths.console(&console.guest), console.boot, 10 * LINES);
    lines.into_iter().rfind(|line| line.contains("Kernel panic - not syncing"))
}

/// Shows the end of what a guest said that is not running: its last words on `out`, what became of it to `say`.
pub fn show_end(
    paths: &Paths,
    guest: &GuestName,
    out: &mut impl Write,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let dir = paths.console(guest);
    let boot = logread::resolve(&dir, 0).unwrap_or(0);
    let exit = ExitRecord::read(paths, guest)?.filter(|exit| exit.boot == boot);
    if boot == 0 && exit.is_none() {
        say(&format!("{guest} has never been started"));
        return Ok(());
    }
    let lines = match &exit {
        Some(exit) => exit.last_lines.clone(),
        None => logread::last_lines(&dir, boot, LINES),
    };
    let panicked = lines.iter().any(|line| line.contains("Kernel panic - not syncing"));
    let what = if panicked { "its kernel panicked" } else { "it ended" };
    let how = exit.as_ref().map_or_else(
        || what.to_owned(),
        |exit| {
            let ago = span(now_ms().saturating_sub(exit.at_ms));
            format!("{what} {ago} ago, {} ({})", local(exit.at_ms), exit.told())
        },
    );
    let quote = if lines.is_empty() { "and said nothing" } else { "its last words:" };
    say(&format!("{guest} is not running: {how}; {quote}"));
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("printing"),
        _ => Ok(()),
    }
}

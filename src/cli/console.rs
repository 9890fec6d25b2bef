//! `gridgate console GUEST`

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::{Context, Ending, Exit};
use crate::console::attach::{Ended, Escape, Options, attach, print_log, who};
use crate::console::client;
use crate::console::protocol::Mode;
use crate::console::record::RunRecord;
use crate::names::GuestName;
use crate::panes::{self, Wanted};
use crate::paths::Paths;
use crate::report::status;

/// Attach to a guest's console, or print its log
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// The guest
    #[arg(required_unless_present = "all")]
    pub guest: Option<GuestName>,
    /// More guests, with --all
    #[arg(value_name = "GUEST", requires = "all")]
    pub more: Vec<GuestName>,
    /// Show every guest's console (or those that are named) in panes of this terminal; ? lists the keys
    #[arg(long, conflicts_with_all = ["take", "log", "raw"])]
    pub all: bool,
    /// Do not type, only read
    #[arg(long)]
    pub read_only: bool,
    /// Become the one who types, even if somebody else is
    #[arg(long, conflicts_with = "read_only")]
    pub take: bool,
    /// Key that detaches: ^] (twice sends it), ^a, ..., none
    #[arg(long, value_name = "KEY", default_value = "^]")]
    pub escape: Escape,
    /// Print the log instead of attaching
    #[arg(long, conflicts_with_all = ["read_only", "take"])]
    pub log: bool,
    /// Which boot's: 0 is the newest, -1 the one before, 7 the seventh
    #[arg(long, value_name = "N", requires = "log", default_value = "0", allow_negative_numbers = true)]
    pub boot: i64,
    /// Go on as long as the guest runs
    #[arg(long, requires = "log", conflicts_with = "boot")]
    pub follow: bool,
    /// Leave escape sequences that could harm a terminal in
    #[arg(long)]
    pub raw: bool,
}

/// Attaches or prints. `revive` is the program to start a holder with where no service manager does it.
pub fn run(args: &ConsoleArgs, paths: &Paths, revive: Option<PathBuf>) -> Result<()> {
    let Some(guest) = &args.guest else { bail!("no guest is named") };
    let running = RunRecord::read(paths, guest)?.is_some_and(|run| run.is_alive());
    if args.log && !(args.follow && running) {
        return print_log(paths, guest, args.boot, args.raw, &mut std::io::stdout().lock());
    }
    if !running {
        let log = format!("gridgate console {guest} --log shows what it said when it last ran");
        bail!("guest '{guest}' is not running; gridgate start {guest} starts it, {log}");
    }
    if let Some(exe) = &revive {
        client::ensure_holder(paths, exe)?;
    }
    let options = Options {
        mode: if args.read_only || args.log { Mode::Read } else { Mode::Write },
        take: args.take,
        escape: args.escape,
        raw: args.raw,
        input: !args.log,
        who: who(),
        revive,
    };
    match attach(paths, guest, &options)? {
        Ended::Detached | Ended::Guest(_) => Ok(()),
    }
}

/// Shows the consoles of all guests, or of those that are named, in panes.
pub fn all(args: &ConsoleArgs, context: &Context, revive: Option<PathBuf>) -> Result<Exit> {
    let stream = [("stdin", stdin().is_terminal()), ("stdout", stdout().is_terminal())];
    if let Some((name, _)) = stream.iter().find(|(_, terminal)| !terminal) {
        let hint = "hint: gridgate console GUEST --log --follow works without one";
        return Err(Ending::error(
            Exit::Usage,
            format!("--all needs a terminal, and {name} is none\n{hint}"),
        ));
    }
    if args.escape.0.is_none() && !args.read_only {
        let text = "--all needs an escape key, or --read-only: there would be no way back from a guest";
        return Err(Ending::error(Exit::Usage, text));
    }
    let guests: Vec<GuestName> = args.guest.iter().chain(&args.more).cloned().collect();
    context.known_or_here(&context.site_if_usable().0, &guests)?;
    let wanted = Wanted {
        options: panes::app::Options { read_only: args.read_only, escape: args.escape },
        who: who(),
        revive,
    };
    // The files are read again each time: a guest that is added to the site appears.
    let mut look = || status::gather(&context.host, &context.paths, &context.site_if_usable().0, &guests);
    panes::run(&context.paths, wanted, &mut look)?;
    Ok(Exit::Done)
}

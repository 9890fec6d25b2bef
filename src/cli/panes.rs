//! `gridgate console --all`

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

use anyhow::Result;

use super::console::ConsoleArgs;
use super::{Context, Ending, Exit};
use crate::console::attach::Who;
use crate::names::GuestName;
use crate::panes::app::Options;
use crate::panes::{self, Wanted};
use crate::report::status;

/// Shows the consoles of all guests, or of those that are named. `revive` is as for one console.
pub fn run(args: &ConsoleArgs, context: &Context, revive: Option<PathBuf>) -> Result<Exit> {
    let stream = [("stdin", stdin().is_terminal()), ("stdout", stdout().is_terminal())];
    if let Some((name, _)) = stream.iter().find(|(_, terminal)| !terminal) {
        let text = format!("--all needs a terminal, and {name} is none");
        let hint = "hint: gridgate console GUEST --log --follow works without one";
        return Err(Ending::error(Exit::Usage, format!("{text}\n{hint}")));
    }
    if args.escape.0.is_none() && !args.read_only {
        let text = "--all needs an escape key, or --read-only: there would be no way back from a guest";
        return Err(Ending::error(Exit::Usage, text));
    }
    let guests: Vec<GuestName> = args.guest.iter().chain(&args.more).cloned().collect();
    context.known_or_here(&context.site_if_usable().0, &guests)?;
    let options = Options { read_only: args.read_only, escape: args.escape };
    let wanted = Wanted { options, who: Who::calls(), revive };
    // The files are read again each time: a guest that is added to the site appears.
    let mut look = || status::gather(&context.host, &context.paths, &context.site_if_usable().0, &guests);
    panes::run(&context.paths, wanted, &mut look)?;
    Ok(Exit::Done)
}

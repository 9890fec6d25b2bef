//! `gridgate console GUEST`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::console::attach::{Ended, Escape, Options, attach, print_log, who};
use crate::console::client;
use crate::console::protocol::Mode;
use crate::console::record::RunRecord;
use crate::names::GuestName;
use crate::paths::Paths;

/// Attach to a guest's console, or print its log
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// The guest
    pub guest: GuestName,
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
    let guest = &args.guest;
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

//! The command line: one file a verb, arguments in, report out.

pub mod check;
pub mod init;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::LoadOptions;

/// How a command ended; the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; nothing changed, or all of it undone.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Differs, is not ready, or was waited for in vain.
    Differs = 3,
    /// Refused for safety.
    Refused = 4,
    /// Failed half way; the message says what is left.
    HalfWay = 5,
}

/// What holds for every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Directory of the site's files
    #[arg(long, global = true, env = "GRIDGATE_SITE", default_value = "/etc/gridgate", value_name = "DIR")]
    pub site: PathBuf,
    /// Directory of what gridgate keeps
    #[arg(
        long,
        global = true,
        env = "GRIDGATE_STATE",
        default_value = "/var/lib/gridgate",
        value_name = "DIR"
    )]
    pub state: PathBuf,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say errors only
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say each command and each decision
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl Globals {
    /// What a site is loaded with.
    pub fn load_options(&self) -> LoadOptions {
        let image_dirs = vec![self.state.join("images"), PathBuf::from("/usr/share/gridgate/images")];
        LoadOptions { image_dirs, ..LoadOptions::default() }
    }
}

/// A whole grid site's gateway on one box
#[derive(Debug, Parser)]
#[command(name = "gridgate", version)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a site directory to start from
    Init(init::Args),
    /// Load and cross-check the site, change nothing
    Check(check::Args),
}

/// Runs a command.
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Init(args) => init::run(args, &crate::host::Live),
        Command::Check(args) => check::run(args, &cli.globals),
    }
}

/// Prints data; a reader that has seen enough is a normal end.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

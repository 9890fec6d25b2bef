//! `gridgate generate`: manual pages and completions, from the definitions of the command line itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args as ClapArgs, CommandFactory, ValueEnum};

use super::{Cli, Exit, complete};

/// Write manual pages and completions into a directory
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to write
    #[arg(value_enum)]
    pub what: What,
    /// Where
    pub dir: PathBuf,
}

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Manual pages, one a verb
    Man,
    /// Completions for bash, zsh and fish
    Completions,
}

/// Writes them; files that are there are replaced.
pub fn run(args: &Args) -> Result<Exit> {
    let what = || format!("writing into '{}'", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(what)?;
    match args.what {
        What::Man => clap_mangen::generate_to(Cli::command(), &args.dir).with_context(what)?,
        What::Completions => {
            for (file, text) in complete::scripts()? {
                std::fs::write(args.dir.join(file), text).with_context(what)?;
            }
        }
    }
    Ok(Exit::Done)
}

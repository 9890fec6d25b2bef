//! `gridgate hold`: the console holder, started by gridgate or a service manager, not by people.

use anyhow::{Context, Result};
use clap::Args;

use crate::console::holder;
use crate::paths::Paths;

/// Hold the consoles of this site's guests
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Start one in the background and end
    #[arg(long)]
    pub detach: bool,
}

/// Holds until told to end; guests live on.
pub fn run(args: &HoldArgs, paths: &Paths) -> Result<()> {
    if !args.detach {
        return holder::run(paths);
    }
    let exe = std::env::current_exe().context("finding this program's file")?;
    holder::detach(paths, &exe)
}

//! `gridgate init`: a site directory to start from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Exit;
use crate::config::example;
use crate::host::Host;

/// Write a site directory to start from
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write to; made if need be, never overwritten
    pub dir: PathBuf,
    /// How the files are written
    #[arg(long, value_enum, default_value_t = FormatArg::Toml)]
    pub format: FormatArg,
}

/// How the files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// TOML
    Toml,
    /// Shell variables, which are read and never run
    Shell,
}

/// Writes the example site. A directory with anything in it is refused; a failure leaves nothing behind.
pub fn run(args: &Args, host: &dyn Host) -> Result<Exit> {
    let dir = &args.dir;
    let existed = match host.stat(dir)? {
        None => false,
        Some(stat) => match host.list(dir) {
            Ok(names) if names.is_empty() => true,
            Ok(_) => return Ok(refuse(dir, "is not empty, and init overwrites nothing")),
            Err(_) if !stat.is_dir => return Ok(refuse(dir, "is there and is not a directory")),
            Err(error) => return Err(error),
        },
    };
    let format = match args.format {
        FormatArg::Toml => example::Format::Toml,
        FormatArg::Shell => example::Format::Shell,
    };
    if let Err(error) = write(dir, format, host) {
        let undone = if existed { empty(dir, host) } else { host.remove(dir) };
        if let Err(left) = undone {
            bail!("{error:#}; also failed at taking it back: {left:#}");
        }
        return Err(error).with_context(|| format!("writing a site to '{}'", dir.display()));
    }
    eprintln!("wrote a site to '{}'; look at its files, then: gridgate --site {0} check", dir.display());
    Ok(Exit::Done)
}

fn refuse(dir: &Path, why: &str) -> Exit {
    eprintln!("refused: '{}' {why}\n  hint: name a new directory", dir.display());
    Exit::Refused
}

fn write(dir: &Path, format: example::Format, host: &dyn Host) -> Result<()> {
    for (path, content) in example::files(format) {
        host.write(&dir.join(path), content.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// The directory was the user's and was empty.
fn empty(dir: &Path, host: &dyn Host) -> Result<()> {
    host.list(dir)?.iter().try_for_each(|name| host.remove(&dir.join(name)))
}

//! `gridgate init`: a site directory to start from.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Exit;
use crate::config::example;
use crate::host::Host;

/// Arguments of `gridgate init`.
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
    let existed = match dir.read_dir() {
        Ok(mut entries) => {
            if entries.next().is_some() {
                eprintln!("refused: '{}' is not empty, and init overwrites nothing", dir.display());
                eprintln!("  hint: name a new directory");
                return Ok(Exit::Refused);
            }
            true
        }
        Err(e) if e.kind() == ErrorKind::NotFound && dir.symlink_metadata().is_err() => false,
        Err(e) if matches!(e.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
            eprintln!("refused: '{}' is there and is not a directory", dir.display());
            eprintln!("  hint: name a new directory");
            return Ok(Exit::Refused);
        }
        Err(e) => return Err(e).with_context(|| format!("looking into '{}'", dir.display())),
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

//! `gridgate units`: what systemd is told of the site; and the generator, which tells it (systemd.generator(7)).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;

use super::{Context, Exit};
use crate::host::Live;
use crate::service::boot;
use crate::service::generate::Content;

/// Show what systemd is told of the site's guests at boot
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write the files into this directory, which must not have them yet, instead of printing them
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Have systemd read them anew if it knows others, before the target's guests start
    #[arg(long, hide = true, conflicts_with = "to")]
    pub catch_up: bool,
}

/// Prints or writes it. A guest whose files are wrong is no failure: it has a unit that says so.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    if args.catch_up {
        boot::catch_up(&context.host, &context.paths).context("telling systemd of the site as it is now")?;
        return Ok(Exit::Done);
    }
    let made = boot::generated(&context.host, &context.paths)?;
    if let Some(dir) = &args.to {
        made.write(&context.host, dir)?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (path, content) in made.iter() {
        match content {
            Content::File(content) => text.push_str(&format!("# {}\n{content}\n", path.display())),
            Content::Link(target) => {
                text.push_str(&format!("# {} -> {}\n\n", path.display(), target.display()))
            }
        }
    }
    super::print(text.strip_suffix('\n').unwrap_or(&text))?;
    Ok(Exit::Done)
}

/// What this program is called as where systemd looks for generators.
const GENERATOR: &str = "gridgate-generator";

/// Whether this program was started as systemd's generator.
pub fn is_generator(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == GENERATOR)
}

/// Writes into the directory for units of ordinary priority; without one, as when people try it, into `/tmp`.
pub fn generate(dir: Option<&Path>) -> Result<()> {
    let host = Live;
    let paths = boot::configured(&host)?;
    let dir = dir.unwrap_or(Path::new("/tmp"));
    boot::generated(&host, &paths)?.write(&host, dir).context("generating units of guests")
}

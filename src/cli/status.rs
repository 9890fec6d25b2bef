//! `gridgate status`: what was asked for, and what is.

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Exit};
use crate::names::GuestName;
use crate::report;

/// Show what was asked for and what is
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Guests to show; all if none is named
    pub guests: Vec<GuestName>,
}

/// Prints the table, or the document with `--json`. Exit 3 if a guest that was asked to run is not ready; if the site's
/// files cannot be used, what is here is shown all the same, and the exit is theirs.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let (site, unusable) = context.site_if_usable();
    if unusable.is_none() {
        context.known_or_here(&site, &args.guests)?;
    }
    let status = report::status::gather(&context.host, &context.paths, &site, &args.guests)?;
    match context.json {
        true => super::print_json(&status)?,
        false => super::print(&report::text::status(&status))?,
    }
    if let Some(error) = unusable {
        return Err(error);
    }
    Ok(if status.as_desired() { Exit::Done } else { Exit::Differs })
}

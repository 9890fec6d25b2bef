//! `gridgate names`: the names of the site's guests, for completions.

use anyhow::Result;

use super::{Context, Exit};

/// One a line, in the site's order.
pub fn run(context: &Context) -> Result<Exit> {
    let site = context.site()?;
    super::print(&site.guests.iter().map(|guest| format!("{}\n", guest.name)).collect::<String>())?;
    Ok(Exit::Done)
}

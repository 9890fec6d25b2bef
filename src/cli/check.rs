//! `gridgate check`: the site's files, loaded and cross-checked.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::{Context, Exit, print};
use crate::config::explain::Explained;
use crate::config::site::Site;
use crate::config::{self, LoadOptions, Loaded};
use crate::profile;

/// Load the site's files and cross-check them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tell where a value came from: a key such as ce.memory, memory (of all guests) or domain
    #[arg(long, value_name = "KEY")]
    pub explain: Option<String>,
    /// Check with this value instead of the files', such as ce.memory=1G
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Check as if the whole site were rehearsed
    #[arg(long)]
    pub rehearsal: bool,
}

/// What `--json` prints: one of the two, with the format's version.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a Site>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Vec<&'a Explained>>,
}

/// Loads the site and prints it, or one value's origin, or all that is wrong.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let options = LoadOptions { set: args.set.clone(), rehearsal: args.rehearsal, ..context.load_options() };
    let loaded = config::load(&context.paths.site, &options)
        .and_then(|loaded| profile::check(&loaded.site).map(|()| loaded));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            if context.json {
                print_json(&problems.to_json())?;
            } else {
                let count = problems.iter().count();
                let noun = if count == 1 { "problem" } else { "problems" };
                eprintln!("{problems}\n{count} {noun} in '{}'", context.paths.site.display());
            }
            return Ok(Exit::Usage);
        }
    };
    if let Some(query) = &args.explain {
        return explain(&loaded, query, context.json);
    }
    if context.json {
        print_json(&Report { version: 1, site: Some(&loaded.site), explain: None })?;
    } else {
        print(&table(&loaded.site))?;
    }
    Ok(Exit::Done)
}

fn print_json(report: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(report)?))
}

fn explain(loaded: &Loaded, query: &str, as_json: bool) -> Result<Exit> {
    let found = match loaded.explain.find(query) {
        Ok(found) => found,
        Err(hint) => {
            eprintln!("no value is called '{}'\n  hint: {hint}", query.escape_debug());
            return Ok(Exit::Usage);
        }
    };
    if as_json {
        print_json(&Report { version: 1, site: None, explain: Some(found) })?;
    } else {
        print(&found.into_iter().map(lines).collect::<String>())?;
    }
    Ok(Exit::Done)
}

fn lines(explained: &Explained) -> String {
    let from = if explained.origin.starts_with("derived") { "" } else { "from " };
    let mut text = format!("{} = {}\n    {from}{}\n", explained.key, explained.value, explained.origin);
    for over in &explained.overrides {
        let _ = writeln!(text, "    over {} from {}", over.value, over.origin);
    }
    text
}

fn table(site: &Site) -> String {
    let mut rows = vec![["NAME", "ROLE", "BACKEND", "ADDRESS", "MAC", "MEMORY"].map(str::to_owned)];
    rows.extend(site.guests.iter().map(|guest| {
        [
            guest.name.to_string(),
            guest.role.clone(),
            guest.backend.name().to_owned(),
            format!("{}/{}", guest.address, guest.prefix),
            guest.mac.to_string(),
            guest.memory_bytes.to_string(),
        ]
    }));
    let widths: Vec<usize> =
        (0..6).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (guests, networks) = (plural(site.guests.len(), "guest"), plural(site.networks.len(), "network"));
    let rehearsed = if site.rehearsed() { ", rehearsed" } else { "" };
    for guest in &site.guests {
        for nic in guest.further_cards().into_iter().filter(|nic| nic.network.is_none()) {
            let _ = writeln!(
                text,
                "{}: card '{}' is in no network of the site: disks are personalised for it, but gridgate itself runs no such \
                 guest",
                guest.name, nic.name
            );
        }
    }
    let _ = writeln!(text, "site '{}' is good: {guests}, {networks}{rehearsed}", site.name);
    text
}

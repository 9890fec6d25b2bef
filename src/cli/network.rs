//! `gridgate network`: the site's networks without its guests, for the unit that brings them up at boot.

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use super::{Context, Exit, up};
use crate::config::lenient;
use crate::facts;
use crate::network;
use crate::plan;

/// Make or remove the site's networks
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Which
    #[arg(value_enum)]
    pub what: What,
}

/// Make or remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Make what is missing
    Up,
    /// Remove what gridgate made
    Down,
}

/// Takes no lock: `up` and `down` call systemd, which calls this, while they hold it.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    // A guest whose file is wrong is no reason to leave the others without their network.
    let site = lenient::load(&context.paths.site, &context.load_options()).site;
    let found = facts::network::gather(&context.host, &context.paths)?;
    let id = context.paths.id();
    let steps = match args.what {
        What::Up => plan::network::plan(&site, &found, &id)
            .map_err(|problems| up::refuse(problems.into_iter().map(Into::into).collect()))?,
        What::Down => plan::network::teardown(&found, &id),
    };
    for step in steps {
        network::apply(&context.host, &context.paths, &step)?;
    }
    Ok(Exit::Done)
}

//! `gridgate guard`: started by whoever holds a guest still, not by people.

use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Exit};
use crate::names::{GuestName, parse_duration};
use crate::service::still;

/// Wait for the end of the standard input, and let a guest go on that is still held then
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    pub guest: GuestName,
    /// How long it may be held at most
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub limit: Duration,
}

/// Ends when the guest goes on.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    still::guard(&context.paths, &args.guest, args.limit).map(|()| Exit::Done)
}

//! `gridgate launch`: becomes a guest. Units and the holder call it; people say `gridgate start`.

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Exit};
use crate::names::GuestName;
use crate::service::launch::launch;

/// Become the guest's hypervisor
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    pub guest: GuestName,
}

/// Returns only if the guest could not be started.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    match launch(&context.paths, &args.guest)? {}
}

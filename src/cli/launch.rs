//! `gridgate launch`: becomes a guest. Units and the holder call it; people say `gridgate start`.

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Context, Ending, Exit};
use crate::names::GuestName;
use crate::service::launch::{Refused, launch};

/// Become the guest's hypervisor
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The guest
    pub guest: GuestName,
}

/// Returns only if the guest could not be started.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let Err(error) = launch(&context.paths, &args.guest);
    // A unit whose process fails before it is the hypervisor would be tried again at once, and for ever.
    match error.is::<Refused>() || std::env::var_os("NOTIFY_SOCKET").is_some() {
        true => Err(Ending::error(Exit::Config, format!("{error:#}"))),
        false => Err(error),
    }
}

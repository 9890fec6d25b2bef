//! `gridgate site restore`: a backed-up site on this machine, as itself.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::backup::restore::{self, Request, Restored};
use crate::chunks::place;
use crate::cli::{Context, Exit, print_json, refusal};
use crate::console::when::{self, When};
use crate::names::ImageName;
use crate::signature::{Policy, Purpose};

/// Make this machine the one that a backup is of
///
/// Site directory and state directory become what they were: guests' disks, keys, ids and addresses. Nothing of it counts before
/// all of it is here. Guests are not started. The machine that the backup was taken of must be gone: two with the same identity
/// must never be up.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The store: a directory, or ssh://[user@]host[:port]/directory
    #[arg(value_name = "STORE")]
    pub from: String,
    /// The site, if the store has backups of several
    #[arg(long, value_name = "SITE")]
    pub name: Option<ImageName>,
    /// The newest backup that was taken by then, such as '2026-11-21 10:00:05' or yesterday [default: the newest]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub at: Option<When>,
    /// Who may sign backups [default: allowed_signers of the site, else /etc/gridgate/allowed_signers]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_unsigned")]
    pub allowed_signers: Option<PathBuf>,
    /// Take the backup from whoever made it: whoever controls the store or the line decides what this machine is
    #[arg(long)]
    pub insecure_unsigned: bool,
    /// In place of a site and guests that are here
    #[arg(long)]
    pub replace: bool,
    /// Stand by: guests stay stopped, over a boot too, and the next backup of the site may be restored over this one
    #[arg(long)]
    pub standby: bool,
}

/// Runs the command.
pub fn run(args: &RestoreArgs, context: &Context) -> Result<Exit> {
    context.need_root("restoring a site")?;
    crate::progress::catch_interrupts()?;
    let Context { host, paths, progress, .. } = context;
    let signers = args.allowed_signers.as_deref();
    let policy = Policy::of(host, paths, args.insecure_unsigned, signers, Purpose::Backup)?;
    let (at, _) = when::window(args.at, None, &when::now())?;
    let request =
        Request { site: args.name.clone(), at, policy, replace: args.replace, standby: args.standby };
    let place = place::open(&args.from)?;
    let restored = restore::restore(host, paths, place, &request, &|| context.lock(), progress);
    let Restored { manifest, version, signer, received_bytes } = restored.map_err(refusal)?;
    let guests: Vec<&str> = manifest.guests.iter().map(|guest| guest.name.as_str()).collect();
    let taken = when::local(manifest.taken_at_epoch_seconds.saturating_mul(1000));
    progress.say(&format!("site '{}' is here as it was at {taken}: {}", manifest.site, guests.join(", ")));
    if !args.standby {
        progress
            .say("its guests come up with: gridgate up; the machine that they were on must be off by then");
    }
    if context.json {
        let signer = signer.map(|s| json!({"principal": s.principal, "fingerprint": s.fingerprint}));
        print_json(&json!({"version": 1, "site": manifest.site, "store_version": version,
            "taken_at_epoch_seconds": manifest.taken_at_epoch_seconds, "received_bytes": received_bytes,
            "signer": signer, "standby": args.standby, "guests": guests}))?;
    }
    Ok(Exit::Done)
}

//! `gridgate site backup`: a site at one moment, into a store.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::backup::manifest::Manifest;
use crate::backup::take::{self, Request, Taken};
use crate::backup::{list, send};
use crate::chunks::place::{self, Shelf};
use crate::chunks::push::Pushed;
use crate::cli::{Context, Exit, print, print_json, refusal};
use crate::console::when;
use crate::names::{Bytes, GuestName};
use crate::signature;

/// Copy the whole gateway into a store while its guests run
///
/// Guests' disks, the site's files, and all that was drawn for the site: its keys, ids and addresses. Guests are held still for
/// some milliseconds, all at once. Only what no backup before had is sent. The store is for its owner alone: it holds private
/// keys.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Guests; all, if none is named
    #[arg(value_name = "GUEST", conflicts_with = "list")]
    pub guests: Vec<GuestName>,
    /// The store: a directory, or ssh://[user@]host[:port]/directory
    #[arg(long, value_name = "STORE")]
    pub to: String,
    /// Sign the backup with this SSH key; a .pub file if an agent has the key
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Where the filesystem cannot share blocks: hold each guest for as long as its disk is copied
    #[arg(long)]
    pub allow_long_pause: bool,
    /// Use a store that others than its owner may read, although whoever reads it has the site's private keys
    #[arg(long)]
    pub insecure_shared_store: bool,
    /// Show the backups of the site that are in the store
    #[arg(long)]
    pub list: bool,
}

/// Runs the command.
pub fn run(args: &BackupArgs, context: &Context) -> Result<Exit> {
    if args.list {
        return show(args, context);
    }
    context.need_root("backing guests up")?;
    crate::progress::catch_interrupts()?;
    let shelf = place::open_to_write(&args.to)?;
    let request = Request { guests: args.guests.clone(), long_pause: args.allow_long_pause };
    let (taken, pushed) =
        taken_and_sent(context, &request, &*shelf, args.key.as_deref(), args.insecure_shared_store)?;
    if context.json {
        print_json(&document(&taken.manifest, &pushed, &shelf.shown()))?;
    }
    Ok(Exit::Done)
}

/// The whole way; exit status 4 for what is refused.
pub(super) fn taken_and_sent<'c>(
    context: &'c Context,
    request: &Request,
    shelf: &dyn Shelf,
    key: Option<&std::path::Path>,
    shared_is_fine: bool,
) -> Result<(Taken<'c>, Pushed)> {
    let (host, progress) = (&context.host, &context.progress);
    let site = context.site()?;
    context.known_or_here(&site, &request.guests)?;
    // A passphrase may be asked for, or be wrong: before anybody is held.
    if let Some(key) = key {
        signature::sign(host, b"", key, signature::Purpose::Backup)?;
    }
    send::private(shelf, shared_is_fine).map_err(refusal)?;
    let taken = {
        // Another backup, which somebody's timer has begun, has disks to copy.
        let _lock = context.lock_again()?;
        take::take(host, &context.paths, &site, request, progress).map_err(refusal)?
    };
    let pushed = send::send(host, &taken, shelf, key, progress)?;
    let (sent, signed) = (Bytes(pushed.sent_bytes), if key.is_some() { "signed" } else { "not signed" });
    progress.say(&format!(
        "site '{}' is in '{}': backup {}, {signed}, {sent} sent; it holds the site's private keys",
        site.name,
        shelf.shown(),
        pushed.version
    ));
    Ok((taken, pushed))
}

/// What is printed of a backup.
pub(super) fn document(manifest: &Manifest, pushed: &Pushed, to: &str) -> Value {
    let guest = |guest: &crate::backup::manifest::Guest| {
        let paused_ms = guest.paused_us.map(|us| us as f64 / 1000.0);
        json!({"name": guest.name, "disk_bytes": guest.disk_bytes, "held": guest.held, "paused_ms": paused_ms,
            "clean": guest.clean})
    };
    let guests: Vec<_> = manifest.guests.iter().map(guest).collect();
    json!({"version": 1, "site": manifest.site, "to": to, "store_version": pushed.version,
        "taken_at_epoch_seconds": manifest.taken_at_epoch_seconds, "sent_bytes": pushed.sent_bytes,
        "new_bytes": pushed.new_bytes, "guests": guests})
}

fn show(args: &BackupArgs, context: &Context) -> Result<Exit> {
    let place = place::open(&args.to)?;
    let name = send::name(&context.site()?.name)?;
    let found = list::of_site(&*place, &name)?;
    let signatures =
        |listed: &list::Listed| signature::parse(&listed.signed.signatures).map_or(0, |blocks| blocks.len());
    if context.json {
        let row = |listed: &list::Listed| {
            let head = &listed.signed.head;
            json!({"store_version": head.version, "taken_at_epoch_seconds": head.built_at_epoch_seconds,
                "latest": listed.latest, "signatures": signatures(listed), "files": head.parts})
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        print_json(&json!({"version": 1, "site": name, "backups": rows}))?;
        return Ok(Exit::Done);
    }
    for listed in &found {
        let head = &listed.signed.head;
        let size = Bytes(head.parts.iter().map(|part| part.size_bytes).sum());
        let signed = if signatures(listed) > 0 { "signed" } else { "not signed" };
        let disks = head.parts.iter().filter_map(|part| part.file.strip_suffix(".disk"));
        let guests: Vec<&str> = disks.collect();
        let at = when::local(head.built_at_epoch_seconds.saturating_mul(1000));
        print(&format!("{at}  {}  {size:>7}  {signed:<10}  {}\n", head.version, guests.join(" ")))?;
    }
    Ok(Exit::Done)
}

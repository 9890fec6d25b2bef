//! `gridgate image push`, `pull`, `store` and `export-casync`: golden images through a store of plain files.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Context, Ending, Exit};
use crate::chunks::head::Kind;
use crate::chunks::mirrors::Mirrors;
use crate::chunks::{casync, keep, place, pull, push};
use crate::image::store;
use crate::names::{Bytes, ImageName, parse_duration};
use crate::progress::Progress;
use crate::signature::{Policy, Purpose};

/// Verbs of stores, beside the others of `gridgate image`.
#[derive(Debug, clap::Subcommand)]
pub enum ChunksCommand {
    /// Put an image into a store of plain files; what the store has of it already is not sent
    Push(PushArgs),
    /// Fetch an image from a store; what this host has of it already is not sent
    Pull(PullArgs),
    /// Look after a store in a directory
    #[command(subcommand)]
    Store(StoreCommand),
    /// Write an image as casync and desync fetch it: NAME.caibx and default.castr
    ExportCasync {
        /// Image to export
        name: ImageName,
        /// Directory to write to
        dir: PathBuf,
    },
}

/// Arguments of `push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Image to push
    name: ImageName,
    /// The store: a directory, or ssh://[user@]host[:port]/directory
    #[arg(value_name = "STORE")]
    to: String,
    /// Sign the version with this SSH key; a .pub file if an agent has the key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Image to pull
    name: ImageName,
    /// The store and its mirrors: directories, http(s):// or ssh:// addresses
    #[arg(required = true, value_name = "STORE")]
    from: Vec<String>,
    /// A further file or device that may hold parts of the image; may be given several times
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
    /// Who may sign images [default: allowed_signers of the site, else /etc/gridgate/allowed_signers]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_unsigned")]
    allowed_signers: Option<PathBuf>,
    /// Take the image from whoever made it: whoever controls the store or the line decides what guests run
    #[arg(long)]
    insecure_unsigned: bool,
    /// Also if the image that is here was built later
    #[arg(long)]
    older: bool,
}

/// Verbs of `store`.
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// List the versions in a store
    List {
        /// The store's directory
        dir: PathBuf,
    },
    /// Read all of a store and compare it with what its versions say
    Verify {
        /// The store's directory
        dir: PathBuf,
    },
    /// Remove what no reader can need any more
    Gc {
        /// The store's directory
        dir: PathBuf,
        /// How long old versions, and files that no version names, are kept for readers
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
        grace: Duration,
        /// Remove all but so many of the newest backups of each site; without this all of them are kept
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
        keep_backups: Option<u16>,
        /// Only show what would be removed; exit 3 if there is something
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs the command; data goes to `out`, as JSON if asked for.
pub fn run(command: &ChunksCommand, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    match command {
        ChunksCommand::Push(args) => {
            let shelf = place::open_to_write(&args.to)?;
            let done = push::push(host, paths, &args.name, &*shelf, args.key.as_deref(), progress)?;
            let (name, version, sent) = (&args.name, &done.version, Bytes(done.sent_bytes));
            match done.new {
                true => progress.say(&format!("image '{name}' is pushed: version {version}, {sent} sent")),
                false => progress.say(&format!("the store has image '{name}' already: version {version}")),
            }
            if *json {
                let (sent, new) = (done.sent_bytes, done.new_bytes);
                return line(
                    out,
                    &json!({"version": 1, "name": name, "store_version": version, "pushed": done.new,
                        "sent_bytes": sent, "new_bytes": new}),
                );
            }
        }
        ChunksCommand::Pull(args) => return pull_image(args, context, out),
        ChunksCommand::Store(command) => return store_command(command, *json, progress, out),
        ChunksCommand::ExportCasync { name, dir } => {
            let golden = store::verify(host, paths, name, progress)?;
            let done = casync::export(&golden.disk, dir, name.as_str(), progress)?;
            progress.say(&format!(
                "image '{name}' is exported: {} new chunks, {}",
                done.new_chunks,
                Bytes(done.new_bytes)
            ));
            if *json {
                return line(
                    out,
                    &json!({"version": 1, "name": name, "index": done.index, "store": done.store,
                        "new_chunks": done.new_chunks, "new_bytes": done.new_bytes}),
                );
            }
        }
    }
    Ok(())
}

fn pull_image(args: &PullArgs, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    let signers = args.allowed_signers.as_deref();
    let policy = Policy::of(host, paths, args.insecure_unsigned, signers, Purpose::Image)?;
    let places = args.from.iter().map(|from| place::open(from)).collect::<Result<Vec<_>>>()?;
    let mirrors = Mirrors::new(places, progress);
    let request = pull::Request { name: &args.name, policy, seeds: &args.seed, older: args.older };
    let done = pull::pull(host, paths, &request, &mirrors, progress)?;
    let (name, received) = (&args.name, Bytes(done.received_bytes));
    let signed = match &done.signer {
        Some(signer) => format!(", signed by {} ({})", signer.principal, signer.fingerprint),
        None => ", by whoever wrote the store".to_owned(),
    };
    match done.new {
        true => {
            progress.say(&format!("image '{name}' is version {}{signed}; {received} came", done.version));
        }
        false => progress.say(&format!("image '{name}' is version {} already{signed}", done.version)),
    }
    if *json {
        let signer = done.signer.as_ref();
        let signer = signer.map(|s| json!({"principal": s.principal, "fingerprint": s.fingerprint}));
        return line(
            out,
            &json!({"version": 1, "name": name, "store_version": done.version, "pulled": done.new,
                "received_bytes": done.received_bytes, "signer": signer, "image": done.manifest}),
        );
    }
    Ok(())
}

fn store_command(command: &StoreCommand, json: bool, progress: &Progress, out: &mut dyn Write) -> Result<()> {
    match command {
        StoreCommand::List { dir } => {
            let versions = keep::list(dir)?;
            if json {
                let row = |version: &keep::Version| {
                    let head = &version.head;
                    json!({"kind": head.kind, "name": head.name, "store_version": head.version, "sequence": head.sequence,
                        "latest": version.latest, "signatures": version.signatures, "pushed_by": head.pushed_by,
                        "pushed_at_epoch_seconds": head.pushed_at_epoch_seconds, "files": head.parts})
                };
                let rows: Vec<_> = versions.iter().map(row).collect();
                return line(out, &json!({"version": 1, "versions": rows}));
            }
            writeln!(out, "{:<20} {:<32} {:>4} {:>7}  STATE", "NAME", "VERSION", "NO", "SIZE")?;
            for version in &versions {
                let head = &version.head;
                let size = Bytes(head.parts.iter().map(|part| part.size_bytes).sum());
                let state = match (head.kind, version.latest, version.signatures) {
                    (Kind::Image, true, 0) => "latest, unsigned",
                    (Kind::Image, true, _) => "latest, signed",
                    (Kind::Image, false, _) => "old",
                    (Kind::Backup, _, 0) => "backup, unsigned",
                    (Kind::Backup, _, _) => "backup, signed",
                };
                writeln!(
                    out,
                    "{:<20} {:<32} {:>4} {size:>7}  {state}",
                    head.name, head.version, head.sequence
                )?;
            }
        }
        StoreCommand::Verify { dir } => {
            let wrong = keep::verify(dir, progress)?;
            if json {
                line(out, &json!({"version": 1, "ok": wrong.is_empty(), "wrong": wrong}))?;
            } else {
                for text in &wrong {
                    writeln!(out, "{text}")?;
                }
            }
            if !wrong.is_empty() {
                let hint = "push the images again: what is missing is written anew";
                let message = format!("the store in '{}' is damaged\nhint: {hint}", dir.display());
                return Err(Ending::error(Exit::Differs, message));
            }
            progress.say(&format!("the store in '{}' is whole", dir.display()));
        }
        StoreCommand::Gc { dir, grace, keep_backups, dry_run } => {
            let keep = keep::Keep { grace: *grace, backups: keep_backups.map(usize::from) };
            let found = keep::collect(dir, keep, *dry_run)?;
            let bytes: u64 = found.iter().map(|(_, len)| len).sum();
            if json {
                let row = |(path, len): &(PathBuf, u64)| json!({"path": path, "size_bytes": len});
                let rows: Vec<_> = found.iter().map(row).collect();
                line(out, &json!({"version": 1, "found": rows, "removed": !dry_run}))?;
            } else {
                for (path, _) in &found {
                    writeln!(out, "{}", path.display())?;
                }
            }
            let what = if *dry_run { "could be" } else { "are" };
            progress.say(&format!("{} files with {} {what} removed", found.len(), Bytes(bytes)));
            if *dry_run && !found.is_empty() {
                return Err(Ending::error(Exit::Differs, ""));
            }
        }
    }
    Ok(())
}

fn line(out: &mut dyn Write, value: &serde_json::Value) -> Result<()> {
    Ok(writeln!(out, "{value}")?)
}

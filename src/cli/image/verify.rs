//! `gridgate image verify`: an image of this host, or an archive, by itself or against what was made of it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::archive::image_meant;
use super::restore::{self, Trust};
use crate::archive::compare::{Difference, Known};
use crate::archive::reader::{self, Damage};
use crate::archive::restore::differences;
use crate::archive::stream::Piece;
use crate::cli::{Context, Ending, Exit, sign};
use crate::host::Host;
use crate::host::root::Root;
use crate::host::target::Target;
use crate::host::volume::Volume;
use crate::image::store;
use crate::progress::Progress;

/// `image verify`
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Image of this host, or an archive: a file, `-` for standard input, or an http(s) URL
    #[arg(value_name = "IMAGE|ARCHIVE")]
    pub what: String,
    /// File, block device or directory that is to be what the archive says
    #[arg(long, value_name = "TARGET")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "its text would become that of the command")]
    pub trust: Trust,
}

/// How many differences are told of one by one, but in JSON.
const SHOWN: usize = 50;

/// Runs it.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    if args.against.is_none()
        && let Some(name) = image_meant(&args.what, host, paths)?
    {
        let golden = store::verify(host, paths, &name, progress)?;
        let signer = sign::signer(&name, &args.trust, host, paths)?;
        let signed_by = signer.as_ref().map(|signer| &signer.principal);
        if *json {
            let document = json!({"version": 1, "name": name, "ok": true, "signed_by": signed_by});
            return super::print_json(out, &document);
        }
        progress.say(&format!("image '{name}' is as it was built: blake3 {}", golden.manifest.disk.blake3));
        if let Some(signer) = &signer {
            progress.say(&format!("signed by {} ({})", signer.principal, signer.fingerprint));
        }
        return Ok(());
    }
    let (reader, signer) = restore::open(&args.what, &args.trust, host, paths)?;
    let found = match &args.against {
        Some(against) => compared(&reader.manifest, against, host, progress)?,
        None => {
            let meter = progress.meter("verifying", Some(reader.manifest.head.data_bytes));
            let manifest = reader.manifest.head.entries;
            let count = |piece: Piece<'_>| {
                if let Piece::Data { bytes, .. } = piece {
                    meter.add(bytes.len() as u64);
                }
                Ok(())
            };
            let read = reader.begin(Damage::Refuse).share(&mut vec![count; reader::sharers()]);
            read.with_context(|| format!("'{}'", args.what))?;
            progress.say(&format!("'{}' is whole: {manifest} entries", args.what));
            Vec::new()
        }
    };
    let signed_by = signer.as_ref().map(|signer| &signer.principal);
    if *json {
        let differences: Vec<String> = found.iter().map(ToString::to_string).collect();
        let ok = found.is_empty();
        let document = json!({"version": 1, "name": args.what, "ok": ok, "signed_by": signed_by, "differences": differences});
        super::print_json(out, &document)?;
    } else {
        for difference in found.iter().take(SHOWN) {
            writeln!(out, "{difference}")?;
        }
    }
    if let Some(signer) = &signer {
        progress.say(&format!("signed by {} ({})", signer.principal, signer.fingerprint));
    }
    match (&args.against, found.len()) {
        (Some(against), 0) => {
            progress.say(&format!("'{}' is what '{}' says", against.display(), args.what));
            Ok(())
        }
        (Some(against), count) => Err(Ending::error(
            Exit::Differs,
            format!("'{}' differs from '{}' in {count} things", against.display(), args.what),
        )),
        (None, _) => Ok(()),
    }
}

fn compared(
    manifest: &crate::archive::manifest::Manifest,
    against: &Path,
    host: &dyn Host,
    progress: &Progress,
) -> Result<Vec<Difference>> {
    restore::need_root("reading every file of a filesystem")?;
    let mut found = Vec::new();
    let mut compare = |root: &Root| -> Result<()> {
        let bytes = manifest.head.data_bytes;
        found = differences(root, &manifest.entries, &Known::default(), bytes, progress)?;
        Ok(())
    };
    match Target::at(against)? {
        Target::Directory { .. } => compare(&Root::open(against)?)?,
        _ => host.look_at_volume(&Volume::whole(against), &mut |root, _| compare(root))?,
    }
    Ok(found)
}

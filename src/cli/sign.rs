//! `gridgate image sign`: somebody vouches for an image of this host, or for an archive of one.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use super::image::archive::image_meant;
use super::image::restore::Trust;
use crate::archive::sign;
use crate::host::Host;
use crate::image::{manifest, store};
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::signature::{self, Policy, Purpose, Signer};

/// `image sign`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image of this host, or file with an archive
    #[arg(value_name = "NAME|FILE")]
    what: String,
    /// SSH key to sign with; a .pub file if an agent has the key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Adds a signature.
pub fn sign(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    let new = match image_meant(&args.what, host, paths)? {
        Some(name) => sign_image(&name, &args.key, host, paths, progress)?,
        None => sign::sign(host, Path::new(&args.what), &args.key)?,
    };
    match new {
        true => progress.say(&format!("'{}' is signed", args.what)),
        false => progress.say(&format!("'{}' bears that signature already", args.what)),
    }
    if *json {
        writeln!(out, "{}", json!({"version": 1, "name": args.what, "signed": true, "changed": new}))?;
    }
    Ok(())
}

fn sign_image(
    name: &ImageName,
    key: &Path,
    host: &dyn Host,
    paths: &Paths,
    progress: &Progress,
) -> Result<bool> {
    // What is signed is vouched for: it has to be whole.
    store::verify(host, paths, name, progress)?;
    let dir = paths.image(name);
    let payload = host.read(&dir.join(manifest::FILE))?.context("its manifest is gone")?;
    let new = signature::sign(host, &payload, key, Purpose::Image)?;
    let file = dir.join(manifest::SIGNATURES);
    let old = host.read(&file)?.unwrap_or_default();
    if String::from_utf8_lossy(&old).contains(&new) {
        return Ok(false);
    }
    host.write(&file, &[&old[..], new.as_bytes()].concat(), 0o644)?;
    Ok(true)
}

/// Who signed an image of this host. It may be unsigned, unless it is asked for by a file of allowed signers that is named: it was
/// built here, or asked when it came.
pub fn signer(name: &ImageName, trust: &Trust, host: &dyn Host, paths: &Paths) -> Result<Option<Signer>> {
    let dir = paths.image(name);
    let signatures = host.read(&dir.join(manifest::SIGNATURES))?;
    let named = trust.allowed_signers.as_deref();
    if trust.insecure_unsigned || (named.is_none() && signatures.is_none()) {
        return Ok(None);
    }
    let policy = Policy::SignedBy(signature::allowed_signers(host, paths, named, Purpose::Image)?);
    let payload = host.read(&dir.join(manifest::FILE))?.context("its manifest is gone")?;
    signature::check(
        host,
        &format!("image '{name}'"),
        &payload,
        signatures.as_deref(),
        &policy,
        Purpose::Image,
    )
}

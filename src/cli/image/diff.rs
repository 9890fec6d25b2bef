//! `gridgate image diff`: what is not the same in two images, packages first, then every file.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::archive::compare::{Difference, Known, compare};
use crate::archive::pack::{About, Keys, survey};
use crate::cli::{Context, Ending, Exit};
use crate::host::Host;
use crate::host::volume::Volume;
use crate::image::{compare as packages, store};
use crate::names::ImageName;
use crate::progress::Progress;

/// `image diff`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image to compare with
    from: ImageName,
    /// Image that is told of
    to: ImageName,
    /// Compare packages alone, which takes no time and no root
    #[arg(long)]
    packages: bool,
}

/// Runs it; exit 3 if they differ.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    let (from, to) = (store::open(host, paths, &args.from)?, store::open(host, paths, &args.to)?);
    let changes = packages::packages(&from.manifest, &to.manifest);
    // What has the same bytes has the same files.
    let files = match args.packages || from.manifest.disk.blake3 == to.manifest.disk.blake3 {
        true => Vec::new(),
        false => files(&from, &to, host, progress)?,
    };
    if *json {
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        let document = json!({"version": 1, "from": args.from, "to": args.to, "packages": changes, "differences": files});
        super::print_json(out, &document)?;
    } else {
        for change in &changes {
            writeln!(out, "{change}")?;
        }
        for file in &files {
            writeln!(out, "{file}")?;
        }
    }
    if changes.is_empty() && files.is_empty() {
        let what = if args.packages { "packages" } else { "packages and files" };
        progress.say(&format!("'{}' and '{}' have the same {what}", args.from, args.to));
        return Ok(());
    }
    let told = match args.packages {
        true => format!("{} packages", changes.len()),
        false => format!("{} packages and {} files", changes.len(), files.len()),
    };
    Err(Ending::error(Exit::Differs, format!("'{}' differs from '{}' in {told}", args.to, args.from)))
}

fn files(
    from: &store::Golden,
    to: &store::Golden,
    host: &dyn Host,
    progress: &Progress,
) -> Result<Vec<Difference>> {
    super::restore::need_root("comparing every file of two images (--packages does without)")?;
    let name = from.manifest.name.to_string();
    let about = About { name, filesystem: None, own: Vec::new(), keys: Keys::Pack };
    let mut manifest = None;
    host.look_at_volume(&Volume::whole(&from.disk), &mut |root, _| {
        manifest = Some(survey(root, &about, progress)?);
        Ok(())
    })?;
    let entries = manifest.map(|manifest| manifest.entries).unwrap_or_default();
    let mut found = Vec::new();
    host.look_at_volume(&Volume::whole(&to.disk), &mut |root, _| {
        found = compare(root, &entries, &Known::default(), &|_| ())?;
        Ok(())
    })?;
    Ok(found)
}

//! `gridgate image`: build, import, look at and remove golden images.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use super::{Context, Ending, Exit};
use crate::image::build::{Built, When, build};
use crate::image::manifest::Manifest;
use crate::image::{definition, store};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::profile::Workshop;

pub mod restore;
pub(crate) mod archive;
pub mod diff;
mod import;
pub(crate) mod pack;
mod verify;

/// What to do with golden images
#[derive(Debug, clap::Subcommand)]
pub enum ImageCommand {
    /// Build an image from its definition, if it is not up to date
    Build {
        /// Image to build, as its definition is named
        name: ImageName,
        /// Build it even if it is up to date
        #[arg(long)]
        force: bool,
    },
    /// Make an image of what is there: a directory, a tar, a disk
    Import(import::Args),
    /// List the images of this host
    List,
    /// Show what an image, or an archive of one, is and what is in it
    Show {
        /// Image to show, or file with an archive; - is stdin
        #[arg(value_name = "NAME|FILE")]
        name: String,
    },
    /// Pack an image, a filesystem or a directory into one file that tar reads
    Pack(pack::Args),
    /// Restore an archive to a file, a disk or a directory of any size that fits
    Restore(Box<restore::Args>),
    /// Read all of an image or archive and compare it with its manifest
    Verify(Box<verify::Args>),
    /// Show what is not the same in two images
    Diff(diff::Args),
    /// Sign an image, or an archive of one, with an SSH key
    Sign(super::sign::Args),
    /// Remove an image; guests made from it stay as they are
    Remove {
        /// Image to remove
        name: ImageName,
    },
    #[command(flatten)]
    #[expect(missing_docs, reason = "each verb carries its help")]
    Chunks(super::chunks::ChunksCommand),
}

/// Runs the command; data goes to `out`, as JSON if asked for.
pub fn run(command: &ImageCommand, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    match command {
        ImageCommand::Build { name, force } => {
            let definition = definition::find(host, &paths.site, name)?;
            let profiles: Vec<String> = definition.profiles.iter().cloned().map(String::from).collect();
            let more = Workshop::packages(&paths.site, &profiles).map_err(|problems| {
                Ending::error(
                    Exit::Usage,
                    format!("image '{name}' has profiles that cannot be used:\n{problems}"),
                )
            })?;
            let definition = definition.with_packages(more)?;
            let when = if *force { When::Always } else { When::Changed };
            let (manifest, new) = match build(host, paths, &definition, when, progress)? {
                Built::UpToDate(manifest) => {
                    progress.say(&format!("image '{name}' is up to date"));
                    (manifest, false)
                }
                Built::New(manifest) => (manifest, true),
            };
            if *json {
                print_json(out, &json!({"version": 1, "built": new, "image": manifest}))?;
            }
        }
        ImageCommand::Import(args) => return import::run(args, context, out),
        ImageCommand::List => {
            let images = store::list(host, paths)?;
            if *json {
                let rows: Vec<_> = images.iter().map(|(name, image)| row(name, image)).collect();
                return print_json(out, &json!({"version": 1, "images": rows}));
            }
            writeln!(out, "{:<20} {:>7} {:>7} {:>8}  STATE", "IMAGE", "SIZE", "USED", "PACKAGES")?;
            for (name, image) in &images {
                match image {
                    Ok(golden) => {
                        let disk = &golden.manifest.disk;
                        let (size, used) = (Bytes(disk.size_bytes), Bytes(disk.allocated_bytes));
                        writeln!(
                            out,
                            "{name:<20} {size:>7} {used:>7} {:>8}  ok",
                            golden.manifest.packages.len()
                        )?;
                    }
                    Err(e) => writeln!(out, "{name:<20} {:>7} {:>7} {:>8}  {e:#}", "-", "-", "-")?,
                }
            }
        }
        ImageCommand::Pack(args) => return pack::run(args, context, out),
        ImageCommand::Show { name } => {
            let Some(name) = &archive::image_meant(name, host, paths)? else {
                return archive::show(std::path::Path::new(name), *json, out);
            };
            let manifest = store::open(host, paths, name)?.manifest;
            if *json {
                return print_json(out, &json!({"version": 1, "image": manifest}));
            }
            print_manifest(out, paths, &manifest)?;
        }
        ImageCommand::Restore(args) => return restore::run(args, context, out).map(drop),
        ImageCommand::Verify(args) => return verify::run(args, context, out),
        ImageCommand::Diff(args) => return diff::run(args, context, out),
        ImageCommand::Sign(args) => return super::sign::sign(args, context, out),
        ImageCommand::Remove { name } => {
            store::remove(host, paths, name)?;
            progress.say(&format!("image '{name}' is removed"));
        }
        ImageCommand::Chunks(command) => {
            return super::chunks::run(command, context, out);
        }
    }
    Ok(())
}

fn row(name: &ImageName, image: &Result<store::Golden>) -> serde_json::Value {
    match image {
        Ok(golden) => json!({
            "name": name,
            "ok": true,
            "size_bytes": golden.manifest.disk.size_bytes,
            "allocated_bytes": golden.manifest.disk.allocated_bytes,
            "definition_digest": golden.manifest.definition_digest,
            "built_at_epoch_seconds": golden.manifest.built_at_epoch_seconds,
        }),
        Err(e) => json!({"name": name, "ok": false, "why": format!("{e:#}")}),
    }
}

fn print_manifest(out: &mut dyn Write, paths: &Paths, manifest: &Manifest) -> Result<()> {
    let disk = &manifest.disk;
    writeln!(out, "name        {}", manifest.name)?;
    writeln!(out, "directory   {}", paths.image(&manifest.name).display())?;
    writeln!(
        out,
        "disk        {} ({} used), UUID {}",
        Bytes(disk.size_bytes),
        Bytes(disk.allocated_bytes),
        disk.uuid
    )?;
    writeln!(out, "blake3      {}", disk.blake3)?;
    for (what, part) in [("kernel", &manifest.kernel), ("initrd", &manifest.initrd)] {
        if let Some(part) = part {
            writeln!(out, "{what:<11} {} ({})", part.file, Bytes(part.size_bytes))?;
        }
    }
    if let Some(origin) = &manifest.origin {
        let sealed = if origin.sealed { ", sealed" } else { "" };
        writeln!(out, "imported    from {} '{}'{sealed}", origin.kind, origin.source)?;
    }
    writeln!(out, "built by    {} with {}", manifest.built_by, manifest.tools.join(", "))?;
    writeln!(out, "packages    {}", manifest.packages.len())?;
    for package in &manifest.packages {
        writeln!(out, "  {} {}", package.name, package.version)?;
    }
    Ok(())
}

fn print_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<()> {
    Ok(writeln!(out, "{value}")?)
}

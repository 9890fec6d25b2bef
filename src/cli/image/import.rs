//! `gridgate image import`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::print_json;
use super::restore::{need_root, parse_size};
use crate::archive::pack::Keys;
use crate::backup::take;
use crate::cli::{Context, Ending, Exit, refusal};
use crate::host::Live;
use crate::host::files::Files;
use crate::host::temporary::{self, Maker};
use crate::image::store;
use crate::import::{self, From, Imported, Named, Place, Wish, origin};
use crate::names::{Bytes, GuestName, ImageName};

/// What becomes an image, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the image is to be called
    pub name: ImageName,
    /// Directory, tar of any compression (- for standard input), raw or qcow2 disk, or an http(s) address of a tar
    #[arg(value_name = "SOURCE", required_unless_present = "guest")]
    pub source: Option<String>,
    /// A guest of this host instead, as it is now; one that runs is held still for a moment
    #[arg(long, value_name = "GUEST", conflicts_with_all = ["source", "partition"])]
    pub guest: Option<GuestName>,
    /// Where the filesystem cannot share blocks: hold a guest that runs for as long as its disk is copied
    #[arg(long, requires = "guest")]
    pub allow_long_pause: bool,
    /// The partition of the disk that holds the system; otherwise the one that does
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// How large the image's filesystem is to be, such as 4G; guests' disks are grown from it
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub size: Option<u64>,
    /// Take the identity of the machine that it was out: names, addresses, keys, ids, logs
    #[arg(long)]
    pub seal: bool,
    /// Import private keys too: all that is made of the image then shares them
    #[arg(long, alias = "with-private-keys")]
    pub with_keys: bool,
    /// Replace an image of that name
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let Context { host, paths, json, progress } = context;
    need_root("importing an image")?;
    let mut from = match (&args.guest, &args.source) {
        (Some(guest), _) => of_guest(guest, context),
        (None, source) => {
            let source = source.as_deref().unwrap_or_default();
            origin::find(source, args.partition).map_err(refusal)?
        }
    };
    let name = &args.name;
    if let (Ok(golden), false) = (store::open(host, paths, name), args.force) {
        return there(args, &from, &golden, context, out);
    }
    let keys = if args.with_keys { Keys::Pack } else { Keys::Refuse };
    let wish = Wish { size: args.size, seal: args.seal, keys };
    let started = Instant::now();
    let _copy = match &args.guest {
        Some(guest) => Some(copied(guest, args.allow_long_pause, &mut from, context)?),
        None => None,
    };
    let imported = import::import(host, paths, name, &from, &wish, progress).map_err(refusal)?;
    let Imported { manifest, notes } = &imported;
    for note in notes {
        progress.say(&format!("note: {note}"));
    }
    progress.say(&format!(
        "image '{name}' is imported, in {:.0} s: {} of {} used, {} packages",
        started.elapsed().as_secs_f64(),
        Bytes(manifest.disk.allocated_bytes),
        Bytes(manifest.disk.size_bytes),
        manifest.packages.len()
    ));
    if *json {
        print_json(out, &json!({"version": 1, "imported": true, "image": manifest, "notes": notes}))?;
    }
    Ok(())
}

fn of_guest(guest: &GuestName, context: &Context) -> From {
    let named = Named { kind: "guest", source: guest.to_string(), partition: None };
    From { named, place: Place::Copy(context.paths.disk(guest)) }
}

/// What a copy's directory is called.
const COPY: &str = "import";

/// A copy of a guest's disk, which goes when this is dropped, or to `gridgate gc`.
struct Copied<'c> {
    host: &'c Live,
    dir: PathBuf,
}

impl Drop for Copied<'_> {
    fn drop(&mut self) {
        // What stays is found by its name.
        let _ = self.host.remove(&self.dir);
    }
}

/// Copies it, and makes the copy what is imported. The site's lock is held for as long as that takes.
fn copied<'c>(
    guest: &GuestName,
    long_pause: bool,
    from: &mut From,
    context: &'c Context,
) -> Result<Copied<'c>> {
    let Context { host, paths, progress, .. } = context;
    let _lock = context.lock()?;
    temporary::sweep(&paths.state, COPY);
    let copy = Copied { host, dir: paths.state.join(Maker::this().name(COPY)) };
    host.make_dir(&copy.dir, 0o700)?;
    let disk = take::disk_of(host, paths, guest, long_pause, &copy.dir, progress);
    let disk = disk.map_err(refusal)?;
    from.place = Place::Copy(disk);
    Ok(copy)
}

/// An image of that name is there: the same import has nothing to do, another one would destroy it.
fn there(
    args: &Args,
    from: &From,
    golden: &store::Golden,
    context: &Context,
    out: &mut dyn Write,
) -> Result<()> {
    let manifest = &golden.manifest;
    let same = manifest.origin.as_ref().is_some_and(|origin| {
        let named = &from.named;
        let same_part = named.partition.is_none() || origin.partition == named.partition;
        origin.kind == named.kind && origin.source == named.source && origin.sealed == args.seal && same_part
    });
    let hint = "hint: --force imports it anew, another name keeps both";
    if !same {
        let made = match &manifest.origin {
            Some(origin) => format!("imported from '{}'", origin.source),
            None => "built".to_owned(),
        };
        let text = format!("image '{}' is there already, {made}\n{hint}", args.name);
        return Err(Ending::error(Exit::Refused, text));
    }
    context.progress.say(&format!("image '{}' is there already\n{hint}", args.name));
    if context.json {
        let none: [String; 0] = [];
        print_json(out, &json!({"version": 1, "imported": false, "image": manifest, "notes": none}))?;
    }
    Ok(())
}

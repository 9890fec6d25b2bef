//! `gridgate clone`: a new guest, made of another one or of an image.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{Context, Ending, Exit, print_json};
use crate::config::clone::{self, File, From};
use crate::config::{self, site::Site};
use crate::console::record::RunRecord;
use crate::host::Host;
use crate::host::disks::Disks;
use crate::host::files::Files;
use crate::host::temporary::{self, Maker};
use crate::image::definition;
use crate::names::{GuestName, ImageName};

/// Make a new guest of another one, or of an image
///
/// The new guest gets a file of its own in the site, a copy of the other's with its comments, and a place in the site's list.
/// A guest's disk is copied with all that is on it, and becomes the new guest's own at its first start: names, addresses, keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Guest or golden image that it is made of
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The new guest
    #[arg(value_name = "TO")]
    pub to: GuestName,
    /// What the new guest is for
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// What else its file says, such as address=10.77.0.20 or memory=1G
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Leave the other's disk alone; one is made from the image at the first start
    #[arg(long)]
    pub new_disk: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Checks everything, copies the disk, writes the files; a failure takes all of it back.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    let from = source(args, &site, context)?;
    if site.guest(&args.to).is_some() {
        let hint = "hint: another name, or gridgate personalise to make its disk another's";
        return Err(Ending::error(
            Exit::Refused,
            format!("site '{}' has a guest '{}' already\n{hint}", site.name, args.to),
        ));
    }
    if context.host.stat(&context.paths.guest(&args.to))?.is_some() {
        let hint = format!("hint: gridgate down --purge {} removes it", args.to);
        return Err(Ending::error(
            Exit::Refused,
            format!("an earlier guest '{}' has left something\n{hint}", args.to),
        ));
    }
    let disk = match &from {
        From::Guest(guest) if !args.new_disk => disk_of(guest, context)?,
        _ => None,
    };
    let role = args.role.iter().map(|role| format!("role={role}"));
    let set: Vec<String> = role.chain(args.set.iter().cloned()).collect();
    let usage = |error: anyhow::Error| Ending::error(Exit::Usage, format!("{error:#}"));
    let files = clone::files(&context.paths.site, &from, &args.to, &set).map_err(usage)?;
    rehearse(&files, args, context)?;
    if args.dry_run {
        for file in &files {
            let act = if file.new { "write" } else { "add the guest to" };
            context.progress.say(&format!("would {act} '{}'", file.path.display()));
        }
        if let Some((guest, _)) = &disk {
            context.progress.say(&format!("would copy the disk of {guest}"));
        }
    } else {
        let _lock = if disk.is_some() { Some(context.lock()?) } else { None };
        make(&files, disk.as_ref(), args, context)?;
    }
    if context.json {
        let paths: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
        let disk = if disk.is_some() { "copied" } else { "new" };
        print_json(
            &json!({"version": 1, "guest": args.to, "files": paths, "disk": disk, "made": !args.dry_run}),
        )?;
    } else if !args.dry_run {
        let to = &args.to;
        context.progress.say(&format!("{to}: is in the site now; gridgate up {to} starts it"));
    }
    Ok(Exit::Done)
}

fn source(args: &Args, site: &Site, context: &Context) -> Result<From> {
    if let Some(guest) = args.from.parse().ok().and_then(|name| site.guest(&name)) {
        return Ok(From::Guest(guest.name.clone()));
    }
    let (host, paths) = (&context.host, &context.paths);
    if let Ok(image) = args.from.parse::<ImageName>()
        && (paths.image(&image).is_dir() || definition::find(host, &paths.site, &image).is_ok())
    {
        return Ok(From::Image(image));
    }
    let names: Vec<&str> = site.guests.iter().map(|guest| guest.name.as_str()).collect();
    let hint = format!("hint: the guests are {}; gridgate image list shows the images", names.join(", "));
    Err(Ending::error(
        Exit::Usage,
        format!("site '{}' has neither a guest nor an image '{}'\n{hint}", site.name, args.from),
    ))
}

/// A disk that is to be copied, and its length.
fn disk_of(guest: &GuestName, context: &Context) -> Result<Option<(GuestName, u64)>> {
    let Some(stat) = context.host.stat(&context.paths.disk(guest))? else { return Ok(None) };
    if RunRecord::read(&context.paths, guest)?.is_some_and(|run| run.is_alive()) {
        let hint = format!("hint: gridgate stop {guest}, or --new-disk to make one from its image");
        return Err(Ending::error(
            Exit::Refused,
            format!("guest '{guest}' runs, and its disk would change while it is copied\n{hint}"),
        ));
    }
    context.need_root("copying a disk")?;
    Ok(Some((guest.clone(), stat.len)))
}

/// A site as it would be.
const STAGE: &str = "gridgate-clone";

/// What killed commands of this user have left here.
pub fn leftovers() -> Vec<PathBuf> {
    temporary::left(&std::env::temp_dir(), STAGE)
}

/// Loads the site as it would be, from a directory of links to what stays.
fn rehearse(files: &[File], args: &Args, context: &Context) -> Result<()> {
    let (host, dir) = (&context.host, &context.paths.site);
    temporary::sweep(&std::env::temp_dir(), STAGE);
    let stage = std::env::temp_dir().join(Maker::this().name(STAGE));
    let result = lay_out(host, dir, &stage, files).and_then(|()| {
        let loaded = config::load(&stage, &context.load_options());
        let shown = |text: String| text.replace(&stage.display().to_string(), &dir.display().to_string());
        match loaded {
            Ok(loaded) if loaded.site.guest(&args.to).is_some() => Ok(()),
            Ok(_) => bail!("guest '{}' would not be in the site", args.to),
            Err(problems) => Err(Ending::error(
                Exit::Usage,
                format!("the site would not be good any more:\n{}", shown(problems.to_string())),
            )),
        }
    });
    let removed = host.remove(&stage);
    result.and(removed)
}

fn lay_out(host: &dyn Host, dir: &Path, stage: &Path, files: &[File]) -> Result<()> {
    host.make_dir(stage, 0o700)?;
    let replaced = |path: &Path| files.iter().any(|file| file.path == path);
    for name in host.list(dir)? {
        match name.as_str() {
            "guests" => {}
            name if replaced(Path::new(name)) => {}
            name => host.link(&stage.join(name), &dir.join(name))?,
        }
    }
    for name in host.list(&dir.join("guests"))? {
        host.link(&stage.join("guests").join(&name), &dir.join("guests").join(&name))?;
    }
    files.iter().try_for_each(|file| host.write(&stage.join(&file.path), file.content.as_bytes(), 0o600))
}

fn make(files: &[File], disk: Option<&(GuestName, u64)>, args: &Args, context: &Context) -> Result<()> {
    let (host, paths) = (&context.host, &context.paths);
    let mut undo: Vec<Undo> = Vec::new();
    let mut steps = || -> Result<()> {
        if let Some((guest, size)) = disk {
            undo.push(Undo::Remove(paths.guest(&args.to)));
            host.make_dir(&paths.guest(&args.to), 0o700)?;
            host.clone_file(&paths.disk(guest), &paths.disk(&args.to), *size, &context.progress)?;
            host.sync_file(&paths.disk(&args.to))?;
            context.progress.say(&format!("{}: has a copy of the disk of {guest}", args.to));
        }
        for file in files {
            // A site file may be a link into a working copy.
            let path = paths.site.join(&file.path);
            let path = path.canonicalize().unwrap_or(path);
            let old = host.read(&path)?;
            let mode = std::fs::metadata(&path)
                .map_or(0o644, |meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777);
            undo.push(match old {
                Some(content) => Undo::Write(path.clone(), content, mode),
                None => Undo::Remove(path.clone()),
            });
            host.write(&path, file.content.as_bytes(), mode)?;
        }
        Ok(())
    };
    let result = steps();
    let Err(error) = result else { return Ok(()) };
    for step in undo.iter().rev() {
        let undone = match step {
            Undo::Remove(path) => host.remove(path),
            Undo::Write(path, content, mode) => host.write(path, content, *mode),
        };
        if let Err(left) = undone {
            let text = format!("{error:#}; also failed at taking it back: {left:#}");
            return Err(Ending::error(Exit::HalfWay, text));
        }
    }
    Err(error).with_context(|| format!("making guest '{}'", args.to))
}

/// What takes a step back.
enum Undo {
    Remove(PathBuf),
    Write(PathBuf, Vec<u8>, u32),
}

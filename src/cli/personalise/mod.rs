//! `gridgate personalise`: a filesystem that was one machine becomes another.

mod args;
mod around;
mod audit;
mod seal;
mod show;
mod who;

use anyhow::{Context as _, Result};

pub use args::Args;

use super::{Context, Ending, Exit, refusal};
use crate::config::site::{Guest, Site};
use crate::console::record::RunRecord;
use crate::host::difference::Difference;
use crate::host::files::Files;
use crate::host::filesystem::Shape;
use crate::host::tree::Tree;
use crate::host::volume::{self, Volume};
use crate::identity::assigned::Assigned;
use crate::identity::diff::differences;
use crate::identity::personalise::{self, Personalisation, Plan};
use crate::identity::selinux::Labelled;
use crate::identity::target::Target;
use crate::identity::{adopt, provided, registry};
use crate::image::store;
use crate::names::GuestName;
use crate::paths::Paths;
use crate::profile::compile;

use around::Around;
use who::{Draw, Who};

/// Exit 3 if `--diff` would change something, or `--audit` finds something.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    match (&args.guest, &args.as_guest) {
        (Some(guest), None) => own_disk(guest, args, context),
        (Some(from), Some(to)) if from == to => own_disk(from, args, context),
        (Some(from), Some(to)) => turn(from, to, args, context),
        (None, _) => other(args, context),
    }
}

/// A guest's own disk.
fn own_disk(name: &GuestName, args: &Args, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    let guest = of_site(&site, name, context)?;
    context.need_root("personalising a disk")?;
    let (host, paths) = (&context.host, &context.paths);
    let _lock = context.lock()?;
    not_running(paths, name)?;
    if host.stat(&paths.disk(name))?.is_none() {
        let hint = format!("hint: gridgate up {name} makes one, or: gridgate personalise OTHER --as {name}");
        return Err(Ending::error(Exit::Failed, format!("guest '{name}' has no disk yet\n{hint}")));
    }
    let who = Who::Guest { site: &site, guest };
    let target = Target::Volume(Volume::whole(&paths.disk(name)));
    if args.audit {
        return audit::run(&target, Some(&who), args, context);
    }
    if args.seal {
        return seal::run(&target, Some(name), args, context);
    }
    if args.diff {
        return diff(&target, &who, args, context);
    }
    renew(&target, &who, args, context)?;
    let done = personalise::disk(host, paths, &site, guest, &args.scrubbing()).map_err(half_way)?;
    finish(&who, &done, context)
}

/// The disk of one guest becomes the disk of another one, which has none.
fn turn(from: &GuestName, to: &GuestName, args: &Args, context: &Context) -> Result<Exit> {
    let site = context.site()?;
    let guest = of_site(&site, to, context)?;
    context.known_or_here(&site, std::slice::from_ref(from))?;
    context.need_root("personalising a disk")?;
    let (host, paths) = (&context.host, &context.paths);
    let _lock = context.lock()?;
    for name in [from, to] {
        not_running(paths, name)?;
    }
    if host.stat(&paths.disk(from))?.is_none() {
        return Err(Ending::error(
            Exit::Failed,
            format!("guest '{from}' has no disk that could become '{to}'"),
        ));
    }
    let who = Who::Guest { site: &site, guest };
    if args.diff {
        return diff(&Target::Volume(Volume::whole(&paths.disk(from))), &who, args, context);
    }
    if host.stat(&paths.disk(to))?.is_some() {
        let hint = format!("hint: gridgate down --purge {to} removes it and all that is on it");
        return Err(Ending::error(Exit::Refused, format!("guest '{to}' has a disk of its own\n{hint}")));
    }
    // A disk that no record tells of is personalised before it is used, so that this may be cut short anywhere.
    personalise::forget(host, paths, from)?;
    personalise::forget(host, paths, to)?;
    host.make_dir(&paths.guest(to), 0o700)?;
    host.rename(&paths.disk(from), &paths.disk(to))?;
    context.progress.say(&format!("{from}: its disk is now that of {to}"));
    renew(&Target::Volume(Volume::whole(&paths.disk(to))), &who, args, context)?;
    let done = personalise::disk(host, paths, &site, guest, &args.scrubbing()).map_err(half_way)?;
    finish(&who, &done, context)
}

/// A disk, image or tree that is no guest's own.
fn other(args: &Args, context: &Context) -> Result<Exit> {
    let site = match &args.as_guest {
        Some(_) => Some(context.site()?),
        None => None,
    };
    let who = match (&args.as_guest, &site, &args.hostname) {
        (Some(name), Some(site), _) => Some(Who::Guest { site, guest: of_site(site, name, context)? }),
        (_, _, Some(hostname)) => Some(Who::Machine(Box::new(args.described(hostname)?))),
        _ => None,
    };
    let target = target(args, context)?;
    if let (Some(image), false) = (&args.image, args.diff || args.audit) {
        let hint = "hint: --diff and --audit look at it; guests are cloned from it, and personalised then";
        return Err(Ending::error(
            Exit::Refused,
            format!("golden image '{image}' is never changed in place\n{hint}"),
        ));
    }
    if args.audit {
        return audit::run(&target, who.as_ref(), args, context);
    }
    if args.seal {
        return seal::run(&target, None, args, context);
    }
    let Some(who) = who else {
        let message = "whose identity is it to have?\nhint: --as GUEST, or --hostname NAME with --address, --mac and so on";
        return Err(Ending::error(Exit::Usage, message));
    };
    if args.diff {
        return diff(&target, &who, args, context);
    }
    let host = &context.host;
    renew(&target, &who, args, context)?;
    let mut identity = who.identity(context, Draw::AndKeep)?;
    let mut done = Personalisation::default();
    let document = who.profile()?;
    let scrubbing = who.scrubbing(&args.scrubbing())?;
    let shape = Shape { uuid: Some(identity.assigned.filesystem_uuid), grow: false };
    let around = Around::look(&target, &identity.assigned, args, context)?;
    identity.disk_ids = around.renamed();
    let mut beside = around.before(&identity.assigned, context)?;
    let mut begun = false;
    let work = &mut |root: &dyn Tree, uuid: Option<[u8; 16]>| {
        let plan = Plan::make(root, &mut identity, uuid, &scrubbing)?;
        if plan.drawn {
            who.keep(context, &identity.assigned)?;
        }
        let root = &Labelled::new(root)?;
        begun = !plan.edits.is_empty();
        done = plan.apply(root)?;
        if let Some(document) = &document {
            done.changed.extend(compile::with_own(root, document, compile::Undeclared::Told)?.changed);
        }
        provided::hand_over(&identity, root, &mut done)
    };
    let edited = target.edit(host, shape, work).with_context(|| format!("personalising '{target}'"));
    // Without a mount all is undone.
    let is_left = begun && !matches!(target, Target::Offline(_)) || !beside.changed.is_empty();
    edited.map_err(|error| if is_left { half_way(error) } else { error })?;
    beside.changed.extend(around.after(context)?);
    done.changed.extend(beside.changed);
    done.notes.extend(beside.notes);
    finish(&who, &done, context)
}

fn target(args: &Args, context: &Context) -> Result<Target> {
    let absolute = |path: &std::path::PathBuf| {
        std::path::absolute(path).with_context(|| format!("looking for '{}'", path.display()))
    };
    if let Some(dir) = &args.tree {
        return Ok(Target::Tree(absolute(dir)?));
    }
    let (host, paths) = (&context.host, &context.paths);
    let offline = args.offline || !rustix::process::geteuid().is_root();
    if let Some(name) = &args.image {
        let disk = store::open(host, paths, name)?.disk;
        if offline {
            return Ok(Target::Offline(disk));
        }
        return Ok(Target::Volume(Volume::whole(&disk)));
    }
    let file = absolute(args.disk.as_ref().context("no target was named")?)?;
    let file = file.canonicalize().with_context(|| format!("looking for '{}'", file.display()))?;
    for name in host.list(&paths.guests())? {
        if let Ok(guest) = name.parse::<GuestName>()
            && paths.disk(&guest).canonicalize().is_ok_and(|disk| disk == file)
        {
            let hint = format!("hint: gridgate personalise {guest}");
            return Err(Ending::error(
                Exit::Refused,
                format!("'{}' is the disk of guest '{guest}'\n{hint}", file.display()),
            ));
        }
    }
    if offline {
        if args.partition.is_some() || args.volume.is_some() {
            let message = "a part of a disk takes a mount, and that takes root\nhint: run it with sudo, without --offline";
            return Err(Ending::error(Exit::Failed, message));
        }
        return Ok(Target::Offline(file));
    }
    Ok(Target::Volume(match &args.volume {
        Some(name) => volume::logical(host, &file, name).map_err(refusal)?,
        None => Volume::find(host, &file, args.partition)?,
    }))
}

/// `--keep-identity` and `--new-identity` change what is kept of the machine before its filesystem is.
fn renew(target: &Target, who: &Who<'_>, args: &Args, context: &Context) -> Result<()> {
    let fresh = if args.new_identity {
        Assigned::draw(who.name())?
    } else if args.keep_identity {
        let mut adopted = None;
        target.look(&context.host, &mut |root, uuid| {
            adopted = Some(adopt::from_tree(root, who.name(), uuid)?);
            Ok(())
        })?;
        adopted.context("the filesystem was not looked at")?
    } else {
        let Some(kept) = who.kept(context)? else { return Ok(()) };
        return clash(context, who, &kept);
    };
    clash(context, who, &fresh)?;
    who.keep(context, &fresh)
}

fn clash(context: &Context, who: &Who<'_>, assigned: &Assigned) -> Result<()> {
    registry::check(&context.host, &context.paths, who.name(), assigned)
        .map_err(|error| Ending::error(Exit::Refused, format!("{error:#}")))
}

fn diff(target: &Target, who: &Who<'_>, args: &Args, context: &Context) -> Result<Exit> {
    let mut identity = who.identity(context, Draw::ForALook)?;
    let mut found: Vec<Difference> = Vec::new();
    let scrubbing = who.scrubbing(&args.scrubbing())?;
    let around = Around::look(target, &identity.assigned, args, context)?;
    identity.disk_ids = around.renamed();
    around.as_if(context)?;
    let work = &mut |root: &dyn Tree, uuid: Option<[u8; 16]>| {
        if args.new_identity {
            identity.assigned = Assigned::draw(who.name())?;
        } else if args.keep_identity {
            identity.assigned = adopt::from_tree(root, who.name(), uuid)?;
        }
        let plan = Plan::make(root, &mut identity, uuid, &scrubbing)?;
        found = differences(root, &plan.edits)?;
        found.extend(who.profile_differences(root)?);
        show::notes(context, who.name(), &plan.notes);
        found.extend(around.differences());
        if let Some(uuid) = uuid.filter(|uuid| *uuid != identity.assigned.filesystem_uuid) {
            found.push(show::uuid(uuid, identity.assigned.filesystem_uuid));
        }
        Ok(())
    };
    target.look(&context.host, work).with_context(|| format!("looking at '{target}'"))?;
    show::differences(context, who.name(), &found)?;
    Ok(if found.is_empty() { Exit::Done } else { Exit::Differs })
}

fn finish(who: &Who<'_>, done: &Personalisation, context: &Context) -> Result<Exit> {
    show::done(context, who.name(), done)?;
    Ok(Exit::Done)
}

fn of_site<'s>(site: &'s Site, name: &GuestName, context: &Context) -> Result<&'s Guest> {
    context.known(site, std::slice::from_ref(name))?;
    site.guest(name).with_context(|| format!("the site has no guest '{name}'"))
}

fn not_running(paths: &Paths, guest: &GuestName) -> Result<()> {
    match RunRecord::read(paths, guest)?.is_some_and(|run| run.is_alive()) {
        true => {
            let message =
                format!("guest '{guest}' runs, and its disk is in use\nhint: gridgate stop {guest}");
            Err(Ending::error(Exit::Refused, message))
        }
        false => Ok(()),
    }
}

/// The disk is not the guest's yet, and no record says that it is: the next command that needs it goes on from there.
fn half_way(error: anyhow::Error) -> anyhow::Error {
    let hint = "hint: what was done stays; the same command, or the guest's next start, does the rest";
    Ending::error(Exit::HalfWay, format!("{error:#}\n{hint}"))
}

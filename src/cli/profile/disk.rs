//! `gridgate profile render --diff`, `compile` and `rollback`: a profile beside the filesystem that it is for.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{CompileArgs, RenderArgs, RollbackArgs, document};
use crate::cli::{Context, Ending, Exit, print, print_json};
use crate::console::record::RunRecord;
use crate::host::difference::{Difference, Kind};
use crate::host::files::{Files, LockGuard};
use crate::host::filesystem::Shape;
use crate::host::tree::Tree;
use crate::host::volume::Volume;
use crate::identity::target::Target;
use crate::names::GuestName;
use crate::profile::compile::{self, Outcome, Plan, Undeclared};
use crate::profile::diff::differences;
use crate::profile::record::Compiled;

#[derive(Serialize)]
struct DiffReport<'a> {
    version: u32,
    guest: &'a GuestName,
    differs: bool,
    differences: Vec<Difference>,
    notes: &'a [String],
    missing_packages: &'a [String],
}

#[derive(Serialize)]
struct CompileReport<'a> {
    version: u32,
    guest: &'a GuestName,
    generation: u32,
    changed: &'a [PathBuf],
    notes: &'a [String],
    missing_packages: &'a [String],
}

/// Shows what compiling would change.
pub(super) fn diff(args: &RenderArgs, context: &Context) -> Result<Exit> {
    let (_, document) = document(context, &context.site()?, &args.guest)?;
    let (target, _lock) = target(&args.guest, args.tree.as_ref(), context)?;
    let mut found = Vec::new();
    let mut outcome = Outcome::default();
    let work = &mut |root: &dyn Tree, _| {
        let plan = Plan::make(root, &document)?;
        found = differences(root, &plan)?;
        outcome = plan.outcome;
        Ok(())
    };
    target.look(&context.host, work).with_context(|| format!("looking at '{target}'"))?;
    if let Some(path) = &args.file {
        found.retain(|one| one.path.as_os_str() == path.as_str());
    }
    let exit = if found.is_empty() { Exit::Done } else { Exit::Differs };
    if context.json {
        print_json(&DiffReport {
            version: 1,
            guest: &args.guest,
            differs: !found.is_empty(),
            differences: found,
            notes: &outcome.notes,
            missing_packages: &outcome.missing_packages,
        })?;
        return Ok(exit);
    }
    for one in &found {
        let kind = match one.kind {
            Kind::Added => "added",
            Kind::Changed => "changed",
            Kind::Removed => "removed",
        };
        print(&format!("{} {kind}\n{}", one.path.display(), one.text))?;
    }
    tell(&args.guest, &outcome, context);
    if found.is_empty() {
        context.progress.say(&format!("{}: nothing would change", args.guest));
    }
    Ok(exit)
}

/// Compiles it.
pub(super) fn compile(args: &CompileArgs, context: &Context) -> Result<Exit> {
    let (_, document) = document(context, &context.site()?, &args.guest)?;
    edit(&args.guest, args.tree.as_ref(), context, &mut |root, compiled| {
        let undeclared = if args.strict { Undeclared::Refused } else { Undeclared::Told };
        let outcome = compile::with_own(root, &document, undeclared)?;
        let changed = compiled.tell(root, &document, outcome.clone());
        Ok(Outcome { changed, ..outcome })
    })
}

/// Goes back by one generation. The site's profile is left alone until it changes.
pub(super) fn rollback(args: &RollbackArgs, context: &Context) -> Result<Exit> {
    // A profile that cannot be used is a reason to go back, and none to fail.
    let site = context.site()?;
    context.known(&site, std::slice::from_ref(&args.guest))?;
    let wanted = site.guest(&args.guest).and_then(|guest| crate::profile::document(&site, guest).ok());
    edit(&args.guest, args.tree.as_ref(), context, &mut |root, compiled| {
        let (document, outcome) = compile::rollback(root)?;
        compiled.tell(root, &document, outcome.clone());
        compiled.instead_of = wanted.as_ref().map(|wanted| wanted.digest());
        Ok(outcome)
    })
}

type Work<'w> = &'w mut dyn FnMut(&dyn Tree, &mut Compiled) -> Result<Outcome>;

fn edit(guest: &GuestName, tree: Option<&PathBuf>, context: &Context, work: Work<'_>) -> Result<Exit> {
    let (target, _lock) = target(guest, tree, context)?;
    let (mut compiled, mut outcome) = (Compiled::default(), Outcome::default());
    let edit = &mut |root: &dyn Tree, _| {
        outcome = work(root, &mut compiled)?;
        Ok(())
    };
    target.edit(&context.host, Shape::default(), edit)?;
    if tree.is_none() {
        compiled.keep(&context.host, &context.paths, guest)?;
    }
    if context.json {
        print_json(&CompileReport {
            version: 1,
            guest,
            generation: outcome.generation,
            changed: &outcome.changed,
            notes: &outcome.notes,
            missing_packages: &outcome.missing_packages,
        })?;
        return Ok(Exit::Done);
    }
    for path in &outcome.changed {
        context.progress.detail(&format!("{}: wrote {}", guest, path.display()));
    }
    tell(guest, &outcome, context);
    let (generation, count) = (outcome.generation, outcome.changed.len());
    let plural = if count == 1 { "" } else { "s" };
    let profile = &compiled.profile;
    context.progress.say(&format!(
        "{}: profile '{profile}' is generation {generation}, {count} path{plural} changed",
        guest
    ));
    Ok(Exit::Done)
}

fn tell(guest: &GuestName, outcome: &Outcome, context: &Context) {
    for note in &outcome.notes {
        context.progress.say(&format!("{guest}: note: {note}"));
    }
    if !outcome.missing_packages.is_empty() {
        let missing = outcome.missing_packages.join(" ");
        context.progress.say(&format!("{guest}: note: packages that are not installed: {missing}"));
    }
}

/// The guest's own disk, which nobody else then changes; or a tree.
fn target(
    guest: &GuestName,
    tree: Option<&PathBuf>,
    context: &Context,
) -> Result<(Target, Option<LockGuard>)> {
    if let Some(dir) = tree {
        let dir = std::path::absolute(dir).with_context(|| format!("looking for '{}'", dir.display()))?;
        return Ok((Target::Tree(dir), None));
    }
    context.need_root("opening a disk")?;
    let lock = context.lock()?;
    if RunRecord::read(&context.paths, guest)?.is_some_and(|run| run.is_alive()) {
        let message = format!("guest '{guest}' runs, and its disk is in use\nhint: gridgate stop {guest}");
        return Err(Ending::error(Exit::Refused, message));
    }
    let disk = context.paths.disk(guest);
    if context.host.stat(&disk)?.is_none() {
        let hint = format!("hint: gridgate up {guest} makes one");
        return Err(Ending::error(Exit::Failed, format!("guest '{guest}' has no disk yet\n{hint}")));
    }
    Ok((Target::Volume(Volume::whole(&disk)), Some(lock)))
}

//! `gridgate personalise --audit`: what is left of an old identity.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::who::{Draw, Who};
use super::{Args, around};
use crate::cli::{Context, Exit, print, print_json};
use crate::host::files::Files;
use crate::host::root::Root;
use crate::identity::assigned;
use crate::identity::audit::{self, Now, Old, Report};
use crate::identity::personalise::Plan;
use crate::identity::scrub::Policy;
use crate::identity::target::Target;
use crate::identity::wanted::Identity;
use crate::names::GuestName;
use crate::profile::compile;

/// Exit 3 if anything is left. Without anybody whose the filesystem is to be, it is held to be nobody's, as an image is.
pub(super) fn run(target: &Target, who: Option<&Who<'_>>, args: &Args, context: &Context) -> Result<Exit> {
    let old = old(who, args, context)?;
    let scrubbing = match who {
        Some(who) => who.scrubbing(&args.scrubbing())?,
        None => args.scrubbing(),
    };
    let usual = match who {
        Some(_) => Policy::another_machine(),
        None => Policy::nobody(),
    };
    let kept = scrubbing.keep.iter().fold(usual, |policy, class| policy.keep(*class));
    let policy = scrubbing.scrub.iter().fold(kept, |policy, class| policy.scrub(*class));
    let mut report: Option<Report> = None;
    let work = &mut |root: &Root, uuid: Option<[u8; 16]>| {
        let now = match who {
            Some(who) => {
                let mut identity = who.identity(context, Draw::ForALook)?;
                let plan = Plan::make(root, &mut identity, uuid, &scrubbing)?;
                let since = if args.guest.is_some() { who.personalised_at(context) } else { None };
                let now = Now { since, ..Now::of(&identity, &plan.edits)? };
                match who.profile()? {
                    Some(document) => now.with_files(compile::Plan::make(root, &document)?.files()),
                    None => now,
                }
            }
            None => Now::nobody(&[]),
        };
        report = Some(audit::run(root, &old, &now, &policy, &scrubbing.extra)?);
        Ok(())
    };
    target.look_at_root(&context.host, work).with_context(|| format!("looking at '{target}'"))?;
    let mut report = report.context("nothing was looked at")?;
    report.add(around::left(target, &old, context)?);
    match context.json {
        true => print_json(&report)?,
        false => print(&report.to_string())?,
    }
    if who.is_none() && args.image.is_none() && !report.is_clean() {
        context
            .progress
            .say("it was looked at as nobody's, as a golden image is; --as GUEST says whose it is now");
    }
    Ok(if report.is_clean() { Exit::Done } else { Exit::Differs })
}

/// Whom to look for: those that were named; else whom the guest's disk belonged to before, if that is known.
pub(super) fn old(who: Option<&Who<'_>>, args: &Args, context: &Context) -> Result<Old> {
    let mut old = Old::default();
    for named in &args.old {
        old = old.and(named_old(named, context)?);
    }
    if let (true, Some(Who::Guest { guest, .. })) = (args.old.is_empty(), who) {
        old = old.and(remembered(&guest.name, context)?);
    }
    Ok(old)
}

/// What is kept of the machine that the guest's disk was before.
pub(super) fn remembered(guest: &GuestName, context: &Context) -> Result<Old> {
    let path = context.paths.old_identity(guest);
    match context.host.read(&path)? {
        Some(bytes) => Old::from_json(&bytes).with_context(|| format!("reading '{}'", path.display())),
        None => Ok(Old::default()),
    }
}

/// A guest of the site, or a file that says what a machine was known by.
fn named_old(named: &str, context: &Context) -> Result<Old> {
    if let (Ok(name), false) = (named.parse::<GuestName>(), Path::new(named).exists()) {
        let site = context.site()?;
        context.known(&site, std::slice::from_ref(&name))?;
        let guest = site.guest(&name).with_context(|| format!("the site has no guest '{name}'"))?;
        let has = assigned::load(&context.host, &context.paths, &name)?;
        let has = has.with_context(|| format!("guest '{name}' was never given an identity"))?;
        return Old::of(&Identity::of(&site, guest, has, ""));
    }
    let bytes = std::fs::read(named).with_context(|| format!("reading the old identity in '{named}'"))?;
    Old::from_json(&bytes).with_context(|| format!("reading the old identity in '{named}'"))
}

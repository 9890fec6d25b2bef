//! `gridgate personalise --seal`: a golden image out of a used disk.

use anyhow::{Context as _, Result};

use super::{Args, audit, show};
use crate::cli::{Context, Exit};
use crate::host::difference::Difference;
use crate::host::filesystem::Shape;
use crate::host::root::Change;
use crate::host::tree::Tree;
use crate::identity::audit::Old;
use crate::identity::diff::differences;
use crate::identity::personalise::{self, Personalisation};
use crate::identity::seal;
use crate::identity::target::Target;
use crate::names::GuestName;

/// Erases where personalising assigns. The disk of a guest is nobody's afterwards: at its next start it is made the guest's
/// again. Exit 3 if `--diff` finds something to erase.
pub(super) fn run(
    target: &Target,
    guest: Option<&GuestName>,
    args: &Args,
    context: &Context,
) -> Result<Exit> {
    let mut known = audit::old(None, args, context)?;
    if let Some(guest) = guest {
        known = known.and(audit::remembered(guest, context)?);
    }
    let extra = args.scrubbing().extra;
    let machine = target.to_string();
    if args.diff {
        let mut found: Vec<Difference> = Vec::new();
        target.look(&context.host, &mut |tree: &dyn Tree, _| {
            let old = Old::from_tree(tree)?.and(known.clone());
            found = differences(tree, &seal::edits(tree, &old, &extra)?)?;
            Ok(())
        })?;
        show::differences(context, &machine, &found)?;
        return Ok(if found.is_empty() { Exit::Done } else { Exit::Differs });
    }
    if let Some(guest) = guest {
        personalise::forget(&context.host, &context.paths, guest)?;
    }
    let mut done = Personalisation::default();
    let work = &mut |tree: &dyn Tree, _| {
        let old = Old::from_tree(tree)?.and(known.clone());
        for edit in seal::edits(tree, &old, &extra)? {
            if edit.apply(tree)? == Change::Changed {
                done.changed.push(edit.path().to_owned());
            }
        }
        Ok(())
    };
    target.edit(&context.host, Shape::default(), work).with_context(|| format!("sealing '{target}'"))?;
    show::done(context, &machine, &done)?;
    Ok(Exit::Done)
}

//! Known places: what is there that should not be, whatever is in it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::needles::Sort;
use super::report::{Finding, MOST, Verdict, shown};
use super::{Now, Old};
use crate::host::root::{Entry, Kind, Root};
use crate::identity::known::{Action, Class, Descend, Known, Place, Table};
use crate::identity::scrub::Policy;

/// Everything at a known place that the new machine neither was given nor wrote itself.
pub(super) fn look(
    root: &Root,
    table: &Table,
    homes: &[PathBuf],
    old: &Old,
    now: &Now,
    policy: &Policy,
) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let concerns = |known: &Known| match known.action {
        Action::Remove | Action::Empty | Action::Clear => policy.scrubs(known.class),
        Action::Assign => is_assigned(known.class, now),
        Action::Adjust | Action::Keep => false,
    };
    table.places(root, homes, &concerns, &mut |place| {
        if found.len() >= MOST || !concerns(place.known) {
            return Ok(Descend::Yes);
        }
        let verdict = one(root, &place, old, now)?;
        let descend = if place.kind == Kind::Dir && verdict.is_some() { Descend::No } else { Descend::Yes };
        found.extend(verdict);
        Ok(descend)
    })?;
    Ok(found)
}

/// Whether a place that personalising writes is worth a word: what was written is known, and a seed that is there may be
/// the machine's own from its last boot.
fn is_assigned(class: Class, now: &Now) -> bool {
    !now.written.is_empty() && !matches!(class, Class::Seeds)
}

fn one(root: &Root, place: &Place<'_>, old: &Old, now: &Now) -> Result<Option<Finding>> {
    let known = place.known;
    let written = now.written.contains_key(&place.path);
    let finding = |verdict, found: String, sort| {
        Ok(Some(Finding {
            class: known.class,
            verdict,
            path: shown(&place.path),
            place: None,
            found,
            sort,
            count: 1,
            mend: known.mend.clone(),
        }))
    };
    if place.kind == Kind::File && !written && is_old_secret(root, &place.path, old) {
        let found = format!("the old machine's own file: {}", known.why);
        return finding(Verdict::Left, found, Some(Sort::Secret));
    }
    let newer = || -> Result<bool> { Ok(root.modified(&place.path)?.is_some_and(|time| now.is_newer(time))) };
    let there = match (known.action, place.kind) {
        (_, Kind::File) if written => return written_as_asked(root, &place.path, now, finding),
        (Action::Assign, Kind::File) => has_content(root, &place.path)?,
        (Action::Empty, Kind::File) => has_content(root, &place.path)?,
        (Action::Clear, Kind::Dir) => !is_empty(root, &place.path, now)?,
        // Links are what the system's own packages put there.
        (Action::Assign | Action::Empty | Action::Clear, _) => false,
        _ => !now.written.keys().any(|path| path.starts_with(&place.path)),
    };
    if !there || newer()? {
        return Ok(None);
    }
    let how = match known.action {
        Action::Assign => "not written when it was personalised",
        Action::Empty => "not empty",
        Action::Clear => "not empty",
        _ => "still there",
    };
    finding(Verdict::Suspect, format!("{how}: {}", known.why), None)
}

/// A file that was written when it was personalised, and is not what was written.
fn written_as_asked(
    root: &Root,
    path: &Path,
    now: &Now,
    finding: impl Fn(Verdict, String, Option<Sort>) -> Result<Option<Finding>>,
) -> Result<Option<Finding>> {
    let content = root.read(path).ok().flatten().unwrap_or_default();
    let as_asked = now.written.get(path).is_some_and(|digest| *blake3::hash(&content).as_bytes() == *digest);
    if as_asked || root.modified(path)?.is_some_and(|time| now.is_newer(time)) {
        return Ok(None);
    }
    finding(Verdict::Suspect, "not what the new identity has there".to_owned(), None)
}

fn is_old_secret(root: &Root, path: &Path, old: &Old) -> bool {
    if old.secrets.is_empty() {
        return false;
    }
    // One that is too large or gone is none.
    let Ok(Some(content)) = root.read(path) else { return false };
    !content.is_empty() && old.secrets.contains(blake3::hash(&content).to_hex().as_str())
}

fn has_content(root: &Root, path: &Path) -> Result<bool> {
    Ok(matches!(root.entry(path)?, Some(Entry::File { len: 1.., .. })))
}

/// Whether nothing is in the directory but what was written there, or what the new machine put there.
fn is_empty(root: &Root, dir: &Path, now: &Now) -> Result<bool> {
    let mut names = Vec::new();
    root.names(dir, &mut |name, _| {
        names.push(dir.join(name));
        names.len() < 64
    })?;
    for path in names {
        let meant = now.written.keys().any(|written| written.starts_with(&path));
        if !meant && !root.modified(&path)?.is_some_and(|time| now.is_newer(time)) {
            return Ok(false);
        }
    }
    Ok(true)
}

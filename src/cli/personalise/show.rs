//! What `gridgate personalise` prints.

use anyhow::Result;
use serde::Serialize;

use crate::cli::{Context, print, print_json};
use crate::host::difference::{Difference, Kind};
use crate::host::filesystem::uuid_text;
use crate::identity::disk::Id;
use crate::identity::network::Note;
use crate::identity::personalise::Personalisation;

#[derive(Serialize)]
struct Diff<'a> {
    version: u32,
    machine: &'a str,
    differs: bool,
    differences: &'a [Difference],
}

#[derive(Serialize)]
struct Done<'a> {
    version: u32,
    machine: &'a str,
    #[serde(flatten)]
    done: &'a Personalisation,
}

/// The filesystem's own line among the files'.
pub(super) fn uuid(old: [u8; 16], new: [u8; 16]) -> Difference {
    let text = format!("filesystem UUID {} becomes {}\n", uuid_text(&old), uuid_text(&new));
    Difference { path: "/".into(), kind: Kind::Changed, secret: false, text }
}

/// An id of the disk around it.
pub(super) fn disk_id(id: &Id) -> Difference {
    let text = format!("{} {} becomes {}\n", id.what, id.old, id.new);
    Difference { path: id.place.clone().into(), kind: Kind::Changed, secret: false, text }
}

/// A diff for people, which plain `patch` would ignore the talk of.
pub(super) fn differences(context: &Context, machine: &str, found: &[Difference]) -> Result<()> {
    if context.json {
        return print_json(&Diff { version: 1, machine, differs: !found.is_empty(), differences: found });
    }
    let mut text = String::new();
    for one in found {
        let kind = match one.kind {
            Kind::Added => "added",
            Kind::Changed => "changed",
            Kind::Removed => "removed",
        };
        text.push_str(&format!("{} {kind}\n{}", one.path.display(), one.text));
    }
    if found.is_empty() {
        context.progress.say(&format!("{machine}: nothing would change"));
    }
    print(&text)
}

/// The paths that were changed, one a line.
pub(super) fn done(context: &Context, machine: &str, done: &Personalisation) -> Result<()> {
    if context.json {
        return print_json(&Done { version: 1, machine, done });
    }
    notes(context, machine, &done.notes);
    for path in &done.changed {
        context.progress.detail(&format!("{machine}: wrote {}", path.display()));
    }
    let said = match done.changed.len() {
        0 => "nothing had to be changed".to_owned(),
        1 => "1 file changed".to_owned(),
        many => format!("{many} files changed"),
    };
    context.progress.say(&format!("{machine}: {said}"));
    Ok(())
}

/// What was noticed on the way.
pub(super) fn notes(context: &Context, machine: &str, notes: &[Note]) {
    for note in notes {
        context.progress.say(&format!("{machine}: {note}"));
    }
}

//! Things that are being made where nobody would look for them: beside a target that somebody named. They are noted in the
//! state directory, so that `gc` finds what a killed command left there.
//!
//! A note is a symbolic link with its maker's name, which leads to the thing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use super::Host;
use super::temporary::Maker;

/// Where the notes are.
const NOTES: &str = "begun";

/// Tells this process's notes apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A note, which is taken away when this is dropped: the thing has its name then, or is gone.
#[derive(Debug)]
pub struct Begun(Option<PathBuf>);

/// Notes that a thing is going to be made under that name, one of [`Maker::this`]. Whoever may not write to the state directory
/// does without.
pub fn note(host: &dyn Host, state: &Path, thing: &Path) -> Begun {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let note = state.join(NOTES).join(Maker::this().name(&number.to_string()));
    let noted = std::path::absolute(thing).is_ok_and(|thing| host.link(&note, &thing).is_ok());
    Begun(noted.then_some(note))
}

/// The same of what is going to be made beside a target, under the target's name.
pub fn beside(host: &dyn Host, state: &Path, target: &Path) -> Begun {
    let real = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    note(host, state, &real.with_file_name(Maker::this().name(&name)))
}

/// What killed commands left, each thing before its note. A thing is believed to be one only if it has the name of the maker who
/// noted it, and its note is kept as long as the directory that it was in is not there: a disk may come back.
pub fn leftovers(host: &dyn Host, state: &Path) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for note in host.abandoned(&state.join(NOTES))? {
        let Some(thing) = host.read_link(&note)? else { continue };
        let maker = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            Maker::of(name).map(|(_, maker)| maker)
        };
        if thing.parent().is_some_and(|dir| !dir.exists()) {
            continue;
        }
        if maker(&thing) == maker(&note) && host.stat(&thing)?.is_some() {
            left.push(thing);
        }
        left.push(note);
    }
    Ok(left)
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(note) = &self.0 {
            // A note of nothing is taken away by gc.
            let _ = std::fs::remove_file(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_killed_command_left_beside_its_target_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (state, there) = (dir.path().join("state"), dir.path().join("there"));
        fs::create_dir(&there).unwrap();
        let alive = there.join(Maker::this().name("disk"));
        fs::write(&alive, "").unwrap();
        let begun = beside(&Live, &state, &there.join("disk"));
        let note = |name: &str, to: &Path| symlink(to, state.join("begun").join(name)).unwrap();
        let left = there.join(".disk.making-4194304-7");
        fs::write(&left, "").unwrap();
        note(".1.making-4194304-7", &left);
        // Not by the maker of that note, and so not his to be removed.
        let other = there.join(".disk.making-4194304-8");
        for mine in [&other, &there.join("precious")] {
            fs::write(mine, "").unwrap();
        }
        note(".2.making-4194304-7", &other);
        note(".3.making-4194304-7", &there.join("precious"));
        note(".4.making-4194304-7", Path::new("/nonexistent/.disk.making-4194304-7"));
        let found = leftovers(&Live, &state).unwrap();
        let notes = |name: &str| state.join("begun").join(name);
        let mut expected = vec![
            left,
            notes(".1.making-4194304-7"),
            notes(".2.making-4194304-7"),
            notes(".3.making-4194304-7"),
        ];
        let mut sorted = found.clone();
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
        drop(begun);
        assert_eq!(
            fs::read_dir(state.join("begun")).unwrap().count(),
            4,
            "the note of what is alive is gone"
        );
    }

    #[test]
    fn who_may_not_write_to_the_state_directory_does_without_a_note() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state"), "a file").unwrap();
        let begun = note(&Live, &dir.path().join("state"), &dir.path().join(".x.making-1-1"));
        assert!(begun.0.is_none());
    }
}

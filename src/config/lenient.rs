//! A site of which some guests' files are wrong: the others are as good as ever.
//!
//! For whoever must go on with nobody there, at a boot. People are told everything at once by [`super::load`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::explain::Explain;
use super::guest::{Draft, GuestFile};
use super::origin::Origin;
use super::problem::{Problem, Problems};
use super::site::Site;
use super::{LoadOptions, directory};
use crate::names::GuestName;

/// A site as far as it can be used.
#[derive(Debug)]
pub struct Lenient {
    /// The site with its good guests; with no guest at all if what they share is wrong.
    pub site: Site,
    /// Guests that cannot be used, in order of name.
    pub bad: Vec<BadGuest>,
    /// The file of each guest, good or bad, that has one.
    pub files: BTreeMap<GuestName, PathBuf>,
}

/// A guest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadGuest {
    /// Its name, or that of its file if it is not known how many guests that was to become.
    pub name: GuestName,
    /// What is wrong with it, or with what all guests share.
    pub problems: Problems,
    /// Whether it would come up with the host.
    pub autostart: bool,
}

impl Lenient {
    /// What keeps this guest from being used, if something does.
    pub fn refused(&self, guest: &GuestName) -> Option<&Problems> {
        self.bad.iter().find(|bad| bad.name == *guest).map(|bad| &bad.problems)
    }
}

/// A guest that the site's files speak of.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: GuestName,
    pub(super) start: Origin,
    autostart: bool,
    /// Whether what is wrong with templates concerns it.
    extends: bool,
}

impl Candidate {
    /// A guest whose file could not be read; none if even its name is wrong.
    pub(super) fn of_file(file: &GuestFile) -> Option<Self> {
        let (name, start) = (file.stem.parse().ok()?, file.start.clone());
        let extends = file.table.as_ref().is_some_and(|table| table.get("extends").is_some());
        Some(Self { name, start, autostart: true, extends })
    }

    pub(super) fn of_draft(draft: &Draft<'_>) -> Self {
        let said = draft.layers.pick("autostart").and_then(|entry| entry.value.flag());
        Self {
            name: draft.name.clone(),
            start: draft.start().clone(),
            autostart: said.unwrap_or(true),
            extends: draft.layers.pick("extends").is_some(),
        }
    }
}

/// Loads what can be used. A problem in a guest's file concerns that guest, one in a template all that extend one, and any
/// other all guests.
pub fn load(dir: &Path, options: &LoadOptions) -> Lenient {
    let (mut explain, mut problems) = (Explain::default(), Problems::default());
    let read = super::read(dir, options, &mut explain, &mut problems);
    let problems = problems.sorted();
    let Some((mut site, candidates)) = read else {
        return all_bad(dir, present(dir), &problems);
    };
    let templates = dir.join("templates");
    let file = |problem: &Problem| PathBuf::from(&*problem.origin.place);
    let of_guest = |problem: &Problem, guest: &Candidate| match problem.origin == guest.start {
        true => true,
        // A guest whose file is missing starts where it is listed.
        false => problem.origin.place == guest.start.place && guest.start.is_start_of_file(),
    };
    let shared = |problem: &&Problem| {
        !candidates.iter().any(|guest| of_guest(problem, guest)) && !file(problem).starts_with(&templates)
    };
    if problems.iter().any(|problem| shared(&problem)) {
        return all_bad(dir, candidates, &problems);
    }
    let mut bad = Vec::new();
    for guest in &candidates {
        let concerns = |problem: &&Problem| {
            of_guest(problem, guest) || (guest.extends && file(problem).starts_with(&templates))
        };
        let mut own: Problems = problems.iter().filter(concerns).cloned().collect();
        if own.is_empty() && site.guest(&guest.name).is_some() {
            continue;
        }
        if own.is_empty() {
            own.add(&guest.start, format!("guest '{}' is not complete", guest.name), "");
        }
        bad.push(BadGuest { name: guest.name.clone(), problems: own, autostart: guest.autostart });
    }
    site.guests.retain(|guest| bad.iter().all(|bad| bad.name != guest.name));
    bad.sort_by(|a, b| a.name.cmp(&b.name));
    Lenient { site, bad, files: files(&candidates) }
}

fn all_bad(dir: &Path, guests: Vec<Candidate>, problems: &Problems) -> Lenient {
    let files = files(&guests);
    let bad = |guest: Candidate| BadGuest {
        name: guest.name,
        problems: problems.clone(),
        autostart: guest.autostart,
    };
    let mut bad: Vec<BadGuest> = guests.into_iter().map(bad).collect();
    bad.sort_by(|a, b| a.name.cmp(&b.name));
    Lenient { site: Site::of_nothing(dir.to_owned()), bad, files }
}

/// Where the site file itself says nothing, each guest's file is a guest.
fn present(dir: &Path) -> Vec<Candidate> {
    let guests = dir.join("guests");
    let stems = directory::stems(&guests, &mut Problems::default());
    let file = |stem: String| {
        let forms = ["toml", "conf"].map(|form| guests.join(format!("{stem}.{form}")));
        let path = forms.into_iter().find(|path| path.exists())?;
        Candidate::of_file(&GuestFile { stem, start: Origin::start(&directory::name(&path)), table: None })
    };
    stems.into_iter().filter_map(file).collect()
}

fn files(guests: &[Candidate]) -> BTreeMap<GuestName, PathBuf> {
    let own = guests.iter().filter(|guest| guest.start.is_start_of_file());
    own.map(|guest| (guest.name.clone(), PathBuf::from(&*guest.start.place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    const SITE: &str =
        "name = \"s\"\ndomain = \"example.org\"\n[networks.lan]\nmode = \"nat\"\nsubnet = \"10.77.0.0/24\"\n";

    fn names(loaded: &Lenient) -> (Vec<&str>, Vec<&str>) {
        let good = loaded.site.guests.iter().map(|guest| guest.name.as_str()).collect();
        (good, loaded.bad.iter().map(|bad| bad.name.as_str()).collect())
    }

    #[test]
    fn a_bad_guest_leaves_the_others_as_they_are() {
        let dir = site(&[
            ("site.toml", SITE),
            ("guests/ce.toml", "memory = \"1G\"\n"),
            ("guests/se.toml", "memory = \n"),
            ("guests/ui.toml", "memori = \"1G\"\nautostart = false\n"),
            ("guests/wn.toml", "after = [\"se\", \"ui\"]\n"),
        ]);
        let loaded = load(dir.path(), &LoadOptions::default());
        assert_eq!(names(&loaded), (vec!["ce", "wn"], vec!["se", "ui"]));
        assert_eq!(loaded.bad.iter().map(|bad| bad.autostart).collect::<Vec<_>>(), [true, false]);
        let why = loaded.refused(&"ui".parse().unwrap()).unwrap().to_string();
        assert!(why.contains("guests/ui.toml:1:1: unknown key 'memori'") && why.contains("hint: "), "{why}");
        assert_eq!(loaded.files.len(), 4);
    }

    #[test]
    fn a_bad_site_file_is_every_guests_problem() {
        let guests = [("guests/ce.toml", ""), ("guests/wn.toml", "count = 2\n")];
        for (text, bad) in
            [("name = \n", vec!["ce", "wn"]), (&format!("colour = 1\n{SITE}"), vec!["ce", "wn1", "wn2"])]
        {
            let dir = site(&[&[("site.toml", text)], &guests[..]].concat());
            let loaded = load(dir.path(), &LoadOptions::default());
            assert_eq!(names(&loaded), (vec![], bad), "{text}");
            assert!(loaded.bad[0].problems.to_string().contains("site.toml:1:"), "{text}");
        }
    }

    #[test]
    fn a_listed_guest_without_a_file_is_bad_alone() {
        let text = format!("guests = [\"ce\", \"ghost\"]\n{SITE}");
        let dir = site(&[("site.toml", &text), ("guests/ce.toml", "")]);
        assert_eq!(names(&load(dir.path(), &LoadOptions::default())), (vec!["ce"], vec!["ghost"]));
    }

    #[test]
    fn a_bad_template_is_a_problem_of_those_that_extend_one() {
        let dir = site(&[
            ("site.toml", SITE),
            ("templates/big.toml", "memori = \"4G\"\n"),
            ("guests/ce.toml", "extends = \"big\"\n"),
            ("guests/se.toml", ""),
        ]);
        assert_eq!(names(&load(dir.path(), &LoadOptions::default())), (vec!["se"], vec!["ce"]));
    }

    #[test]
    fn nothing_there_is_a_site_of_nothing() {
        let loaded = load(Path::new("/nowhere/at/all"), &LoadOptions::default());
        assert_eq!(names(&loaded), (vec![], vec![]));
    }
}

//! Where profiles, features and templates are found: the site's own, those installed with the program, those built in.
//! The first that has a name wins.

use std::path::{Path, PathBuf};

use super::source::{Said, Source};
use crate::config::origin::Text;
use crate::config::problem::Problems;
use crate::config::{directory, suggest};

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What a guest's `profile` names.
    Profile,
    /// What profiles, and guests, have in lists.
    Feature,
}

/// Where a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the site's directory.
    Site,
    /// Beside the program, or in it.
    Shipped,
}

/// A profile or feature that can be named.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub kind: Kind,
    /// Where it is from.
    pub place: Place,
    /// What it is, for people.
    pub description: String,
}

macro_rules! built_in {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../profiles/", $path)))),*]
    };
}

/// What the program was built with, for when nothing is installed beside it: paths below `profiles/`.
const BUILT_IN: &[(&str, &str)] = built_in![
    "base.toml",
    "ce.toml",
    "install.toml",
    "se.toml",
    "ui.toml",
    "wn.toml",
    "features/arc-ce.toml",
    "features/arc-client.toml",
    "features/first-boot.toml",
    "features/grid-security.toml",
    "features/install-server.toml",
    "features/munge.toml",
    "features/pool-accounts.toml",
    "features/session-client.toml",
    "features/session-server.toml",
    "features/slurm.toml",
    "features/slurm-controller.toml",
    "features/slurm-node.toml",
    "features/xrootd-se.toml",
    "templates/arc.conf",
    "templates/arc-client.conf",
    "templates/dnsmasq.conf",
    "templates/first-boot",
    "templates/first-boot.service",
    "templates/grid-mapfile.allowed",
    "templates/grid-profile.sh",
    "templates/gridftp.conf",
    "templates/motd",
    "templates/session-exports",
    "templates/session.mount",
    "templates/site-info.sh",
    "templates/slurm.conf",
    "templates/xrootd-authfile",
    "templates/xrootd-se.cfg",
];

/// The directories to look in.
#[derive(Debug)]
pub(super) struct Library {
    dirs: Vec<(PathBuf, Place)>,
}

impl Library {
    /// Of the site in that directory.
    pub(super) fn of(site: &Path) -> Self {
        let program = std::env::current_exe().unwrap_or_default();
        let mut dirs = vec![(site.join("profiles"), Place::Site)];
        if let Some(prefix) = program.parent().and_then(Path::parent) {
            dirs.push((prefix.join("share/gridgate/profiles"), Place::Shipped));
        }
        Self { dirs }
    }

    /// The text of a file below `profiles/`; `None` if nobody has it, or if it cannot be used, which is told.
    fn text(&self, path: &str, problems: &mut Problems) -> Option<(Text, Place)> {
        for (dir, place) in &self.dirs {
            let file = dir.join(path);
            if file.symlink_metadata().is_ok() {
                return Some((directory::read(&file, problems)?, *place));
            }
        }
        let (_, content) = BUILT_IN.iter().find(|(name, _)| *name == path)?;
        Some((Text::new(format!("profiles/{path}").into(), (*content).to_owned()), Place::Shipped))
    }

    /// The profile or feature of that name.
    pub(super) fn source(&self, kind: Kind, name: &Said, problems: &mut Problems) -> Option<Source> {
        if super::text::name(&name.text).is_err() {
            return None;
        }
        let before = problems.iter().count();
        if let Some((text, _)) = self.text(&file(kind, &name.text), problems) {
            return Source::read(&text, problems);
        }
        if problems.iter().count() == before {
            let (noun, dir) = match kind {
                Kind::Profile => ("profile", "profiles"),
                Kind::Feature => ("feature", "profiles/features"),
            };
            let known = self.names(kind);
            let hint = suggest::hint(&name.text, known.iter().map(String::as_str), &format!("{noun}s"));
            let hint = format!("{hint} (a new one is a file '{dir}/{}.toml' in the site)", name.text);
            problems.add(&name.origin, format!("there is no {noun} '{}'", name.text), hint);
        }
        None
    }

    /// All names of a kind, sorted.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        let inside = if kind == Kind::Feature { "features" } else { "" };
        let mut names: Vec<String> =
            self.dirs.iter().flat_map(|(dir, _)| directory::definitions(&dir.join(inside))).collect();
        let built_in = BUILT_IN.iter().filter_map(|(path, _)| {
            let rest = if kind == Kind::Feature { path.strip_prefix("features/")? } else { path };
            rest.strip_suffix(".toml").filter(|name| !name.contains('/'))
        });
        names.extend(built_in.map(str::to_owned));
        names.retain(|name| super::text::name(name).is_ok());
        names.sort();
        names.dedup();
        names
    }

    /// Everything that can be named, profiles first. What is wrong with one is told.
    pub(super) fn list(&self, problems: &mut Problems) -> Vec<Listed> {
        let mut listed = Vec::new();
        for kind in [Kind::Profile, Kind::Feature] {
            for name in self.names(kind) {
                let Some((text, place)) = self.text(&file(kind, &name), problems) else { continue };
                let description = Source::read(&text, problems).unwrap_or_default().description;
                listed.push(Listed { name, kind, place, description });
            }
        }
        listed
    }

    /// All templates, by name, each with its text.
    pub(super) fn templates(&self, problems: &mut Problems) -> Vec<(String, Text)> {
        let built_in = BUILT_IN.iter().filter_map(|(path, _)| path.strip_prefix("templates/"));
        let mut names: Vec<String> = built_in.map(str::to_owned).collect();
        for (dir, _) in &self.dirs {
            let entries = std::fs::read_dir(dir.join("templates")).into_iter().flatten().flatten();
            names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        names.retain(|name| super::text::template(name).is_ok());
        names.sort();
        names.dedup();
        let read = |name: String| {
            let (text, _) = self.text(&format!("templates/{name}"), problems)?;
            Some((name, text))
        };
        names.into_iter().filter_map(read).collect()
    }
}

fn file(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Profile => format!("{name}.toml"),
        Kind::Feature => format!("features/{name}.toml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_source_tree_is_built_in() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut found = Vec::new();
        for inside in ["", "features/", "templates/"] {
            for entry in std::fs::read_dir(top.join(inside)).unwrap().flatten() {
                if entry.path().is_file() {
                    found.push(format!("{inside}{}", entry.file_name().into_string().unwrap()));
                }
            }
        }
        let mut built_in: Vec<String> = BUILT_IN.iter().map(|(path, _)| (*path).to_owned()).collect();
        found.sort();
        built_in.sort();
        assert_eq!(built_in, found);
    }

    #[test]
    fn every_shipped_profile_and_feature_is_good_and_says_what_it_is() {
        let mut problems = Problems::default();
        let listed = Library::of(Path::new("/nowhere")).list(&mut problems);
        assert_eq!(problems.to_string(), "");
        assert!(listed.iter().all(|one| !one.description.is_empty()), "{listed:?}");
        for name in crate::config::shipped::PROFILES {
            assert!(listed.iter().any(|one| one.kind == Kind::Profile && one.name == *name), "{name}");
        }
    }
}

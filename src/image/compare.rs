//! What two images have installed that is not the same.

use std::collections::BTreeMap;

use serde::Serialize;

use super::manifest::{Manifest, Package};

/// A package that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version in the first image; `None` if it is not there.
    pub from: Option<String>,
    /// Its version in the second image; `None` if it is not there.
    pub to: Option<String>,
}

/// As a line of a list: `- gone`, `+ new`, `~ another version`.
impl std::fmt::Display for PackageChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if from == to => write!(f, "~ {name} {from}, built anew"),
            (Some(from), Some(to)) => write!(f, "~ {name} {from} -> {to}"),
            (Some(from), None) => write!(f, "- {name} {from}"),
            (None, to) => write!(f, "+ {name} {}", to.as_deref().unwrap_or_default()),
        }
    }
}

/// Packages that differ, by name. One of the same version counts if its file is known to be another.
pub fn packages(from: &Manifest, to: &Manifest) -> Vec<PackageChange> {
    let mut both: BTreeMap<&str, (Option<&Package>, Option<&Package>)> = BTreeMap::new();
    for package in &from.packages {
        both.entry(&package.name).or_default().0 = Some(package);
    }
    for package in &to.packages {
        both.entry(&package.name).or_default().1 = Some(package);
    }
    let same = |pair: &(Option<&Package>, Option<&Package>)| match pair {
        (Some(from), Some(to)) => {
            let other_file =
                from.sha256.as_ref().zip(to.sha256.as_ref()).is_some_and(|(from, to)| from != to);
            from.version == to.version && !other_file
        }
        _ => false,
    };
    let version = |package: Option<&Package>| package.map(|package| package.version.clone());
    let differing = both.into_iter().filter(|(_, pair)| !same(pair));
    differing
        .map(|(name, (from, to))| PackageChange {
            name: name.to_owned(),
            from: version(from),
            to: version(to),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::tests::sample;
    use crate::image::packages::with_digests;

    #[test]
    fn packages_that_came_went_and_changed_are_told_by_name() {
        let of = |installed: &str, told: &str| {
            let packages = with_digests(installed, told);
            Manifest { packages, ..sample("x", b"disk") }
        };
        let digest = |of: &str| format!("Package: same\nVersion: 1\nSHA256: {of}\n");
        let from = of("gone\t1\nnewer\t1\nsame\t1\n", &digest("a"));
        let told = |to: &Manifest| packages(&from, to).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(&from), Vec::<String>::new());
        let to = of("came\t3\nnewer\t2\nsame\t1\n", &digest("b"));
        assert_eq!(told(&to), ["+ came 3", "- gone 1", "~ newer 1 -> 2", "~ same 1, built anew"]);
    }
}

//! Packages that a profile wants and the guest does not have.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::host::tree::Tree;

const DPKG: &str = "/var/lib/dpkg/status";

/// Those that are not installed, in the order of the profile; `None` where the guest keeps no record that can be read.
pub(super) fn missing(tree: &dyn Tree, wanted: &[String]) -> Result<Option<Vec<String>>> {
    // A record that is a fifo or has no end is none.
    let Ok(Some(status)) = tree.read(Path::new(DPKG)) else { return Ok(None) };
    let installed = installed(&String::from_utf8_lossy(&status));
    Ok(Some(wanted.iter().filter(|name| !installed.contains(name.as_str())).cloned().collect()))
}

/// Names in dpkg's status file of what is installed (dpkg(1)), and what that provides.
fn installed(status: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for paragraph in status.split("\n\n") {
        let value = |key: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
        };
        if value("Status").is_some_and(|status| status.ends_with(" installed")) {
            names.extend(value("Package").map(str::to_owned));
            let provided = value("Provides").unwrap_or_default().split(',');
            names.extend(provided.filter_map(|one| one.split_whitespace().next()).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts_and_what_it_provides() {
        let status = "Package: munge\nStatus: install ok installed\nProvides: a (= 1), b\n\n\
                      Package: gone\nStatus: deinstall ok config-files\n\nPackage: half\nStatus: install ok unpacked\n";
        assert_eq!(installed(status).into_iter().collect::<Vec<_>>(), ["a", "b", "munge"]);
    }
}

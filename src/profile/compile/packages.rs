//! Packages that a profile wants and the guest does not have.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::host::root::{Entry, Root};
use crate::host::sandbox::Sandbox;
use crate::host::tree::Tree;

const DPKG: &str = "/var/lib/dpkg/status";
/// Where rpm has its database, since its version 4.17 and before.
const RPM: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];

/// What is known of the guest's packages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Those that are not installed, in the order of the profile.
    These(Vec<String>),
    /// Nobody can tell, and why.
    Unknown(String),
}

/// Looks for the packages that are wanted, in dpkg's record or by the guest's own rpm.
pub(super) fn missing(tree: &dyn Tree, wanted: &[String]) -> Result<Missing> {
    if wanted.is_empty() {
        return Ok(Missing::These(Vec::new()));
    }
    // A record that is a fifo or has no end is none.
    if let Ok(Some(status)) = tree.read(Path::new(DPKG)) {
        let installed = installed(&String::from_utf8_lossy(&status));
        let missing = wanted.iter().filter(|name| !installed.contains(name.as_str()));
        return Ok(Missing::These(missing.cloned().collect()));
    }
    let mut has_rpm = false;
    for dir in RPM {
        has_rpm |= tree.entry(Path::new(dir))? == Some(Entry::Dir) && !tree.list(Path::new(dir))?.is_empty();
    }
    Ok(match (has_rpm, tree.as_root()) {
        (false, _) => Missing::Unknown("neither dpkg nor rpm keeps a record in it".to_owned()),
        (true, None) => Missing::Unknown("its rpm can only be asked where it is mounted, as root".to_owned()),
        (true, Some(root)) => match ask_rpm(root, wanted) {
            Ok(missing) => Missing::These(missing),
            Err(error) => {
                let why = format!("{error:#}");
                Missing::Unknown(why.lines().next().unwrap_or_default().to_owned())
            }
        },
    })
}

/// The database has had three forms, and the guest's own program reads its own.
fn ask_rpm(root: &Root, wanted: &[String]) -> Result<Vec<String>> {
    let query = ["rpm", "--query", "--queryformat", "", "--whatprovides", "--"];
    let sandbox = Sandbox {
        command: query.into_iter().map(str::to_owned).chain(wanted.iter().cloned()).collect(),
        env: [("LC_ALL", "C"), ("HOME", "/root")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        writable: Some(Vec::new()),
        network: false,
        memory_bytes: 512 << 20,
        processes: 16,
        time: Duration::from_secs(120),
    };
    let ended = sandbox.run(root)?;
    let missing = unprovided(&ended.output, wanted);
    // It ends with the number of those that it did not find.
    if missing.is_empty() != (ended.status == 0) {
        bail!(
            "its rpm ended with status {}: {}",
            ended.status,
            ended.output.lines().next().unwrap_or_default()
        );
    }
    Ok(missing)
}

/// Those of which rpm says that nothing provides them.
fn unprovided(said: &str, wanted: &[String]) -> Vec<String> {
    let unprovided: BTreeSet<&str> =
        said.lines().filter_map(|line| line.strip_prefix("no package provides ")).map(str::trim).collect();
    wanted.iter().filter(|name| unprovided.contains(name.as_str())).cloned().collect()
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
    fn what_rpm_does_not_find_is_missing() {
        let wanted = ["munge", "slurm", "arc"].map(str::to_owned);
        let said = "no package provides slurm\nwarning: odd\nno package provides munge\n";
        assert_eq!(unprovided(said, &wanted), ["munge", "slurm"]);
    }

    #[test]
    fn only_what_is_installed_counts_and_what_it_provides() {
        let status = "Package: munge\nStatus: install ok installed\nProvides: a (= 1), b\n\n\
                      Package: gone\nStatus: deinstall ok config-files\n\nPackage: half\nStatus: install ok unpacked\n";
        assert_eq!(installed(status).into_iter().collect::<Vec<_>>(), ["a", "b", "munge"]);
    }
}

//! Which packages are installed, as the system's own records have it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::FileType;

use super::manifest::Package;
use crate::host::Host;
use crate::host::bounds::Bounds;
use crate::host::programs::Program;
use crate::host::root::{Kind, Root};

/// Records are smaller: a Debian with everything has a tenth.
const LARGEST_STATUS: u64 = 128 << 20;
const LARGEST_DATABASE: u64 = 1 << 30;
/// Where rpm's is; the older place is a link to the newer one where there are both.
const DATABASES: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
/// What rpm(8) may take to read one.
const BOUNDS: Bounds = Bounds { memory_bytes: 2 << 30, cpu_seconds: 60 };

/// The packages, by name; a note if there are records that cannot be read here. `dir` is for a copy of them.
pub fn read(host: &dyn Host, root: &Root, dir: &Path) -> Result<(Vec<Package>, Option<String>)> {
    if let Some(status) = open(root, Path::new("var/lib/dpkg/status"), LARGEST_STATUS)? {
        let mut bytes = Vec::new();
        status.take(LARGEST_STATUS).read_to_end(&mut bytes).context("reading dpkg's records")?;
        return Ok((of_dpkg(&String::from_utf8_lossy(&bytes)), None));
    }
    for database in DATABASES {
        let mut names = Vec::new();
        root.names(&Path::new("/").join(database), &mut |name, kind| {
            let text = name.to_string_lossy();
            let is_one =
                text.starts_with("rpmdb.sqlite") || text.starts_with("Packages") || text == "Index.db";
            if kind == Kind::File && is_one {
                names.push(name.to_owned());
            }
            names.len() < 16
        })?;
        if !names.is_empty() {
            return of_rpm(host, root, Path::new(database), &names, &dir.join("rpm"));
        }
    }
    Ok((Vec::new(), None))
}

/// A regular file that no link leads to.
fn open(root: &Root, path: &Path, most: u64) -> Result<Option<File>> {
    Ok(match root.seen(path)? {
        Some((seen, file)) if seen.kind() == FileType::RegularFile && seen.len <= most => file,
        _ => None,
    })
}

/// A copy of the records is read by a program that is held to bounds: their format is a database's.
fn of_rpm(
    host: &dyn Host,
    root: &Root,
    database: &Path,
    names: &[std::ffi::OsString],
    dir: &Path,
) -> Result<(Vec<Package>, Option<String>)> {
    let note = |why: &str| Ok((Vec::new(), Some(format!("its packages are not listed: {why}"))));
    if host.find_program("rpm").is_none() {
        return note("there is no 'rpm' here to read its records with; hint: apt install rpm");
    }
    host.make_dir(dir, 0o700)?;
    for name in names {
        if let Some(from) = open(root, &database.join(name), LARGEST_DATABASE)? {
            let copy = || -> std::io::Result<u64> {
                std::io::copy(&mut from.take(LARGEST_DATABASE), &mut File::create(dir.join(name))?)
            };
            copy().context("copying rpm's records")?;
        }
    }
    let format = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}.%{ARCH}\\n";
    let query =
        Program::new("rpm").arg("--dbpath").arg(dir).args(["-qa", "--nosignature", "--queryformat", format]);
    let ran = host.run_any(&query.bounded(BOUNDS))?;
    match ran.status {
        0 => Ok((listed(&ran.text()), None)),
        _ => note("rpm cannot read its records"),
    }
}

/// Lines of `NAME\tVERSION`.
fn listed(text: &str) -> Vec<Package> {
    let split = text.lines().filter_map(|line| line.split_once('\t'));
    let mut packages: Vec<Package> = split.map(|(name, version)| package(name, version)).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    packages
}

fn package(name: &str, version: &str) -> Package {
    Package { name: name.to_owned(), version: version.to_owned(), sha256: None }
}

/// Paragraphs of `Field: value` (dpkg-query(1)); only what is installed counts.
fn of_dpkg(status: &str) -> Vec<Package> {
    let of = |paragraph: &str| {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let is_installed = field("Status")?.split_whitespace().nth(2) == Some("installed");
        is_installed.then_some(package(field("Package")?, field("Version")?))
    };
    let mut packages: Vec<Package> = status.split("\n\n").filter_map(of).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    packages
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_installed_is_listed() {
        let status = "Package: zlib\nStatus: install ok installed\nVersion: 1:1.2\n\nPackage: gone\nStatus: deinstall ok \
                      config-files\nVersion: 1\n\nPackage: bash\nStatus: hold ok installed\nDescription: a\n Version: 0\nVersion: 5\n";
        let found = of_dpkg(status);
        let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.version.as_str())).collect();
        assert_eq!(found, [("bash", "5"), ("zlib", "1:1.2")]);
        assert_eq!(listed("b\t2\na\t1\n").first().map(|one| one.name.as_str()), Some("a"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(Package: |Status: |install ok installed|Version: |\n|[a-z]){0,40}") {
            of_dpkg(&text);
            listed(&text);
        }
    }
}

//! A tree of RPM packages: what dnf(8) is told, and what it leaves behind.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::definition::Rpm;
use super::tree::contained;
use crate::host::Host;
use crate::host::programs::Program;

/// Where dnf keeps in the tree what it fetched and wrote down of itself; all of it tells of the build alone.
const LEFT: [&str; 4] = ["var/cache/dnf", "var/log", "var/lib/dnf", "var/tmp"];
const FETCHED: &str = "/var/cache/dnf";

/// The command that installs the packages into `tree`; what it reads is written into `dir`.
pub(super) fn bootstrap(host: &dyn Host, rpm: &Rpm, dir: &Path, tree: &Path) -> Result<Program> {
    let (conf, home) = (dir.join("dnf.conf"), dir.join("home"));
    host.make_dir(&home, 0o700)?;
    // Debian's rpm keeps records in the home directory of whoever runs it.
    host.write(&home.join(".rpmmacros"), format!("%_dbpath {}\n", rpm.records.as_str()).as_bytes(), 0o644)?;
    host.write(&conf, configuration(rpm).as_bytes(), 0o644)?;
    let mut dnf = contained("dnf", &[])
        .env("HOME", &home.to_string_lossy())
        .args(["-y", "--noplugins", "--config"])
        .arg(&conf)
        .arg(format!("--installroot={}", tree.display()))
        .arg(format!("--releasever={}", rpm.release.as_str()))
        .arg(format!("--setopt=cachedir={FETCHED}"));
    if !rpm.repositories.is_empty() {
        // Of the host, as all that is said on the command line.
        dnf = dnf.arg(format!("--setopt=reposdir={}", home.display()));
    }
    Ok(dnf.arg("install").args(rpm.packages.iter().map(|package| package.as_str())))
}

/// dnf.conf(5).
fn configuration(rpm: &Rpm) -> String {
    let excluded: Vec<&str> = rpm.exclude.iter().map(|package| package.as_str()).collect();
    let mut text =
        "[main]\ngpgcheck=1\ninstall_weak_deps=0\ntsflags=nodocs\nbest=1\nclean_requirements_on_remove=1\n"
            .to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "excludepkgs={}", excluded.join(","));
    for (name, repository) in &rpm.repositories {
        let name = name.as_str();
        let _ = writeln!(text, "\n[{name}]\nname={name}\nbaseurl={}", repository.url);
        let _ = match &repository.key {
            Some(key) => writeln!(text, "gpgcheck=1\ngpgkey=file://{}", key.display()),
            None => writeln!(text, "gpgcheck=0"),
        };
    }
    text
}

/// Takes away what tells of the build.
pub(super) fn clean(host: &dyn Host, tree: &Path) -> Result<()> {
    let sweep = "cd \"$1\"; shift; for dir; do test ! -d \"$dir\" -o -h \"$dir\" || find \"$dir\" -xdev -mindepth 1 -type f -delete; done";
    let program = contained("sh", &[]).args(["-euc", sweep, "sh"]).arg(tree).args(LEFT);
    host.run(&program).map(drop).context("taking away what dnf left")
}

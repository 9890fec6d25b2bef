//! The tree that becomes the image: unpacked by mmdebstrap, then made as the definition says, from inside.
//!
//! Every program here runs in mount and process namespaces of its own that end with it: maintainer scripts mount things
//! and start daemons, and none of that may outlive the build, also when this process is killed.

use std::path::Path;

use anyhow::{Context, Result};

use super::definition::Definition;
use crate::host::Host;
use crate::host::programs::Program;

/// A program that dies with this process (`--pdeathsig`), takes all its children with it (`--kill-child` on the first
/// process of a new process namespace), and whose mounts nobody else sees.
pub(super) fn contained(name: &str, more: &[&str]) -> Program {
    Program::new("setpriv")
        .killed_on_interrupt()
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(more)
        .arg("--")
        .arg(name)
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// The command that unpacks and configures the packages into `tree`.
pub(super) fn bootstrap(definition: &Definition, sources: &Path, tree: &Path) -> Program {
    let debian = &definition.debian;
    let packages: Vec<&str> = debian.packages.iter().map(|p| p.as_str()).collect();
    let mut program = contained("mmdebstrap", &[])
        .args(["--mode=root", "--format=directory"])
        .arg(format!("--variant={}", debian.variant.as_str()))
        .arg("--aptopt=APT::Install-Recommends \"false\"");
    if !packages.is_empty() {
        program = program.arg(format!("--include={}", packages.join(",")));
    }
    let patterns = |option: &'static str, of: &[super::definition::GuestPath]| -> Vec<String> {
        of.iter().map(|path| format!("--dpkgopt={option}={}", path.as_str())).collect()
    };
    program
        .args(patterns("path-exclude", &debian.exclude))
        .args(patterns("path-include", &debian.include))
        .arg(debian.release.as_str())
        .arg(tree)
        .arg(sources)
}

/// What the definition says besides packages, done in the tree in this order: units, files, links, commands, removals.
pub(super) fn customise(host: &dyn Host, definition: &Definition, tree: &Path) -> Result<()> {
    let inside = |program: Program| host.run(&program).map(drop);
    let units = &definition.units;
    if let Some(default) = &units.default {
        inside(in_tree(tree, "systemctl").args(["--quiet", "set-default", default.as_str()]))?;
    }
    for (verb, names) in [("disable", &units.disable), ("enable", &units.enable), ("mask", &units.mask)] {
        if !names.is_empty() {
            let names = names.iter().map(|name| name.as_str());
            inside(in_tree(tree, "systemctl").args(["--quiet", verb]).args(names))?;
        }
    }
    for file in &definition.files {
        let write = "mkdir -p \"${1%/*}\" && rm -f \"$1\" && cat >\"$1\" && chmod \"$2\" \"$1\"";
        let program = in_tree(tree, "sh").args(["-euc", write, "sh", file.path.as_str(), file.mode.as_str()]);
        inside(program.input(file.content.as_bytes()))
            .with_context(|| format!("writing '{}'", file.path.as_str()))?;
    }
    for (path, target) in &definition.links {
        let link = "mkdir -p \"${1%/*}\" && ln -sfn \"$2\" \"$1\"";
        inside(in_tree(tree, "sh").args(["-euc", link, "sh", path.as_str(), target]))?;
    }
    for command in &definition.customise {
        if let Some((name, args)) = command.split_first() {
            inside(in_tree(tree, name).args(args))?;
        }
    }
    // Only names are expanded: an empty field separator keeps a pattern with spaces whole.
    let remove = "IFS=; for pattern in \"$@\"; do rm -rf -- $pattern; done";
    inside(
        in_tree(tree, "sh").args(["-euc", remove, "sh"]).args(definition.remove.iter().map(|p| p.as_str())),
    )
}

/// Installed packages as dpkg knows them.
pub(super) fn packages(host: &dyn Host, tree: &Path) -> Result<String> {
    let query = in_tree(tree, "dpkg-query").args(["--show", "--showformat", "${Package}\\t${Version}\\n"]);
    Ok(String::from_utf8_lossy(&host.run(&query)?.stdout).into_owned())
}

/// A program of the tree, run with the tree as its root.
fn in_tree(tree: &Path, name: &str) -> Program {
    contained(name, &["--root", &tree.to_string_lossy()])
}

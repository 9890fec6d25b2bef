//! The tree that becomes the image: unpacked by mmdebstrap, then made as the definition says, from inside.
//!
//! Every program here runs in mount and process namespaces of its own that end with it: maintainer scripts mount things
//! and start daemons, and none of that may outlive the build, also when this process is killed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::definition::{Debian, Definition};
use super::times;
use crate::host::Host;
use crate::host::programs::Program;
use crate::host::root::Root;
use crate::host::sandbox::Sandbox;

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
        .env(times::VARIABLE, &times::for_programs())
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// What apt knows of the installed packages, while it still knows: its lists are gone at the end of the bootstrap. `$1` is the tree.
const TELL: &str = r#"chroot "$1" dpkg-query --show --showformat='${Package}:${Architecture}=${Version}\n' | APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" xargs apt-cache show >"$GRIDGATE_PACKAGES""#;

/// The command that unpacks and configures the packages into `tree`, and writes what apt tells of them into `told`.
pub(super) fn bootstrap(debian: &Debian, sources: &Path, tree: &Path, told: &Path) -> Program {
    let packages: Vec<&str> = debian.packages.iter().map(|p| p.as_str()).collect();
    let mut program = contained("mmdebstrap", &[])
        .args(["--mode=root", "--format=directory"])
        .env("GRIDGATE_PACKAGES", &told.to_string_lossy())
        .arg(format!("--customize-hook={TELL}"))
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
    customise_commands(definition, tree)?;
    // Only names are expanded: an empty field separator keeps a pattern with spaces whole.
    let remove = "IFS=; for pattern in \"$@\"; do rm -rf -- $pattern; done";
    inside(
        in_tree(tree, "sh").args(["-euc", remove, "sh"]).args(definition.remove.iter().map(|p| p.as_str())),
    )
}

/// What a command of a definition may take.
const MEMORY: u64 = 2 << 30;
const PROCESSES: u32 = 1024;
const TIME: Duration = Duration::from_secs(3600);
/// As much of what it said as an error shows.
const SHOWN_LINES: usize = 20;

/// Commands, and then the script.
fn customise_commands(definition: &Definition, tree: &Path) -> Result<()> {
    let script = definition.script.as_ref().map(|script| {
        ["/bin/sh", "-euc", script, "script"].iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
    });
    for command in definition.customise.iter().chain(&script) {
        sandboxed(definition, tree, command)?;
    }
    Ok(())
}

/// A command of the definition's, in the sandbox that a guest's own compiler runs in: it reaches the tree and nothing else.
fn sandboxed(definition: &Definition, tree: &Path, command: &[String]) -> Result<()> {
    let env = [
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("HOME", "/root".to_owned()),
        ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
        (times::VARIABLE, times::for_programs()),
    ];
    let sandbox = Sandbox {
        command: command.to_vec(),
        env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        writable: None,
        network: definition.network,
        memory_bytes: MEMORY,
        processes: PROCESSES,
        time: TIME,
    };
    let name = command.first().map(String::as_str).unwrap_or_default();
    let ended = sandbox.run(&Root::open(tree)?)?;
    if ended.status != 0 {
        let lines: Vec<&str> = ended.output.lines().collect();
        let said = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("'{name}' ended with status {} inside the tree; it said:\n{said}", ended.status);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::programs::Programs;

    /// A tree with a shell and nothing else.
    fn tree() -> Option<tempfile::TempDir> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it takes root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let make = "cd \"$1\" && mkdir bin dev proc tmp root etc && cp -L /bin/sh bin/sh && \
                    ldd /bin/sh | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} .";
        Live.run(&Program::new("sh").args(["-ec", make, "sh"]).arg(dir.path())).unwrap();
        Some(dir)
    }

    fn definition(more: &str) -> Definition {
        let text = format!(
            "name = 'x'\n{more}\n[debian]\nrelease = 'bookworm'\npackages = []\n[filesystem]\nsize = '64M'\n"
        );
        Definition::parse("x.toml", &text).unwrap()
    }

    #[test]
    fn a_script_runs_in_the_tree_after_the_commands_and_reaches_nothing_else() {
        let Some(dir) = tree() else { return };
        let outside = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "read -r line </made; test \"$line\" = by-a-command; test ! -e '{}'; echo \"$SOURCE_DATE_EPOCH\" >/epoch",
            outside.path().display()
        );
        let more =
            format!("customise = [['sh', '-c', 'echo by-a-command >/made']]\nscript = '''\n{script}\n'''");
        customise_commands(&definition(&more), dir.path()).unwrap();
        let epoch = std::fs::read_to_string(dir.path().join("epoch")).unwrap();
        assert_eq!(epoch.trim(), times::for_programs());
    }

    #[test]
    fn a_script_that_fails_tells_what_it_said() {
        let Some(dir) = tree() else { return };
        let definition = definition("script = 'echo trouble >&2; false'");
        let error = customise_commands(&definition, dir.path()).unwrap_err().to_string();
        assert_eq!(error, "'/bin/sh' ended with status 1 inside the tree; it said:\ntrouble");
    }
}

//! What comes up when a guest boots, found out without booting it: systemd's links and presets, the links of System V
//! runlevels, OpenRC's runlevels, upstart's jobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::root::Entry;
use crate::host::tree::Tree;

/// Where units are, the strongest first (systemd.unit(5)); `/lib` is most often a link to `/usr/lib`.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const RUNLEVELS: [&str; 14] = [
    "/etc/rcS.d",
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc5.d",
    "/etc/rc.d/rc2.d",
    "/etc/rc.d/rc3.d",
    "/etc/rc.d/rc5.d",
    "/etc/init.d/boot.d",
    "/etc/init.d/rc3.d",
    "/etc/init.d/rc5.d",
    "/etc/rc.d/boot.d",
    "/etc/runlevels/sysinit",
    "/etc/runlevels/boot",
    "/etc/runlevels/default",
];

/// What a guest starts at boot.
pub struct Boot<'t> {
    tree: &'t dyn Tree,
    /// Whether systemd starts the rest.
    pub systemd: bool,
    wanted: BTreeSet<String>,
    scripts: BTreeSet<String>,
}

impl<'t> Boot<'t> {
    /// Looks around.
    pub fn look(tree: &'t dyn Tree) -> Result<Self> {
        let mut boot = Self { tree, systemd: false, wanted: BTreeSet::new(), scripts: BTreeSet::new() };
        for program in ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"] {
            boot.systemd = boot.systemd || boot.is_there(program)?;
        }
        for dir in UNITS.map(Path::new) {
            for name in tree.list(dir)? {
                if name.extension().is_some_and(|ending| ending == "wants" || ending == "requires") {
                    boot.wanted.extend(names(tree, &dir.join(name))?);
                }
            }
        }
        for dir in RUNLEVELS.map(Path::new) {
            let is_openrc = dir.starts_with("/etc/runlevels");
            for name in names(tree, dir)? {
                // S10network: started as the tenth.
                let started =
                    name.strip_prefix('S').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
                boot.scripts.extend(if is_openrc { Some(name) } else { started.map(str::to_owned) });
            }
        }
        Ok(boot)
    }

    /// Whether something is at the path.
    pub fn is_there(&self, path: &str) -> Result<bool> {
        Ok(self.tree.entry(Path::new(path))?.is_some())
    }

    /// The file of a unit that is installed.
    pub fn unit(&self, unit: &str) -> Result<Option<PathBuf>> {
        for dir in UNITS {
            let path = Path::new(dir).join(unit);
            match self.tree.entry(&path)? {
                Some(Entry::Link(to)) if to == Path::new("/dev/null") => {}
                Some(Entry::Dir) | None => {}
                Some(_) => return Ok(Some(path)),
            }
        }
        Ok(None)
    }

    /// Whether the service comes up, by its unit, or by the script or job of that name.
    pub fn comes_up(&self, name: &str) -> Result<bool> {
        let unit = format!("{name}.service");
        let masked = match self.tree.entry(&Path::new(UNITS[0]).join(&unit))? {
            Some(Entry::Link(to)) => to == Path::new("/dev/null"),
            Some(Entry::File { len, .. }) => len == 0,
            _ => false,
        };
        if self.systemd && masked {
            return Ok(false);
        }
        let unit_is_there = self.unit(&unit)?.is_some();
        // systemd makes a unit of a script only if there is none of that name (systemd-sysv-generator(8)).
        let by_script = self.scripts.contains(name) && !(self.systemd && unit_is_there);
        let by_job = !self.systemd && self.is_there(&format!("/etc/init/{name}.conf"))?;
        Ok(by_script || by_job || (unit_is_there && self.wanted.contains(&unit)))
    }

    /// What the presets would have said of the unit at a first boot; `None` if they do not name it (systemd.preset(5)). A
    /// personalised guest has a machine-id, so that its next boot is no first one and nobody asks them any more.
    pub fn preset(&self, unit: &str) -> Result<Option<bool>> {
        let mut files: Vec<(PathBuf, &str)> = Vec::new();
        for dir in
            ["/etc/systemd/system-preset", "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset"]
        {
            for name in self.tree.list(Path::new(dir))? {
                if !files.iter().any(|(known, _)| *known == name) {
                    files.push((name, dir));
                }
            }
        }
        files.sort();
        for (name, dir) in files {
            // One that cannot be read says nothing.
            let Ok(Some(content)) = self.tree.read(&Path::new(dir).join(name)) else { continue };
            if let Some(said) = said(&String::from_utf8_lossy(&content), unit) {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }
}

fn said(preset: &str, unit: &str) -> Option<bool> {
    preset.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let enable = match words.next()? {
            "enable" => true,
            "disable" => false,
            _ => return None,
        };
        let pattern = words.next()?;
        let matches =
            pattern == unit || pattern.strip_suffix('*').is_some_and(|start| unit.starts_with(start));
        // 'disable *' at the end is a distribution's way to say that it enables nothing that it does not name.
        matches.then_some(enable)
    })
}

fn names(tree: &dyn Tree, dir: &Path) -> Result<Vec<String>> {
    Ok(tree.list(dir)?.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use std::os::unix::fs::symlink;

    fn tree(files: &[&str], links: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        files.iter().for_each(|path| std::fs::write(at(path), "x").unwrap());
        links.iter().for_each(|(path, to)| symlink(to, at(path)).unwrap());
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_unit_that_some_target_wants_comes_up_unless_it_is_masked() {
        let wants =
            ("etc/systemd/system/multi-user.target.wants/x.service", "/usr/lib/systemd/system/x.service");
        let files = ["usr/lib/systemd/systemd", "usr/lib/systemd/system/x.service"];
        let (_dir, root) = tree(&files, &[wants]);
        assert!(Boot::look(&root).unwrap().comes_up("x").unwrap());
        let (_dir, root) = tree(&files, &[wants, ("etc/systemd/system/x.service", "/dev/null")]);
        assert!(!Boot::look(&root).unwrap().comes_up("x").unwrap());
    }

    #[test]
    fn a_link_in_a_runlevel_starts_a_script_with_and_without_systemd() {
        let link = ("etc/rc.d/rc3.d/S10network", "../init.d/network");
        let (_dir, root) = tree(&[], &[link, ("etc/rc.d/rc3.d/K90off", "../init.d/off")]);
        let boot = Boot::look(&root).unwrap();
        assert!(boot.comes_up("network").unwrap() && !boot.comes_up("off").unwrap());
        let (_dir, root) = tree(&["usr/lib/systemd/systemd"], &[link]);
        assert!(Boot::look(&root).unwrap().comes_up("network").unwrap());
        let (_dir, root) = tree(&["usr/lib/systemd/systemd", "lib/systemd/system/network.service"], &[link]);
        assert!(!Boot::look(&root).unwrap().comes_up("network").unwrap());
    }

    #[test]
    fn the_first_line_of_the_presets_that_names_a_unit_decides() {
        assert_eq!(said("# x\nenable sshd.*\ndisable *\n", "sshd.service"), Some(true));
        assert_eq!(said("enable sshd.service\ndisable *\n", "x.service"), Some(false));
        assert_eq!(said("enable\nnonsense x.service", "x.service"), None);
    }
}

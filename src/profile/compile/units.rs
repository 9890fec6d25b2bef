//! Units that are started at boot, by the links that `systemctl --root` would make.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::step::Step;
use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::profile::document::{Document, Services};

const ADMIN: &str = "/etc/systemd/system";
/// Where packages put units: on a system with one /usr, both are the same.
const VENDOR: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// Steps for the document's services, and what could not be done yet. What only an earlier document enabled or masked is
/// taken back.
pub(super) fn steps(
    tree: &dyn Tree,
    document: &Document,
    earlier: Option<&Document>,
) -> Result<(Vec<Step>, Vec<String>)> {
    let mut units = Units { tree, document, steps: Vec::new(), notes: Vec::new() };
    let services = &document.services;
    if let Some(earlier) = earlier {
        units.take_back(&earlier.services, services)?;
    }
    for unit in &services.disable {
        units.disable(unit)?;
    }
    for unit in &services.mask {
        units.mask(unit)?;
    }
    for unit in &services.enable {
        units.enable(unit)?;
    }
    Ok((units.steps, units.notes))
}

struct Units<'a> {
    tree: &'a dyn Tree,
    document: &'a Document,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Units<'_> {
    fn enable(&mut self, unit: &str) -> Result<()> {
        let own = Path::new(ADMIN).join(unit);
        if self.is_masked(&own)? {
            self.steps.push(Step::Remove { path: own });
        }
        let Some((path, text)) = self.find(unit)? else {
            self.notes.push(format!("unit '{unit}' is not in the guest yet, and is not started at boot"));
            return Ok(());
        };
        let links = links(&text, unit);
        if links.is_empty() {
            self.notes.push(format!("unit '{unit}' does not say what starts it ([Install])"));
        }
        for link in links {
            let link = Path::new(ADMIN).join(link);
            let target = path.clone();
            match self.tree.entry(&link)? {
                // By another path to the same unit, as the package made it.
                Some(Entry::Link(now)) if now.file_name() == target.file_name() => {}
                None | Some(Entry::Link(_)) => self.steps.push(Step::Link { path: link, target }),
                Some(_) => {
                    let link = link.display();
                    self.notes.push(format!("unit '{unit}' is not linked: '{link}' is the guest's own"));
                }
            }
        }
        Ok(())
    }

    fn disable(&mut self, unit: &str) -> Result<()> {
        for dir in self.tree.list(Path::new(ADMIN))? {
            let wants = dir.extension().is_some_and(|kind| kind == "wants" || kind == "requires");
            let path = Path::new(ADMIN).join(&dir).join(unit);
            if wants && matches!(self.tree.entry(&path)?, Some(Entry::Link(_))) {
                self.steps.push(Step::Remove { path });
            }
        }
        Ok(())
    }

    /// As systemctl, it leaves a unit alone that the administrator wrote: there is no other copy of it.
    fn mask(&mut self, unit: &str) -> Result<()> {
        let path = Path::new(ADMIN).join(unit);
        match self.tree.entry(&path)? {
            None | Some(Entry::Link(_)) => {
                self.steps.push(Step::Link { path, target: "/dev/null".into() });
            }
            Some(_) => self.notes.push(format!("unit '{unit}' is the guest's own and cannot be masked")),
        }
        Ok(())
    }

    fn take_back(&mut self, earlier: &Services, now: &Services) -> Result<()> {
        let said =
            |unit: &String| [&now.enable, &now.disable, &now.mask].iter().any(|all| all.contains(unit));
        for unit in earlier.enable.iter().filter(|unit| !said(unit)) {
            self.disable(unit)?;
        }
        for unit in earlier.mask.iter().filter(|unit| !now.mask.contains(unit)) {
            let path = Path::new(ADMIN).join(unit);
            if self.is_masked(&path)? {
                self.steps.push(Step::Remove { path });
            }
        }
        Ok(())
    }

    fn is_masked(&self, path: &Path) -> Result<bool> {
        Ok(matches!(self.tree.entry(path)?, Some(Entry::Link(target)) if target == Path::new("/dev/null")))
    }

    /// The unit's file and text: one that the profile itself writes, or one of the guest's. `xrootd@se.service` is made from
    /// `xrootd@.service`.
    fn find(&self, unit: &str) -> Result<Option<(PathBuf, String)>> {
        let template = unit.split_once('@').and_then(|(name, rest)| {
            let (_, kind) = rest.rsplit_once('.')?;
            Some(format!("{name}@.{kind}"))
        });
        for name in [Some(unit), template.as_deref()].into_iter().flatten() {
            for dir in [ADMIN, VENDOR[0], VENDOR[1]] {
                let path = Path::new(dir).join(name);
                let written = self.document.files.iter().find(|file| Path::new(&file.path) == path);
                if let Some(file) = written {
                    return Ok(Some((path, file.content.clone())));
                }
                if let Some(Entry::File { .. }) = self.tree.entry(&path)?
                    && let Some(text) = self.tree.read(&path)?
                {
                    return Ok(Some((path, String::from_utf8_lossy(&text).into_owned())));
                }
            }
        }
        Ok(None)
    }
}

/// Names of the links below `/etc/systemd/system` that a unit's `[Install]` section asks for (systemd.unit(5)). A name that
/// would lead elsewhere is none.
fn links(text: &str, unit: &str) -> Vec<PathBuf> {
    let good = |name: &&str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let mut links = Vec::new();
    let mut install = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            install = line == "[Install]";
        }
        let Some((key, values)) = line.split_once('=').filter(|_| install) else { continue };
        let dir = match key.trim() {
            "WantedBy" => ".wants",
            "RequiredBy" => ".requires",
            "Alias" => "",
            _ => continue,
        };
        for name in values.split_whitespace().filter(good) {
            links.push(match dir {
                "" => PathBuf::from(name),
                dir => Path::new(&format!("{name}{dir}")).join(unit),
            });
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_are_those_of_the_install_section() {
        let text = "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=multi-user.target a.target\nAlias=x.service\n\
                    RequiredBy = ../../etc/passwd b.target\n";
        let found: Vec<String> =
            links(text, "u.service").iter().map(|link| link.display().to_string()).collect();
        assert_eq!(
            found,
            [
                "multi-user.target.wants/u.service",
                "a.target.wants/u.service",
                "x.service",
                "b.target.requires/u.service"
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_a_unit_says_a_link_stays_below(text in "(\\[Install\\]\n)?((WantedBy|Alias)=[./a-z ]{0,12}\n){0,4}") {
            for link in links(&text, "u.service") {
                prop_assert!(link.is_relative() && link.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}

//! gridgate itself on a machine: the same files that `make install` puts in place for PREFIX=/usr/local, except what is in the
//! program anyway (shipped images and profiles) and what only people read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host::root::{FileMode, Root};

/// systemd's units, by the names of their files.
const UNITS: [(&str, &str); 7] = [
    ("gridgate-console.service", include_str!("../../units/gridgate-console.service")),
    ("gridgate-guest@.service", include_str!("../../units/gridgate-guest@.service")),
    ("gridgate-network.service", include_str!("../../units/gridgate-network.service")),
    ("gridgate-ready@.service", include_str!("../../units/gridgate-ready@.service")),
    ("gridgate-units.service", include_str!("../../units/gridgate-units.service")),
    ("gridgate.target", include_str!("../../units/gridgate.target")),
    // Not a unit, but read by all of them.
    (DEFAULTS, include_str!("../../units/defaults")),
];
const DEFAULTS: &str = "/etc/default/gridgate";
const UNIT_DIR: &str = "/usr/local/lib/systemd/system";
const PROGRAM: &str = "/usr/local/bin/gridgate";
const GENERATOR: &str = "/usr/local/lib/systemd/system-generators/gridgate-generator";
const FETCH_UML: &str = include_str!("../../scripts/fetch-uml");

/// Where gridgate is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// It is this very program.
    Own,
    /// A directory with it as it lies on a machine: another version, which came with a bundle.
    From(PathBuf),
}

/// A part of gridgate as it lies on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where: absolute.
    pub path: PathBuf,
    /// What.
    pub what: What,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file with the content of that one, and its permissions.
    File(PathBuf, u32),
    /// A file that this program brings with it.
    Text(&'static str, u32),
    /// A symbolic link.
    Link(PathBuf),
}

/// No gridgate has more parts, or deeper directories.
const ITEMS_AT_MOST: usize = 1000;
const DEPTH_AT_MOST: usize = 12;
/// Nor a larger one.
const BYTES_AT_MOST: u64 = 1 << 30;

impl Program {
    /// All of its parts, by path.
    pub fn items(&self) -> Result<Vec<Item>> {
        let mut items = match self {
            Self::Own => own()?,
            Self::From(dir) => {
                let mut items = Vec::new();
                found(dir, Path::new("/"), DEPTH_AT_MOST, &mut items)
                    .with_context(|| format!("looking at the program in '{}'", dir.display()))?;
                items
            }
        };
        items.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(items)
    }

    /// How long they are altogether.
    pub fn bytes(&self) -> Result<u64> {
        self.items()?.iter().try_fold(0, |sum, item| match &item.what {
            What::File(from, _) => {
                let meta = from.metadata().with_context(|| format!("looking at '{}'", from.display()))?;
                Ok(sum + meta.len())
            }
            What::Text(text, _) => Ok(sum + text.len() as u64),
            What::Link(_) => Ok(sum),
        })
    }

    /// Puts it in place, and has the site come up with the machine.
    pub fn install(&self, root: &Root) -> Result<()> {
        for item in self.items()? {
            let what = || format!("putting '{}' in place", item.path.display());
            match &item.what {
                What::File(from, mode) => {
                    let content = std::fs::read(from).with_context(what)?;
                    root.write(&item.path, &content, FileMode::Exactly(*mode)).with_context(what)?;
                }
                What::Text(text, mode) => {
                    root.write(&item.path, text.as_bytes(), FileMode::Exactly(*mode)).with_context(what)?;
                }
                What::Link(target) => {
                    root.link(&item.path, target).with_context(what)?;
                }
            }
        }
        Ok(())
    }
}

fn own() -> Result<Vec<Item>> {
    let exe = std::env::current_exe().context("looking for this program")?;
    let item = |path: &str, what: What| Item { path: PathBuf::from(path), what };
    let mut items = vec![
        item(PROGRAM, What::File(exe, 0o755)),
        item(GENERATOR, What::Link("../../../bin/gridgate".into())),
        item("/usr/local/lib/gridgate/fetch-uml", What::Text(FETCH_UML, 0o755)),
        item(
            "/etc/systemd/system/multi-user.target.wants/gridgate.target",
            What::Link(Path::new(UNIT_DIR).join("gridgate.target")),
        ),
    ];
    // A path that is absolute stands for itself.
    let unit = |(name, text): &(&str, &'static str)| Item {
        path: Path::new(UNIT_DIR).join(name),
        what: What::Text(text, 0o644),
    };
    items.extend(UNITS.iter().map(unit));
    Ok(items)
}

fn found(dir: &Path, at: &Path, depth: usize, items: &mut Vec<Item>) -> Result<()> {
    if depth == 0 {
        bail!("it is nested too deeply");
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (from, path, meta) = (entry.path(), at.join(entry.file_name()), entry.metadata()?);
        if items.len() >= ITEMS_AT_MOST || meta.len() > BYTES_AT_MOST {
            bail!("it has too many parts, or '{}' is too large", path.display());
        }
        // Links are taken as they are, and not followed.
        if meta.is_dir() {
            found(&from, &path, depth - 1, items)?;
        } else if meta.is_symlink() {
            items.push(Item { path, what: What::Link(std::fs::read_link(&from)?) });
        } else if meta.is_file() {
            items.push(Item { path, what: What::File(from, meta.permissions().mode() & 0o755) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_that_there_is_is_put_in_place() {
        let mut there: Vec<String> = std::fs::read_dir("units")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "defaults")
            .collect();
        there.sort();
        let known: Vec<&str> = UNITS.iter().map(|(name, _)| *name).filter(|name| *name != DEFAULTS).collect();
        assert_eq!(there, known);
    }
}

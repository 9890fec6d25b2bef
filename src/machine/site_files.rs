//! A site's files: which they are, and into a machine's `/etc/gridgate`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host::root::{FileMode, Root};

/// Where they are on the machine.
pub const SITE: &str = "/etc/gridgate";
/// A site is a handful of small text files; more is a directory that was given by mistake.
const FILES_AT_MOST: usize = 10_000;
const BYTES_AT_MOST: u64 = 16 << 20;
const DEPTH_AT_MOST: usize = 8;

/// A file or directory of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFile {
    /// Its path in the site's directory.
    pub inside: PathBuf,
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions; `None` for a directory.
    pub mode: Option<u32>,
}

/// All regular files and directories, each after the directory that it is in; links are followed, since a site may be made of
/// links into a working copy, and what is hidden (`.git`) is left out.
pub fn list(site: &Path) -> Result<Vec<SiteFile>> {
    let mut found = Vec::new();
    directory(site, Path::new(""), DEPTH_AT_MOST, &mut found)
        .with_context(|| format!("looking at the site in '{}'", site.display()))?;
    found.sort_by(|a, b| a.inside.cmp(&b.inside));
    Ok(found)
}

/// Copies them.
pub fn copy(root: &Root, site: &Path) -> Result<()> {
    let what = || format!("copying the site in '{}'", site.display());
    root.make_dir(Path::new(SITE), 0o755)?;
    for file in list(site)? {
        let to = Path::new(SITE).join(&file.inside);
        let Some(mode) = file.mode else {
            root.make_dir(&to, 0o755).with_context(what)?;
            continue;
        };
        let content = fs::read(&file.path).with_context(|| format!("reading '{}'", file.path.display()))?;
        root.write(&to, &content, FileMode::Exactly(mode)).with_context(what)?;
    }
    Ok(())
}

fn directory(from: &Path, inside: &Path, depth: usize, found: &mut Vec<SiteFile>) -> Result<()> {
    if depth == 0 {
        bail!("'{}' is nested too deeply for a site", from.display());
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (path, inside) = (from.join(&name), inside.join(&name));
        let meta = fs::metadata(&path).with_context(|| format!("looking at '{}'", path.display()))?;
        if found.len() >= FILES_AT_MOST {
            bail!("it has more than {FILES_AT_MOST} files");
        }
        if meta.is_dir() {
            found.push(SiteFile { inside: inside.clone(), path: path.clone(), mode: None });
            directory(&path, &inside, depth - 1, found)?;
        } else if meta.is_file() {
            if meta.len() > BYTES_AT_MOST {
                bail!("'{}' is too large for a file of a site", path.display());
            }
            found.push(SiteFile { inside, path, mode: Some(meta.permissions().mode() & 0o755) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories_are_copied_and_what_is_hidden_is_not() {
        let top = tempfile::tempdir().unwrap();
        let (site, tree) = (top.path().join("site"), top.path().join("tree"));
        for dir in [site.join("guests"), site.join(".git"), tree.clone()] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(site.join("site.toml"), "name = 'x'").unwrap();
        fs::write(site.join(".git/config"), "").unwrap();
        std::os::unix::fs::symlink("../site.toml", site.join("guests/linked.toml")).unwrap();
        copy(&Root::open(&tree).unwrap(), &site).unwrap();
        let read = |path: &str| fs::read_to_string(tree.join("etc/gridgate").join(path)).ok();
        assert_eq!(read("guests/linked.toml").as_deref(), Some("name = 'x'"));
        assert_eq!(read(".git/config"), None);
    }

    #[test]
    fn a_directory_that_holds_itself_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let (site, tree) = (top.path().join("site"), top.path().join("tree"));
        fs::create_dir_all(&site).unwrap();
        fs::create_dir_all(&tree).unwrap();
        std::os::unix::fs::symlink(".", site.join("loop")).unwrap();
        let error = format!("{:#}", copy(&Root::open(&tree).unwrap(), &site).unwrap_err());
        assert!(error.contains("nested too deeply"), "{error}");
    }
}

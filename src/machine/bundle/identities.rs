//! What was drawn for a site, in a bundle and out of it: machine ids, host keys, the site's own key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::Host;
use crate::paths::Paths;
use crate::progress::Progress;

/// Files of what is kept for a site that make machines themselves, by their paths in it.
pub fn list(host: &dyn Host, kept: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in ["identities", "keys"] {
        let names = host.list(&kept.join(dir))?;
        found.extend(names.into_iter().map(|name| Path::new(dir).join(name)));
    }
    for guest in host.list(&kept.join("guests"))? {
        found.push(Path::new("guests").join(guest).join("identity.json"));
    }
    let is_file = |path: &PathBuf| -> Result<bool> {
        let is_hidden = path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        Ok(!is_hidden && host.stat(&kept.join(path))?.is_some_and(|stat| !stat.is_dir))
    };
    found.into_iter().filter_map(|path| is_file(&path).map(|is| is.then_some(path)).transpose()).collect()
}

/// Takes over what a bundle brought, unless there is something of the site already: machines that were made of that are known
/// by it.
pub fn adopt(host: &dyn Host, from: &Path, kept: &Paths, progress: &Progress) -> Result<()> {
    if host.stat(&kept.identities())?.is_some() {
        progress.say(&format!(
            "note: identities of the bundle are passed over: '{}' has the site's own",
            kept.state.display()
        ));
        return Ok(());
    }
    let what = || format!("taking over the identities in '{}'", from.display());
    // The host's comes last: without it nothing counts as taken over.
    let mut files = list(host, from)?;
    files.sort_by_key(|path| (path.starts_with("identities"), path.clone()));
    for path in files {
        let to = kept.state.join(&path);
        if let Some(dir) = to.parent() {
            host.make_dir(dir, 0o700)?;
        }
        let content = host.read(&from.join(&path))?.with_context(what)?;
        let mode = if path.extension().is_some_and(|extension| extension == "pub") { 0o644 } else { 0o600 };
        host.write(&to, &content, mode)?;
    }
    Ok(())
}

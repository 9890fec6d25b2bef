//! What was restored takes its place, by renames that any later command finishes if this one is killed.
//!
//! `STATE/.restore/new` becomes `ready` by one rename, and from then on it is what holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::host::temporary::{self, Maker};
use crate::paths::Paths;
use crate::signature;

/// What is in the directory of a restore.
pub(super) const NEW: &str = "new";
const READY: &str = "ready";
const OLD: &str = "old";
/// In `new` and `ready`: the files of the state directory, and those of the site.
pub(super) const STATE: &str = "state";
/// See [`STATE`].
pub(super) const SITE: &str = "site";
const PLAN: &str = "plan.json";

/// What is to be done with what is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Where the site's files go.
    pub(super) site_dir: PathBuf,
    /// Paths in the state directory that are put in place, of a file or a directory as a whole.
    pub(super) publish: Vec<PathBuf>,
    /// Paths in the state directory that go.
    pub(super) retire: Vec<PathBuf>,
}

/// Where a restore works.
pub fn work_dir(paths: &Paths) -> PathBuf {
    paths.state.join(".restore")
}

/// What a restore fetched that was cut off, and that nobody has gone on with for so long; for `gc`.
pub fn leftover(host: &dyn Host, paths: &Paths, untouched: Duration) -> Option<PathBuf> {
    let dir = work_dir(paths);
    let lock = dir.join("lock");
    let touched = fs::metadata(&lock).and_then(|meta| meta.modified()).ok()?;
    let old = touched.elapsed().is_ok_and(|since| since > untouched);
    (old && host.lock(&lock, Duration::ZERO).is_ok()).then_some(dir)
}

/// From the return on all of it holds, as soon as [`finish`] has run. The caller holds the site's lock.
pub(super) fn commit(host: &dyn Host, paths: &Paths, plan: &Plan) -> Result<()> {
    let dir = work_dir(paths);
    let bytes = serde_json::to_vec(plan).context("writing what is to be done")?;
    host.write(&dir.join(NEW).join(PLAN), &bytes, 0o600)?;
    let top = fs::File::open(&paths.state).with_context(|| format!("opening '{}'", paths.state.display()))?;
    let what = || format!("writing '{}' to stable storage", dir.display());
    rustix::fs::syncfs(&top).with_context(what)?;
    host.rename(&dir.join(NEW), &dir.join(READY))?;
    rustix::fs::syncfs(&top).with_context(what)
}

/// Finishes a restore that was killed when all of it was ready; nothing to do is fine. The caller holds the site's lock.
pub fn finish(host: &dyn Host, paths: &Paths) -> Result<bool> {
    let (ready, old) = (work_dir(paths).join(READY), work_dir(paths).join(OLD));
    let Some(bytes) = host.read(&ready.join(PLAN))? else { return Ok(false) };
    let what = || format!("putting what was restored in place of what is in '{}'", paths.state.display());
    let plan: Plan = serde_json::from_slice(&bytes).with_context(what)?;
    host.make_dir(&old, 0o700)?;
    for path in &plan.retire {
        aside(host, &paths.state.join(path), &old.join(path)).with_context(what)?;
    }
    for path in &plan.publish {
        let (from, to) = (ready.join(STATE).join(path), paths.state.join(path));
        // In place already, if this is the second try.
        if host.stat(&from)?.is_none() {
            continue;
        }
        aside(host, &to, &old.join(path)).with_context(what)?;
        if let Some(dir) = to.parent() {
            make_missing(host, dir)?;
        }
        host.rename(&from, &to).with_context(what)?;
    }
    let site = ready.join(SITE);
    if host.stat(&site)?.is_some() {
        publish_site(host, &site, &plan.site_dir).with_context(what)?;
    }
    host.remove(&work_dir(paths))?;
    Ok(true)
}

/// Moves what is there, if anything is, to where it is removed from.
fn aside(host: &dyn Host, path: &Path, old: &Path) -> Result<()> {
    if host.stat(path)?.is_none() {
        return Ok(());
    }
    host.remove(old)?;
    if let Some(dir) = old.parent() {
        make_missing(host, dir)?;
    }
    host.rename(path, old)
}

fn make_missing(host: &dyn Host, dir: &Path) -> Result<()> {
    // One that is there keeps its mode.
    match dir.is_dir() {
        true => Ok(()),
        false => host.make_dir(dir, 0o755),
    }
}

/// The site's directory is often on another filesystem. Who may sign is kept, if the backup does not say.
fn publish_site(host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
    let (dir, name) =
        (to.parent().context("it has no parent directory")?, to.file_name().unwrap_or_default());
    let name = name.to_string_lossy();
    make_missing(host, dir)?;
    temporary::sweep(dir, &name);
    let new = dir.join(Maker::this().name(&name));
    // From a try before in this very process.
    host.remove(&new)?;
    copy(host, from, &new)?;
    let signers = (to.join(signature::ALLOWED_SIGNERS), new.join(signature::ALLOWED_SIGNERS));
    if let (Some(bytes), None) = (host.read(&signers.0)?, host.stat(&signers.1)?) {
        host.write(&signers.1, &bytes, 0o644)?;
    }
    host.publish_dir(&new, to)?;
    host.remove(&new)
}

fn copy(host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let what = || format!("copying '{}' to '{}'", from.display(), to.display());
    let meta = fs::symlink_metadata(from).with_context(what)?;
    let mode = meta.permissions().mode() & 0o777;
    if !meta.is_dir() {
        return host.write(to, &host.read(from)?.with_context(what)?, mode);
    }
    host.make_dir(to, mode)?;
    host.list(from)?.iter().try_for_each(|name| copy(host, &from.join(name), &to.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::files::Files;
    use crate::host::recorder::Recorder;

    const NEW_FILES: [(&str, &str); 5] = [
        ("state/guests/ce/disk", "new ce"),
        ("state/guests/ui/disk", "new ui"),
        ("state/keys/site_ed25519", "new key"),
        ("site/site.toml", "new site"),
        ("site/guests/ui.toml", "new ui"),
    ];
    const OLD_FILES: [(&str, &str); 5] = [
        ("state/guests/ce/disk", "old ce"),
        ("state/guests/se/disk", "old se"),
        ("state/keys/site_ed25519", "old key"),
        ("site/site.toml", "old site"),
        ("site/guests/se.toml", "old se"),
    ];

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            Live.write(&dir.join(path), text.as_bytes(), 0o600).unwrap();
        }
    }

    fn holds(dir: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for tree in ["state/guests", "state/keys", "site"] {
            let files = walkdir::WalkDir::new(dir.join(tree)).sort_by_file_name().into_iter().flatten();
            for file in files.filter(|entry| entry.file_type().is_file()) {
                let path = file.path().strip_prefix(dir).unwrap().display().to_string();
                found.push((path, fs::read_to_string(file.path()).unwrap()));
            }
        }
        found.sort();
        found
    }

    fn sorted(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        all.sort();
        all
    }

    /// The error at call N stands for the end of the process there.
    #[test]
    fn whatever_call_is_the_last_one_it_is_the_old_site_or_becomes_the_new_one() {
        let (mut kept, mut became) = (0, 0);
        for fail_at in 0.. {
            let top = tempfile::tempdir().unwrap();
            let paths = Paths::new(&top.path().join("site"), &top.path().join("state"));
            write(top.path(), &OLD_FILES);
            write(&work_dir(&paths).join(NEW), &NEW_FILES);
            let publish = ["guests/ce", "guests/ui", "keys"].map(PathBuf::from).to_vec();
            let plan = Plan { site_dir: paths.site.clone(), publish, retire: vec!["guests/se".into()] };
            let recorder = Recorder::new(&Live, Some(fail_at));
            let done = commit(&recorder, &paths, &plan).and_then(|()| finish(&recorder, &paths));
            // The next command.
            let finished = finish(&Live, &paths).unwrap();
            match (done.is_ok(), finished) {
                (false, false) if holds(top.path()) == sorted(&OLD_FILES) => kept += 1,
                _ => {
                    assert_eq!(holds(top.path()), sorted(&NEW_FILES), "{:?}", recorder.calls().last());
                    became += 1;
                }
            }
            if done.is_ok() {
                break;
            }
        }
        assert!(kept > 0 && became > 10, "{kept} {became}");
    }
}

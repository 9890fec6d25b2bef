//! An image while it is made: in a directory of its own, which gets the image's name when all of it is there.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::manifest::{self, Disk, Manifest, Origin, Package, Part};
use super::store;
use crate::host::Host;
use crate::host::programs::Program;
use crate::host::temporary::Maker;
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;

/// Has an image made, one at a time on a host: `make` is given a directory to work in, and the one in it that becomes the
/// image. One that is there under the name stays, whole, until the new one takes its place; an error leaves nothing. `doing`
/// is what the error says was being done, as in `building`.
pub fn publish<T>(
    host: &dyn Host,
    paths: &Paths,
    name: &ImageName,
    doing: &str,
    progress: &Progress,
    make: impl FnOnce(&Path, &Path) -> Result<T>,
) -> Result<T> {
    host.make_dir(&paths.images(), 0o755)?;
    let _lock = host.lock(&paths.images().join(".lock"), Duration::ZERO)?;
    for path in store::leftovers(host, paths)? {
        progress.detail(&format!("removing '{}', left by a command that was killed", path.display()));
        host.remove(&path)?;
    }
    let dir = paths.images().join(Maker::this().name(name.as_str()));
    let out = dir.join("out");
    let all = || {
        host.remove(&dir)?;
        host.make_dir(&dir, 0o700)?;
        host.make_dir(&out, 0o755)?;
        let made = make(&dir, &out)?;
        host.publish_dir(&out, &paths.image(name)).map(|()| made)
    };
    let made = all().with_context(|| format!("{doing} image '{name}'"));
    let removed = host.remove(&dir);
    let made = made?;
    removed?;
    Ok(made)
}

/// What is told of an image that its files do not tell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// Of the definition that it was built from; empty if there was none.
    pub definition_digest: String,
    /// UUID of its filesystem.
    pub uuid: String,
    /// Installed packages.
    pub packages: Vec<Package>,
    /// Seconds since 1970; now, if nothing is said.
    pub built_at_epoch_seconds: Option<u64>,
    /// What built it; this program, if nothing is said.
    pub built_by: Option<String>,
    /// Versions of programs that did the work.
    pub tools: Vec<String>,
    /// What it was imported from.
    pub origin: Option<Origin>,
}

/// Writes the manifest of what lies in the directory: the filesystem, and a kernel and an initial ram disk if they are there.
/// When this returns, all of it is on stable storage: after a power cut a name stands for a whole image.
pub fn finish(
    host: &dyn Host,
    out: &Path,
    name: &ImageName,
    about: About,
    progress: &Progress,
) -> Result<Manifest> {
    let part = |file: &str| -> Result<Option<Part>> {
        let path = out.join(file);
        let Some(stat) = host.stat(&path)? else { return Ok(None) };
        let blake3 = store::blake3_of(&path, progress)?;
        Ok(Some(Part { file: file.to_owned(), size_bytes: stat.len, blake3 }))
    };
    let disk = out.join(manifest::DISK);
    let stat = host.stat(&disk)?.context("the filesystem is gone")?;
    let manifest = Manifest {
        format_version: manifest::FORMAT_VERSION,
        name: name.clone(),
        definition_digest: about.definition_digest,
        disk: Disk {
            file: manifest::DISK.to_owned(),
            size_bytes: stat.len,
            allocated_bytes: stat.allocated,
            blake3: store::blake3_of(&disk, progress)?,
            uuid: about.uuid,
        },
        kernel: part(manifest::KERNEL)?,
        initrd: part(manifest::INITRD)?,
        packages: about.packages,
        built_at_epoch_seconds: about.built_at_epoch_seconds.unwrap_or_else(now),
        built_by: about.built_by.unwrap_or_else(|| format!("gridgate {}", env!("CARGO_PKG_VERSION"))),
        tools: about.tools,
        origin: about.origin,
    };
    host.write(&out.join(manifest::FILE), &manifest.print()?, 0o644)?;
    host.run(&Program::new("sync").arg("--file-system").arg(out))?;
    Ok(manifest)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! A file or directory that is made beside the name it is going to have.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::Host;
use crate::host::temporary::Maker;

/// Removed when it is dropped before it is done.
pub(super) struct Beside {
    temporary: PathBuf,
    name: PathBuf,
    /// The directory is there and cannot be replaced: something is mounted on it.
    in_place: bool,
}

impl Beside {
    /// A new file of that length, all hole, readable by its owner alone. What killed commands left in its directory goes first.
    pub(super) fn file(host: &dyn Host, name: &Path, len: u64) -> Result<Self> {
        // A link is not replaced, but the file that it leads to.
        let name = fs::canonicalize(name).unwrap_or_else(|_| name.to_owned());
        let made = Self::at(host, &name)?;
        let what = || format!("making '{}'", made.temporary.display());
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create_new(true).mode(0o600).open(&made.temporary).with_context(what)?;
        file.set_len(len).with_context(what)?;
        if let Ok(old) = fs::metadata(&name) {
            // Who could use the old one can use the new one; where that is not allowed it stays its maker's.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            file.set_permissions(old.permissions()).with_context(what)?;
        }
        Ok(made)
    }

    /// A new directory, open to its owner alone; it may take the place of an empty one.
    pub(super) fn directory(host: &dyn Host, name: &Path) -> Result<Self> {
        let there = fs::canonicalize(name).ok();
        let name = there.clone().unwrap_or_else(|| name.to_owned());
        let mut made = Self::at(host, &name)?;
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        if there.is_some() && device(&name) != made.temporary.parent().and_then(device) {
            made.in_place = true;
            made.temporary.clone_from(&name);
            return Ok(made);
        }
        let what = || format!("making '{}'", made.temporary.display());
        fs::DirBuilder::new().mode(0o700).create(&made.temporary).with_context(what)?;
        Ok(made)
    }

    fn at(host: &dyn Host, name: &Path) -> Result<Self> {
        let what = || format!("'{}' is no name for something new", name.display());
        let file = name.file_name().with_context(what)?.to_string_lossy().into_owned();
        let dir = match name.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        for path in host.abandoned(dir)? {
            let left = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if Maker::of(&left).is_some_and(|(what, _)| what == file) {
                clear_flags(&path);
                host.remove(&path)?;
            }
        }
        Ok(Self { temporary: dir.join(Maker::this().name(&file)), name: name.to_owned(), in_place: false })
    }

    /// Where it is made.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// All of it is there: it gets its name, after which that is on stable storage too.
    pub(super) fn done(self) -> Result<()> {
        if !self.in_place {
            fs::rename(&self.temporary, &self.name)
                .with_context(|| format!("giving '{}' its name", self.name.display()))?;
            let dir = self.temporary.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = fs::File::open(dir.unwrap_or(Path::new(".")));
            dir.and_then(|dir| dir.sync_all()).context("writing the new name to stable storage")?;
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // The error that led here is the one to tell; the next restore of that name finds what stays.
        if fs::symlink_metadata(&self.temporary).is_ok_and(|meta| meta.is_dir()) {
            clear_flags(&self.temporary);
            if self.in_place {
                for entry in fs::read_dir(&self.temporary).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
                }
            } else {
                let _ = fs::remove_dir_all(&self.temporary);
            }
        } else {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Things that must not be changed cannot be removed either (ioctl_iflags(2)). Nothing is followed.
fn clear_flags(path: &Path) {
    use rustix::fs::{IFlags, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if !meta.is_dir() && !meta.is_file() {
        return;
    }
    if let Ok(fd) = rustix::fs::open(path, flags, Mode::empty())
        && let Ok(now) = rustix::fs::ioctl_getflags(&fd)
        && now.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = rustix::fs::ioctl_setflags(&fd, now & !(IFlags::IMMUTABLE | IFlags::APPEND));
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            clear_flags(&entry.path());
        }
    }
}

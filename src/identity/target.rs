//! What an identity is written into: a filesystem in a file, or a directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::host::Host;
use crate::host::filesystem::Shape;
use crate::host::offline;
use crate::host::root::Root;
use crate::host::tree::Tree;
use crate::host::volume::Volume;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A disk image or block device, or one partition of it.
    Volume(Volume),
    /// A disk image that is one ext4 filesystem, edited without a mount, and so without root.
    Offline(PathBuf),
    /// A directory that holds a root filesystem's files.
    Tree(PathBuf),
}

/// What to do with the tree; it is also told the UUID of the filesystem, where the tree is one of its own.
pub type Work<'a> = &'a mut dyn FnMut(&dyn Tree, Option<[u8; 16]>) -> Result<()>;

/// As [`Work`], for what needs more of the kernel than a [`Tree`] can.
pub type RootWork<'a> = &'a mut dyn FnMut(&Root, Option<[u8; 16]>) -> Result<()>;

impl Target {
    /// Opens it for a look that changes nothing.
    pub fn look(&self, host: &dyn Host, work: Work<'_>) -> Result<()> {
        match self {
            Self::Volume(volume) => {
                host.look_at_volume(volume, &mut |root, found| work(root, Some(found.uuid)))
            }
            Self::Offline(disk) => offline::look(disk, &mut |tree, uuid| work(tree, Some(uuid))),
            Self::Tree(dir) => work(&open_tree(dir)?, None),
        }
    }

    /// As [`Target::look`], only where it can be mounted.
    pub fn look_at_root(&self, host: &dyn Host, look: RootWork<'_>) -> Result<()> {
        match self {
            Self::Volume(volume) => {
                host.look_at_volume(volume, &mut |root, found| look(root, Some(found.uuid)))
            }
            Self::Offline(disk) => {
                bail!("'{}' has to be mounted for this, which takes root", disk.display())
            }
            Self::Tree(dir) => look(&open_tree(dir)?, None),
        }
    }

    /// Opens it for a change; a filesystem then gets the shape asked for. Nobody else may change it meanwhile: a second
    /// command that tries is refused at once.
    pub fn edit(&self, host: &dyn Host, shape: Shape, work: Work<'_>) -> Result<()> {
        match self {
            Self::Volume(volume) => {
                let _alone = alone(&volume.file)?;
                host.edit_volume(volume, shape, &mut |root, found| work(root, Some(found.uuid)))
            }
            Self::Offline(disk) => {
                let _alone = alone(disk)?;
                offline::edit(host, disk, shape, &mut |tree, uuid| work(tree, Some(uuid)))
            }
            Self::Tree(dir) => {
                let _alone = alone(dir)?;
                work(&open_tree(dir)?, None)
            }
        }
    }
}

/// As a message names it.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Volume(volume) => volume.fmt(f),
            Self::Offline(path) | Self::Tree(path) => path.display().fmt(f),
        }
    }
}

/// The machine's own root is edited by those who run it.
fn open_tree(dir: &Path) -> Result<Root> {
    let what = || format!("opening the tree '{}'", dir.display());
    let same = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    if same(dir).is_some() && same(dir) == same(Path::new("/")) {
        bail!("{}: this is the root of the machine that gridgate runs on", what());
    }
    Root::open(dir)
}

/// A lock (flock(2)) that ends with this process. QEMU and user-mode Linux lock the disks of their guests in other ways; that
/// no guest runs is for the caller to see.
fn alone(path: &Path) -> Result<File> {
    let file = File::open(path).with_context(|| format!("opening '{}'", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!("'{}' is in use by another command", path.display()),
        Err(error) => Err(error).with_context(|| format!("locking '{}'", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn a_tree_is_changed_by_one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::Tree(dir.path().to_owned());
        let mut told = String::new();
        target
            .edit(&Live, Shape::default(), &mut |_, _| {
                let second = target.edit(&Live, Shape::default(), &mut |_, _| Ok(()));
                told = second.unwrap_err().to_string();
                Ok(())
            })
            .unwrap();
        assert_eq!(told, format!("'{}' is in use by another command", dir.path().display()));
    }

    #[test]
    fn the_machines_own_root_is_refused_however_it_is_called() {
        for root in ["/", "/proc/self/root", "/usr/.."] {
            let error = Target::Tree(root.into()).look(&Live, &mut |_, _| Ok(())).unwrap_err().to_string();
            assert!(error.ends_with("this is the root of the machine that gridgate runs on"), "{error}");
        }
    }
}

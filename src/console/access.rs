//! Who may read a console's files: root, and the administrators' group.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;

use nix::unistd::Group;

const DIR: u32 = 0o750;
const FILE: u32 = 0o640;
/// What was typed: nobody but root.
pub const PRIVATE: u32 = 0o600;
/// Its members may pass through a guest's directory, and see nothing else in it.
const WAY: u32 = 0o710;

/// The group where a site names none, if the host has it.
const USUAL: &str = "adm";

/// The group that may read; root's if none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    gid: Option<u32>,
}

impl Access {
    /// The group of that name, or if none is given `adm`. A group that is not there is as none.
    pub fn of(group: Option<&str>) -> Self {
        let found = Group::from_name(group.unwrap_or(USUAL)).ok().flatten();
        Self { gid: found.map(|group| group.gid.as_raw()) }
    }

    /// Opens a file for writing, made if it is not there.
    pub fn open(self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let file = options.create(true).mode(FILE).open(path)?;
        if let Some(gid) = self.gid.filter(|gid| file.metadata().is_ok_and(|meta| meta.gid() != *gid)) {
            // A filesystem without owners keeps the log too.
            let _ = fchown(&file, None, Some(gid));
        }
        Ok(file)
    }

    /// Makes the directory of a guest's console, if it is not there, in the guest's own, which lets the group pass.
    pub fn make_dir(self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() && self.gid.is_none_or(|gid| dir.metadata().is_ok_and(|meta| meta.gid() == gid)) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(DIR).create(dir)?;
        self.sweep(dir);
        Ok(())
    }

    /// Gives the directory, the way to it, and what is in it already to the group.
    pub fn sweep(self, dir: &Path) {
        let Some(gid) = self.gid else { return };
        let give = |path: &Path, mode: u32| {
            let meta = path.symlink_metadata()?;
            if meta.is_symlink() || (meta.gid() == gid && meta.mode() & 0o7777 == mode) {
                return Ok(());
            }
            chown(path, None, Some(gid))?;
            std::fs::set_permissions(path, Permissions::from_mode(mode))
        };
        // What cannot be given away stays root's.
        let _: io::Result<()> = give(dir, DIR);
        if let Some(guest) =
            dir.parent().filter(|guest| guest.metadata().is_ok_and(|m| m.mode() & 0o077 == 0))
        {
            let _ = give(guest, WAY);
        }
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let private =
                entry.metadata().is_ok_and(|meta| meta.mode() & 0o7777 == PRIVATE || !meta.is_file());
            if !private {
                let _ = give(&entry.path(), FILE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path) -> (u32, u32) {
        let meta = path.metadata().unwrap();
        (meta.gid(), meta.mode() & 0o7777)
    }

    #[test]
    fn a_group_reads_the_logs_and_nothing_else_of_a_guest() {
        let Some(adm) = Group::from_name(USUAL).unwrap().filter(|_| rustix::process::geteuid().is_root())
        else {
            eprintln!("skipped: this test needs root and a group '{USUAL}'");
            return;
        };
        let top = tempfile::tempdir().unwrap();
        let guest = top.path().join("ce");
        DirBuilder::new().mode(0o700).create(&guest).unwrap();
        let (dir, access, gid) = (guest.join("console"), Access::of(None), adm.gid.as_raw());
        access.make_dir(&dir).unwrap();
        access.open(&dir.join("log"), OpenOptions::new().append(true)).unwrap();
        assert_eq!(told(&guest), (gid, WAY));
        assert_eq!(told(&dir), (gid, DIR));
        assert_eq!(told(&dir.join("log")), (gid, FILE));
    }

    #[test]
    fn files_of_an_older_gridgate_are_given_to_the_group_and_what_was_typed_is_not() {
        let Some(adm) = Group::from_name(USUAL).unwrap().filter(|_| rustix::process::geteuid().is_root())
        else {
            eprintln!("skipped: this test needs root and a group '{USUAL}'");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("old", 0o644), ("typed", PRIVATE)] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        Access::of(None).sweep(dir.path());
        assert_eq!(told(&dir.path().join("old")), (adm.gid.as_raw(), FILE));
        assert_eq!(told(&dir.path().join("typed")), (0, PRIVATE));
    }

    #[test]
    fn a_group_that_is_not_there_is_root() {
        assert_eq!(Access::of(Some("no-such-group")), Access::default());
    }
}

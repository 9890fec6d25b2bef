//! The name that something has until it takes the place of what it stands beside.

use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::io::{Errno, Result};

/// Always the same: what a killed run left in a directory goes as soon as anything is replaced in it, which the next run begins with.
const NAME: &str = ".gridgate-new";

/// Makes something under that name, which it tells. A directory that a guest keeps there is left alone, and another name is taken.
pub(super) fn make<T>(dir: &OwnedFd, make: impl Fn(&str) -> Result<T>) -> Result<(T, String)> {
    for name in [NAME.to_owned(), format!(".gridgate-{}", std::process::id())] {
        take_away(dir, &name);
        match make(&name) {
            Err(Errno::EXIST) => {}
            made => return Ok((made?, name)),
        }
    }
    Err(Errno::EXIST)
}

/// Nothing may be there, and the error that leads here is the one to tell.
pub(super) fn take_away(dir: &OwnedFd, name: &str) {
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::NAME;
    use crate::host::root::{FileMode, Root};

    #[test]
    fn what_a_killed_run_left_goes_with_the_next_write_and_a_directory_of_that_name_hinders_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let (etc, left) = (dir.path().join("etc"), dir.path().join("etc").join(NAME));
        let names = || std::fs::read_dir(&etc).unwrap().count();
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(&left, "half a secret").unwrap();
        root.write(Path::new("/etc/hosts"), b"x", FileMode::KeepOr(0o644)).unwrap();
        assert_eq!(names(), 1);
        std::fs::write(&left, "half a secret").unwrap();
        root.switch(Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/UTC")).unwrap();
        assert_eq!(names(), 2);
        std::fs::create_dir_all(left.join("full")).unwrap();
        root.write(Path::new("/etc/hosts"), b"y", FileMode::KeepOr(0o644)).unwrap();
        root.switch(Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/Etc/UTC")).unwrap();
        assert_eq!(std::fs::read(etc.join("hosts")).unwrap(), b"y");
        assert_eq!(names(), 3);
    }
}

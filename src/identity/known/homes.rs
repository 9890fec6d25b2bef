//! Home directories of a guest, as its own accounts name them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::host::root::Kind;
use crate::host::tree::Tree;

/// A guest with more is not looked at further: those of a shared filesystem are no part of one machine.
const MOST: usize = 4096;

/// `/root`, what is in `/home`, and what passwd(5) names besides; sorted. Directories of the system itself, which daemons
/// have as their homes, are left out.
pub fn homes(tree: &dyn Tree) -> Result<Vec<PathBuf>> {
    let mut homes = BTreeSet::from([PathBuf::from("/root")]);
    tree.names(Path::new("/home"), &mut |name, kind| {
        if kind == Kind::Dir {
            homes.insert(Path::new("/home").join(name));
        }
        homes.len() < MOST
    })?;
    // A passwd that cannot be read tells of no homes; what is in the usual places is found anyway.
    let passwd = tree.read(Path::new("/etc/passwd")).ok().flatten().unwrap_or_default();
    for line in passwd.split(|b| *b == b'\n') {
        if let Some(home) = line.split(|b| *b == b':').nth(5)
            && homes.len() < MOST
            && let path = Path::new(OsStr::from_bytes(home))
            && is_home(path)
        {
            homes.insert(path.to_owned());
        }
    }
    Ok(homes.into_iter().collect())
}

/// At least two levels deep, and not where packages put their files.
fn is_home(path: &Path) -> bool {
    let mut parts = path.components();
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if parts.next() != Some(Component::RootDir) || !plain {
        return false;
    }
    let first = parts.next().map(|part| part.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let system: [&[u8]; 9] = [b"bin", b"dev", b"etc", b"lib", b"lib64", b"proc", b"sbin", b"sys", b"usr"];
    parts.next().is_some() && !system.contains(&first.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;

    #[test]
    fn homes_are_those_of_people_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("home/ann")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("home/file"), "").unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nbob:x:1:1::/srv/people/bob:/bin/sh\ndaemon:x:2:2::/usr/sbin:/bin/false\n\
                      odd:x:3:3::/home/../etc:/bin/sh\nnone:x:4:4::/:/bin/false\nshort:x\n\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        let found = homes(&Root::open(dir.path()).unwrap()).unwrap();
        assert_eq!(found, ["/home/ann", "/root", "/srv/people/bob"].map(PathBuf::from));
    }
}

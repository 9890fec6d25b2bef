//! Sockets in directories of somebody else's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A socket that was found without following a link: whoever owns its directory cannot have us talk to another one.
#[derive(Debug)]
pub struct Found {
    fd: OwnedFd,
}

impl Found {
    /// A path that leads to this very socket, whatever has its name by now; good as long as the value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Finds a socket; a symbolic link on the way to it is an error.
pub fn find(path: &Path) -> Result<Found> {
    // With NOFOLLOW a link at the end would be what is found.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .with_context(|| format!("finding socket '{}'", path.display()))?;
    Ok(Found { fd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_link_to_a_socket_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let _listener = UnixListener::bind(dir.join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        assert!(find(&dir.join("link")).is_err());
        let found = find(&dir.join("real")).unwrap();
        std::fs::rename(dir.join("real"), dir.join("other")).unwrap();
        UnixStream::connect(found.path()).unwrap();
    }
}

//! One connection for all that is done on a box, so that the user proves once who they are.
//!
//! ssh shares a connection through a socket in a private directory. The connection ends with the last session in it, so that
//! a command that is killed leaves none; the directory that it leaves is removed by the next one.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::ssh::Ssh;
use crate::host::Live;
use crate::host::programs::Programs;
use crate::host::temporary::{self, Maker};

/// Beside the directory, ssh adds a suffix of 17 characters for a moment, and all of it fits into 108 (unix(7)).
const LONGEST: usize = 60;
const NAME: &str = "gridgate-ssh";

/// A connection that commands share.
#[derive(Debug)]
pub struct Shared {
    /// ssh that goes through it.
    pub ssh: Ssh,
    dir: Option<PathBuf>,
}

impl Shared {
    /// Uses the connection that the user's own configuration shares, if one is there, else prepares one.
    pub fn new(ssh: Ssh) -> Result<Self> {
        let own = Self { ssh, dir: None };
        if own.ssh.settings.control_path.is_some() && own.is_alive() {
            return Ok(own);
        }
        let base = base();
        temporary::sweep(&base, NAME);
        let dir = base.join(Maker::this().name(NAME));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.with_context(|| format!("making directory '{}'", dir.display()))?;
        // Never longer than its sessions: this process has one as long as it lives.
        let ssh = own.ssh.with(format!("ControlPath={}", dir.join("s").display()));
        Ok(Self { ssh: ssh.with("ControlPersist=1"), dir: Some(dir) })
    }

    /// ssh that begins the connection.
    pub fn first(&self) -> Ssh {
        match self.dir {
            Some(_) => self.ssh.with("ControlMaster=yes"),
            None => self.ssh.clone(),
        }
    }

    /// ssh for what comes after.
    pub fn next(&self) -> Ssh {
        self.ssh.with("ControlMaster=no")
    }

    /// Whether the connection is there. It is asked for locally; a link that is dead and not noticed yet counts as alive.
    pub fn is_alive(&self) -> bool {
        Live.run_any(&self.ssh.program(&["-O", "check"], None)).is_ok_and(|ran| ran.status == 0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            // It may have ended already, and what cannot be removed is removed by the next command.
            let _ = Live.run_any(&self.ssh.program(&["-O", "exit"], None));
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// What killed commands of this user have left here.
pub fn leftovers() -> Vec<PathBuf> {
    temporary::left(&base(), NAME)
}

fn base() -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let runtime = std::env::var("XDG_RUNTIME_DIR").ok();
    let runtime = runtime.filter(|dir| dir.starts_with('/') && dir.len() < LONGEST && dir.chars().all(plain));
    runtime.map(PathBuf::from).filter(|dir| dir.is_dir()).unwrap_or_else(|| PathBuf::from("/tmp"))
}

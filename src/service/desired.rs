//! What was asked for last, apart from what is: a guest that shut itself down is not one that was stopped.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::site::Site;
use crate::host::Host;
use crate::names::GuestName;
use crate::paths::Paths;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It was asked to run.
    Running,
    /// It was asked to stop, or never asked to run.
    Stopped,
}

impl std::fmt::Display for Desired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// What was asked for last.
pub fn read(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Desired> {
    let content = host.read(&paths.desired(guest))?;
    Ok(match content.as_deref().map(<[u8]>::trim_ascii) {
        Some(b"running") => Desired::Running,
        _ => Desired::Stopped,
    })
}

/// What was asked for, if it ever was and that can be read.
pub fn asked(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Option<Desired> {
    let content = host.read(&paths.desired(guest)).ok()??;
    match content.trim_ascii() {
        b"running" => Some(Desired::Running),
        b"stopped" => Some(Desired::Stopped),
        _ => None,
    }
}

/// The guests that a box that comes up has to bring up: those that were asked to run, and of those that nobody ever asked
/// anything the ones that come up with the host.
pub fn wanted(host: &dyn Host, paths: &Paths, site: &Site) -> Result<Vec<GuestName>> {
    let mut wanted = Vec::new();
    for guest in &site.guests {
        let asked = host.stat(&paths.desired(&guest.name))?.is_some();
        if (asked && read(host, paths, &guest.name)? == Desired::Running) || (!asked && guest.autostart) {
            wanted.push(guest.name.clone());
        }
    }
    Ok(wanted)
}

/// Remembers what is asked for now.
pub fn write(host: &dyn Host, paths: &Paths, guest: &GuestName, desired: Desired) -> Result<()> {
    host.write(&paths.desired(guest), format!("{desired}\n").as_bytes(), 0o644)
}

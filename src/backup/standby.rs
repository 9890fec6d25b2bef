//! A machine that stands by for another one: `STATE/standby.json`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::host::Host;
use crate::names::{GuestName, SiteName};
use crate::paths::Paths;
use crate::service::desired::{self, Desired};

/// The file's name in the state directory.
pub const FILE: &str = "standby.json";

/// What this machine could take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// The site.
    pub site: SiteName,
    /// When it was as it is here: seconds since 1970.
    pub taken_at_epoch_seconds: u64,
    /// Its guests.
    pub guests: Vec<GuestName>,
}

impl Standby {
    /// By what a machine is given.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            site: manifest.site.clone(),
            taken_at_epoch_seconds: manifest.taken_at_epoch_seconds,
            guests: manifest.guests.iter().map(|guest| guest.name.clone()).collect(),
        }
    }

    /// What this machine stands by for; `None` if it never did.
    pub fn read(host: &dyn Host, paths: &Paths) -> Result<Option<Self>> {
        let path: PathBuf = paths.state.join(FILE);
        let Some(bytes) = host.read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading '{}'", path.display()))
    }

    /// A guest that was asked to run here: the machine has taken over.
    pub fn taken_over(&self, host: &dyn Host, paths: &Paths) -> Result<Option<&GuestName>> {
        for guest in &self.guests {
            if desired::read(host, paths, guest)? == Desired::Running {
                return Ok(Some(guest));
            }
        }
        Ok(None)
    }
}

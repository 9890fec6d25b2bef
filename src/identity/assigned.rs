//! Identities as the host keeps them: assigned once, private, and the same every time a guest is made anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::identity::keys::{self, KeyType};
use crate::names::GuestName;
use crate::paths::Paths;

/// What was drawn for one guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Format of the file.
    pub version: u32,
    /// 32 hexadecimal digits (machine-id(5)).
    pub machine_id: String,
    /// UUID of the root filesystem.
    pub filesystem_uuid: [u8; 16],
    /// Private host key in OpenSSH's format.
    pub host_key_ed25519: String,
    /// Further private host keys, in the same format: those that the guest's sshd was found to want.
    #[serde(default)]
    pub host_keys: BTreeMap<KeyType, String>,
    /// The disk's other ids were taken over with the rest, and stay.
    #[serde(default)]
    pub keeps_disk_ids: bool,
}

impl std::fmt::Debug for Assigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assigned").field("machine_id", &self.machine_id).finish_non_exhaustive()
    }
}

const VERSION: u32 = 1;

impl Assigned {
    /// Draws a new identity.
    pub fn draw(name: &str) -> Result<Self> {
        let machine_id = version_4(keys::random()?).iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self {
            version: VERSION,
            machine_id,
            filesystem_uuid: version_4(keys::random()?),
            host_key_ed25519: keys::new_ed25519(&format!("root@{name}"))?,
            host_keys: BTreeMap::new(),
            keeps_disk_ids: false,
        })
    }

    /// Nothing drawn: for looking at what does not depend on it.
    pub(crate) fn nothing() -> Self {
        let (machine_id, host_key_ed25519) = (String::new(), String::new());
        let host_keys = BTreeMap::new();
        let (version, filesystem_uuid, keeps_disk_ids) = (VERSION, [0; 16], false);
        Self { version, machine_id, filesystem_uuid, host_key_ed25519, host_keys, keeps_disk_ids }
    }

    /// Draws keys of further types, as far as it has none of them yet. Whether there is something new to be kept.
    pub fn complete(&mut self, wanted: &[KeyType], name: &str) -> Result<bool> {
        let mut drawn = false;
        for kind in wanted {
            if *kind != KeyType::Ed25519 && !self.host_keys.contains_key(kind) {
                self.host_keys.insert(*kind, keys::new_key(*kind, &format!("root@{name}"))?);
                drawn = true;
            }
        }
        Ok(drawn)
    }

    /// The private host key of that type, if there is one.
    pub fn host_key(&self, kind: KeyType) -> Option<&str> {
        match kind {
            KeyType::Ed25519 => Some(&self.host_key_ed25519),
            other => self.host_keys.get(&other).map(String::as_str),
        }
    }

    /// The public lines of all host keys.
    pub fn public_lines(&self) -> Result<Vec<String>> {
        KeyType::ALL.into_iter().filter_map(|kind| self.host_key(kind)).map(keys::public_line).collect()
    }

    /// The public half of the host key.
    pub fn host_key_public(&self) -> Result<String> {
        keys::public_line(&self.host_key_ed25519)
    }
}

/// A random UUID of version 4 (RFC 9562), which machine-id(5) asks for as well.
fn version_4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// The identity that the guest has had before, if any.
pub fn load(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Option<Assigned>> {
    load_from(host, &paths.identity(guest))
}

/// As [`load`], for a machine that is no guest of the site.
pub fn load_machine(host: &dyn Host, paths: &Paths, fqdn: &str) -> Result<Option<Assigned>> {
    load_from(host, &paths.machine_identity(fqdn))
}

/// As [`store`], for a machine that is no guest of the site.
pub fn store_machine(host: &dyn Host, paths: &Paths, fqdn: &str, assigned: &Assigned) -> Result<()> {
    host.make_dir(&paths.identities(), 0o700)?;
    host.write(&paths.machine_identity(fqdn), &serde_json::to_vec_pretty(assigned)?, 0o600)
}

fn load_from(host: &dyn Host, path: &Path) -> Result<Option<Assigned>> {
    let Some(bytes) = host.read(path)? else { return Ok(None) };
    let what = || format!("reading the identity in '{}'", path.display());
    let assigned: Assigned = serde_json::from_slice(&bytes).with_context(what)?;
    if assigned.version != VERSION {
        anyhow::bail!("{}: it has format {}, this gridgate knows {VERSION}", what(), assigned.version);
    }
    Ok(Some(assigned))
}

/// Guests are personalised side by side, and the one that looks second must find what the first has drawn.
static DRAWING: Mutex<()> = Mutex::new(());

/// The identity that the guest has, drawn and kept (0600) if it has none yet.
pub fn load_or_draw(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Assigned> {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(assigned) = load(host, paths, guest)? {
        return Ok(assigned);
    }
    let assigned = Assigned::draw(guest.as_str())?;
    store(host, paths, guest, &assigned)?;
    Ok(assigned)
}

/// Keeps the guest's identity (0600) in place of the one before.
pub fn store(host: &dyn Host, paths: &Paths, guest: &GuestName, assigned: &Assigned) -> Result<()> {
    host.make_dir(&paths.guest(guest), 0o700)?;
    host.write(&paths.identity(guest), &serde_json::to_vec_pretty(assigned)?, 0o600)
}

/// The public line of the site's own key, which `gridgate ssh` logs in with; made (0600) if it is not there yet.
pub fn site_key(host: &dyn Host, paths: &Paths, site: &str) -> Result<String> {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = paths.site_key();
    if let Some(private) = host.read(&path)? {
        let private = String::from_utf8(private).with_context(|| format!("reading '{}'", path.display()))?;
        return keys::public_line(&private);
    }
    let private = keys::new_ed25519(&format!("gridgate@{site}"))?;
    let public = keys::public_line(&private)?;
    host.write(&path, private.as_bytes(), 0o600)?;
    host.write(&path.with_extension("pub"), format!("{public}\n").as_bytes(), 0o644)?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_never_share_anything_drawn() {
        let (a, b) = (Assigned::draw("ce").unwrap(), Assigned::draw("ce").unwrap());
        assert_ne!(a.machine_id, b.machine_id);
        assert_ne!(a.filesystem_uuid, b.filesystem_uuid);
        assert_ne!(a.host_key_ed25519, b.host_key_ed25519);
        assert_eq!(a.machine_id.len(), 32);
        assert_eq!(&a.machine_id[12..13], "4");
    }

    #[test]
    fn guests_that_are_personalised_side_by_side_get_one_site_key() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths::new(dir.path(), dir.path());
            let draw = || site_key(&crate::host::Live, &paths, "x").unwrap();
            let keys: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| *key == draw()), "{keys:?}");
        }
    }

    #[test]
    fn no_secret_is_shown_when_an_identity_is_printed_for_debugging() {
        let drawn = Assigned::draw("ce").unwrap();
        assert!(!format!("{drawn:?}").contains("PRIVATE"));
    }
}

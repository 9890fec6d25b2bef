//! What a guest's filesystem says about itself: read only, and believed only as far as it goes.

use std::path::Path;

use anyhow::Result;

use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::identity::network;

/// What was found in a guest's filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What brings its network up.
    pub network: network::found::Found,
    /// The machine-id that it has now, if any.
    pub machine_id: Option<String>,
    /// Host key files, public halves too.
    pub host_keys: Vec<String>,
    /// D-Bus keeps a machine-id of its own instead of linking to the system's.
    pub own_dbus_id: bool,
}

impl Found {
    /// Looks around.
    pub fn look(root: &dyn Tree) -> Result<Self> {
        let machine_id = match root.read(Path::new("/etc/machine-id")) {
            Ok(Some(id)) => Some(String::from_utf8_lossy(&id).trim().to_owned()),
            // Something odd is there; it will be replaced.
            Ok(None) | Err(_) => None,
        };
        let mut host_keys = Vec::new();
        for name in root.list(Path::new("/etc/ssh"))? {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ssh_host_") && name.contains("_key") {
                host_keys.push(name);
            }
        }
        Ok(Self {
            network: network::found::Found::look(root)?,
            machine_id,
            host_keys,
            own_dbus_id: matches!(
                root.entry(Path::new("/var/lib/dbus/machine-id"))?,
                Some(Entry::File { .. })
            ),
        })
    }
}

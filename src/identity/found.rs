//! What a guest's filesystem says about itself: read only, and believed only as far as it goes.

use std::path::Path;

use anyhow::Result;

use crate::host::root::Entry;
use crate::host::tree::Tree;

/// What was found in a guest's filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// systemd-networkd is installed.
    pub networkd: bool,
    /// systemd-networkd comes up at boot.
    pub networkd_enabled: bool,
    /// ifupdown is installed.
    pub ifupdown: bool,
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
        let there = |path: &str| -> Result<bool> { Ok(root.entry(Path::new(path))?.is_some()) };
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
        let mut networkd = false;
        for unit in ["/lib/systemd/system", "/usr/lib/systemd/system"] {
            networkd = networkd || there(&format!("{unit}/systemd-networkd.service"))?;
        }
        let mut ifupdown = false;
        for program in ["/sbin/ifup", "/usr/sbin/ifup"] {
            ifupdown = ifupdown || there(program)?;
        }
        Ok(Self {
            networkd,
            networkd_enabled: networkd && enabled(root, "systemd-networkd.service")?,
            ifupdown,
            machine_id,
            host_keys,
            own_dbus_id: matches!(
                root.entry(Path::new("/var/lib/dbus/machine-id"))?,
                Some(Entry::File { .. })
            ),
        })
    }
}

/// Whether some target or unit wants the unit (`systemctl enable` links it there; systemd.unit(5)).
fn enabled(root: &dyn Tree, unit: &str) -> Result<bool> {
    let dir = Path::new("/etc/systemd/system");
    for name in root.list(dir)? {
        if name.extension().is_some_and(|e| e == "wants" || e == "requires")
            && root.entry(&dir.join(&name).join(unit))?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

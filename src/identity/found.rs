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
    /// What it calls itself now: the first word of `/etc/hostname` without its domain.
    pub hostname: Option<String>,
    /// Its full name, as its own file of hosts or a host name with a domain has it.
    pub fqdn: Option<String>,
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
        let machine_id = text(root, "/etc/machine-id")?.map(|id| id.trim().to_owned());
        let mut host_keys = Vec::new();
        for name in root.list(Path::new("/etc/ssh"))? {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ssh_host_") && name.contains("_key") {
                host_keys.push(name);
            }
        }
        let (hostname, fqdn) = names(root)?;
        Ok(Self {
            hostname,
            fqdn,
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

/// A file as text. What is odd there (a device, a file without end, not text) is as good as nothing: it will be replaced.
pub fn text(root: &dyn Tree, path: &str) -> Result<Option<String>> {
    let Some(Entry::File { .. } | Entry::Link(_)) = root.entry(Path::new(path))? else { return Ok(None) };
    let Ok(Some(bytes)) = root.read(Path::new(path)) else { return Ok(None) };
    Ok(String::from_utf8(bytes).ok())
}

/// Host name and full name.
fn names(root: &dyn Tree) -> Result<(Option<String>, Option<String>)> {
    let said = text(root, "/etc/hostname")?.unwrap_or_default();
    let line = said.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    // Red Hat's before there was a file for it (sysconfig.txt of its initscripts).
    let network = text(root, "/etc/sysconfig/network")?.unwrap_or_default();
    let variable =
        |line: &str| Some(line.trim().strip_prefix("HOSTNAME=")?.trim_matches(['"', '\'']).to_owned());
    let Some(said) = line.map(str::to_owned).or_else(|| network.lines().find_map(variable)) else {
        return Ok((None, None));
    };
    let hostname = said.split('.').next().unwrap_or_default().to_owned();
    if said != hostname {
        return Ok((Some(hostname), Some(said)));
    }
    let hosts = text(root, "/etc/hosts")?.unwrap_or_default();
    let full = |line: &str| {
        let mut names = line.split('#').next()?.split_whitespace().skip(1);
        let prefix = format!("{hostname}.");
        names.find(|name| name.starts_with(&prefix)).map(str::to_owned)
    };
    let fqdn = hosts.lines().find_map(full);
    Ok((Some(hostname), fqdn))
}

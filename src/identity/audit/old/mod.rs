//! An identity as it is looked for: all that a machine is known by, and no secret.

mod read;

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::filesystem::uuid_text;
use crate::host::tree::Tree;
use crate::identity::wanted::Identity;
use crate::names::MacAddr;

pub use read::configured_addresses;

/// What a machine was known by. As JSON it is what `--old FILE` takes; every field but `version` may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Old {
    /// Format of the file.
    pub version: u32,
    /// Host names, full and short.
    #[serde(default)]
    pub names: BTreeSet<String>,
    /// The domain that it was in.
    #[serde(default)]
    pub domain: Option<String>,
    /// Its own addresses.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// Its hardware addresses.
    #[serde(default, with = "macs")]
    pub macs: BTreeSet<[u8; 6]>,
    /// Ids of 32 hexadecimal digits: machine-id(5) and the like.
    #[serde(default)]
    pub machine_ids: BTreeSet<String>,
    /// UUIDs of its filesystems.
    #[serde(default)]
    pub uuids: BTreeSet<String>,
    /// Names given to it by others: iSCSI and NVMe names, registrations.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Public host keys, as in `ssh_host_*_key.pub`.
    #[serde(default)]
    pub keys: BTreeSet<String>,
    /// SHA-256 of its certificates (hexadecimal, of what PEM holds).
    #[serde(default)]
    pub certificates: BTreeSet<String>,
    /// BLAKE3 of files that only it may have: shared keys, seeds, private keys (hexadecimal).
    #[serde(default)]
    pub secrets: BTreeSet<String>,
}

const VERSION: u32 = 1;

impl Default for Old {
    fn default() -> Self {
        Self {
            version: VERSION,
            names: BTreeSet::new(),
            domain: None,
            addresses: BTreeSet::new(),
            macs: BTreeSet::new(),
            machine_ids: BTreeSet::new(),
            uuids: BTreeSet::new(),
            labels: BTreeSet::new(),
            keys: BTreeSet::new(),
            certificates: BTreeSet::new(),
            secrets: BTreeSet::new(),
        }
    }
}

impl Old {
    /// What a machine with that identity is known by.
    pub fn of(identity: &Identity) -> Result<Self> {
        let assigned = &identity.assigned;
        let interfaces = &identity.interfaces;
        let mut old = Self {
            names: [identity.fqdn.clone(), identity.hostname.clone()].into(),
            domain: Some(identity.domain.clone()).filter(|domain| !domain.is_empty()),
            addresses: interfaces.iter().flat_map(|i| i.addresses.iter().map(|net| net.addr())).collect(),
            macs: interfaces.iter().filter_map(|interface| interface.mac).map(|MacAddr(mac)| mac).collect(),
            ..Self::default()
        };
        // An identity of which nothing is drawn yet has neither.
        if !assigned.machine_id.is_empty() {
            old.machine_ids.insert(assigned.machine_id.clone());
            old.uuids.insert(uuid_text(&assigned.filesystem_uuid));
            old.keys = assigned.public_lines()?.into_iter().collect();
        }
        Ok(old)
    }

    /// What a filesystem says now that it is: to be kept before it becomes another machine. What cannot be read is left out.
    pub fn from_tree(tree: &dyn Tree) -> Result<Self> {
        read::from_tree(tree).context("reading whose filesystem it is")
    }

    /// Reads the form in which it is kept.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let old: Self = serde_json::from_slice(bytes).context("reading an identity")?;
        if old.version != VERSION {
            bail!("reading an identity: it has format {}, this gridgate knows {VERSION}", old.version);
        }
        Ok(old)
    }

    /// The form in which it is kept. There is no secret in it, only digests of some.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Both in one.
    pub fn and(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self.domain = self.domain.or(other.domain);
        self.addresses.extend(other.addresses);
        self.macs.extend(other.macs);
        self.machine_ids.extend(other.machine_ids);
        self.uuids.extend(other.uuids);
        self.labels.extend(other.labels);
        self.keys.extend(other.keys);
        self.certificates.extend(other.certificates);
        self.secrets.extend(other.secrets);
        self
    }

    /// Without the UUIDs: a disk that is sealed keeps them, and each clone of it gets its own.
    pub fn without_uuids(mut self) -> Self {
        self.uuids.clear();
        self
    }
}

/// Hardware addresses as people write them.
mod macs {
    use std::collections::BTreeSet;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::names::MacAddr;

    pub(super) fn serialize<S: Serializer>(macs: &BTreeSet<[u8; 6]>, to: S) -> Result<S::Ok, S::Error> {
        macs.iter().map(|mac| MacAddr(*mac).to_string()).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<[u8; 6]>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let read = |text: String| text.parse::<MacAddr>().map(|MacAddr(mac)| mac).map_err(D::Error::custom);
        texts.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests;

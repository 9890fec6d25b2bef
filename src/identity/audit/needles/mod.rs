//! An old identity in all the forms in which files hold it.

mod border;
mod forms;

use std::collections::BTreeSet;

use serde::Serialize;

use super::Now;
use super::old::Old;
pub(super) use border::{Border, Data};

/// What sort of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// A full host name.
    Name,
    /// A host name without its domain.
    ShortName,
    /// The domain.
    Domain,
    /// An IP address.
    Address,
    /// A hardware address.
    Mac,
    /// A machine-id.
    MachineId,
    /// A filesystem's UUID.
    Uuid,
    /// A name given by others: iSCSI, NVMe, a registration.
    Label,
    /// A public key, or its fingerprint.
    Key,
    /// A certificate.
    Certificate,
    /// A file that only the old machine may have.
    Secret,
    /// A private key, whoever's.
    PrivateKey,
}

impl Sort {
    /// In words, as in "the old machine's ...".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::ShortName => "short name",
            Self::Domain => "domain",
            Self::Address => "address",
            Self::Mac => "hardware address",
            Self::MachineId => "machine-id",
            Self::Uuid => "UUID",
            Self::Label => "id",
            Self::Key => "SSH key",
            Self::Certificate => "certificate",
            Self::Secret => "secret",
            Self::PrivateKey => "private key",
        }
    }
}

/// Where something is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// In every file.
    Everywhere,
    /// Not in what packages bring, where a common word or an example's address means nothing.
    State,
    /// In logs alone.
    Logs,
}

/// One form of one part of an identity.
#[derive(Debug, Clone)]
pub(super) struct Needle {
    pub sort: Sort,
    /// What is looked for.
    pub bytes: Vec<u8>,
    /// The part of the identity that it is a form of, as it may be shown.
    pub shown: String,
    /// What must stand beside it.
    pub border: Border,
    /// Whether letters of the other case are another thing.
    pub exact: bool,
    pub scope: Scope,
    /// The new machine knows a machine of that name or address, and may speak of it.
    pub shared: bool,
}

/// Something that was not looked for, or not everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// All that is looked for.
#[derive(Debug, Default)]
pub(super) struct Needles {
    pub all: Vec<Needle>,
    pub left_out: Vec<LeftOut>,
}

impl Needles {
    /// Of an old identity, all that is not the new one's as well.
    pub(super) fn of(old: &Old, now: &Now) -> Self {
        let mut needles = Self::default();
        needles.names(old, now);
        for address in old.addresses.difference(&now.own.addresses) {
            needles.address(*address, now);
        }
        for mac in old.macs.difference(&now.own.macs) {
            needles.mac(*mac);
        }
        for id in old.machine_ids.difference(&now.own.machine_ids) {
            needles.hex(Sort::MachineId, id);
        }
        for uuid in old.uuids.difference(&now.own.uuids) {
            needles.hex(Sort::Uuid, uuid);
        }
        for label in old.labels.difference(&now.own.labels) {
            needles.push(Sort::Label, label.as_bytes(), label, Border::Word);
        }
        // Two lines with the same key may differ in their comment.
        let key = |line: &String| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let now_keys: BTreeSet<String> = now.own.keys.iter().map(key).collect();
        for line in old.keys.iter().filter(|line| !now_keys.contains(&key(line))) {
            needles.key(line);
        }
        needles
    }

    fn push(&mut self, sort: Sort, bytes: &[u8], shown: &str, border: Border) {
        self.add(Needle {
            sort,
            bytes: bytes.to_vec(),
            shown: shown.to_owned(),
            border,
            exact: false,
            scope: Scope::Everywhere,
            shared: false,
        });
    }

    fn raw(&mut self, sort: Sort, bytes: &[u8], shown: &str) {
        let border = Border::None;
        self.add(Needle { exact: true, ..Needle::new(sort, bytes.to_vec(), shown, border) });
    }

    /// The same form twice is looked for once.
    fn add(&mut self, needle: Needle) {
        if !self.all.iter().any(|other| other.bytes == needle.bytes && other.scope == needle.scope) {
            self.all.push(needle);
        }
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        self.left_out.push(LeftOut { what: what.to_owned(), why: why.to_owned() });
    }
}

impl Needle {
    fn new(sort: Sort, bytes: Vec<u8>, shown: &str, border: Border) -> Self {
        let shown = shown.to_owned();
        Self { sort, bytes, shown, border, exact: false, scope: Scope::Everywhere, shared: false }
    }
}

#[cfg(test)]
mod tests;

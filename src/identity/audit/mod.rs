//! What is left of an old identity in a filesystem: in places that are known, and in every file.
//!
//! ```text
//! Old (names, addresses, ids, keys)      Now (what it should be)
//!          |                                  |
//!          +-------> Needles <----------------+---------> known places: what is there that should not be
//!                       |                                           |
//!            every file, on all cores:                              |
//!            text, PEM, SQLite, packed, names, links                |
//!                       +------------> Report <---------------------+
//! ```
//!
//! The filesystem is hostile: nothing but regular files is opened, no link is followed, reads are bounded, and memory does
//! not grow with what is there.

pub mod keystore;
mod known;
mod needles;
mod neutral;
mod old;
mod packed;
pub(super) mod pem;
pub mod private;
mod report;
mod search;
mod sqlite;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::root::Root;
use crate::identity::edit::Edit;
use crate::identity::known::{Class, Known, Table, homes};
use crate::identity::scrub::Policy;
use crate::identity::wanted::Identity;

pub use needles::{LeftOut, Sort};
pub use neutral::neutral;
pub use old::{Old, configured_addresses};
pub use report::{Finding, Looked, Place, Report, Unseen, Verdict};

/// What the filesystem should be now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Now {
    /// What the new machine is known by; nothing of it counts as left over.
    pub own: Old,
    /// Names and addresses of machines that it knows, and may speak of.
    pub around: BTreeSet<String>,
    /// Files that personalising wrote, with the BLAKE3 of what it wrote: whatever is in them is meant.
    pub written: BTreeMap<PathBuf, [u8; 32]>,
    /// When it was personalised (seconds since 1970), if that is known: what was written later, the machine itself wrote.
    pub since: Option<i64>,
    /// Whether nobody's private key may be in it.
    pub without_keys: bool,
}

impl Now {
    /// A machine with that identity, which these edits have written.
    pub fn of(identity: &Identity, edits: &[Edit]) -> Result<Self> {
        let around = identity.hosts.iter().flat_map(|line| {
            line.names.iter().map(|name| name.to_ascii_lowercase()).chain([line.address.to_string()])
        });
        let gateways = identity.interfaces.iter().flat_map(|interface| &interface.gateways);
        let servers = identity.dns.iter().chain(gateways).map(ToString::to_string);
        Ok(Self {
            own: Old::of(identity)?,
            around: around.chain(servers).collect(),
            written: written(edits),
            since: None,
            without_keys: false,
        })
    }

    /// And with these files, which something else of the new machine's has written: its profile.
    pub fn with_files<'f>(mut self, files: impl Iterator<Item = (&'f Path, &'f [u8])>) -> Self {
        self.written.extend(files.map(|(path, content)| (path.to_owned(), blake3::hash(content).into())));
        self
    }

    /// Nobody's filesystem, such as an image.
    pub fn nobody(edits: &[Edit]) -> Self {
        Self { written: written(edits), without_keys: true, ..Self::default() }
    }

    fn knows(&self, name: &str) -> bool {
        self.around.contains(name)
    }

    /// Whether the machine itself has written what has that time, after it was personalised.
    fn is_newer(&self, modified: i64) -> bool {
        self.since.is_some_and(|since| modified >= since)
    }
}

fn written(edits: &[Edit]) -> BTreeMap<PathBuf, [u8; 32]> {
    let digest = |edit: &Edit| match edit {
        Edit::Write { path, content, .. } => Some((path.clone(), blake3::hash(content).into())),
        _ => None,
    };
    edits.iter().filter_map(digest).collect()
}

/// Looks for what is left of `old` in the filesystem that is to be `now`; changes nothing, not even times of access. Places
/// whose class the policy keeps are not held against it, but what they hold of the old identity is.
pub fn run(root: &Root, old: &Old, now: &Now, policy: &Policy, extra: &[Known]) -> Result<Report> {
    let what = || "looking for what is left of an old identity";
    let table = Table::with(extra);
    let homes = homes(root).with_context(what)?;
    let mut old = old.clone();
    if !policy.scrubs(Class::Secrets) {
        // They were kept on purpose.
        old.secrets.clear();
    }
    let old = &old;
    let needles = needles::Needles::of(old, now);
    let mut found = known::look(root, &table, &homes, old, now, policy).with_context(what)?;
    let searched = walk::search(root, &needles, old, now).with_context(what)?;
    found.extend(searched.findings);
    let mut report = Report::new(found, searched.unseen, needles.left_out, searched.looked, searched.further);
    report.explain(|path| table.best(Path::new(path), &homes));
    Ok(report)
}

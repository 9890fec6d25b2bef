//! What the host remembers of a guest's compiled profile, and what has come of it in the guest since.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::compile::generation::TOP;
use super::compile::tasks::{self, State, TaskState};
use super::compile::{self, Outcome, Undeclared};
use super::document::Document;
use crate::config::site::{Guest, Site};
use crate::host::tree::Tree;
use crate::host::{Host, offline};
use crate::names::GuestName;
use crate::paths::Paths;

/// How a guest's profile was compiled last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Of the document.
    pub digest: String,
    /// After a rollback, of the site's profile that it was rolled back from: until that changes, the older one stays.
    #[serde(default)]
    pub instead_of: Option<String>,
    /// The profile's name.
    pub profile: String,
    /// The generation that holds.
    pub generation: u32,
    /// Packages that the profile wants and the guest does not have.
    pub missing_packages: Vec<String>,
    /// What else should be known.
    pub notes: Vec<String>,
    /// First-boot tasks.
    pub tasks: Vec<TaskState>,
    /// When they stood so.
    #[serde(default)]
    pub tasks_as_of: AsOf,
}

/// Of which moment something is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AsOf {
    /// When the profile was compiled.
    #[default]
    Compile,
    /// When it was looked at.
    Now,
}

impl Compiled {
    /// Compiles a document into a tree and becomes the record of that; gives the paths that were changed. The second time
    /// nothing changes.
    pub fn replace_by(&mut self, tree: &dyn Tree, document: &Document) -> Result<Vec<PathBuf>> {
        let outcome = compile::with_own(tree, document, Undeclared::Told)?;
        Ok(self.tell(tree, document, outcome))
    }

    /// Becomes the record of what a compile came to; gives the paths that were changed.
    pub fn tell(&mut self, tree: &dyn Tree, document: &Document, outcome: Outcome) -> Vec<PathBuf> {
        let Outcome { generation, changed, notes, missing_packages } = outcome;
        let (digest, profile) = (document.digest(), document.profile.clone());
        let tasks = tasks::states(tree, document);
        let tasks_as_of = AsOf::Compile;
        *self = Self {
            digest,
            instead_of: None,
            profile,
            generation,
            missing_packages,
            notes,
            tasks,
            tasks_as_of,
        };
        changed
    }

    /// Takes in what the guest has done since, by the records in its disk, also while it runs: the guest writes them through
    /// (`profiles/templates/first-boot`), and what is in the journal only is read from there. A disk that cannot be read, or was
    /// just being written to, leaves what was known.
    pub fn look_again(&mut self, disk: &Path) {
        if self.tasks.iter().all(|task| task.state == State::Done) {
            self.tasks_as_of = AsOf::Now;
            return;
        }
        let mut tasks = self.tasks.clone();
        let look = &mut |tree: &dyn Tree, _| {
            // A tree without the generation that was compiled into it is not seen as it is.
            let is_there = tree.entry(Path::new(TOP))?.is_some();
            tasks::advance(tree, &mut tasks);
            self.tasks_as_of = if is_there { AsOf::Now } else { AsOf::Compile };
            Ok(())
        };
        if offline::look(disk, look).is_ok() {
            self.tasks = tasks;
        }
    }

    /// The digest of the site's profile that this was the answer to.
    pub fn answers(&self) -> &str {
        self.instead_of.as_deref().unwrap_or(&self.digest)
    }

    /// Writes it down.
    pub fn keep(&self, host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<()> {
        host.write(&paths.profile(guest), &serde_json::to_vec(self)?, 0o644)
    }

    /// From now on nothing is known of a profile in the guest's disk.
    pub fn forget(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<()> {
        host.remove(&paths.profile(guest))
    }

    /// What was written down; `None` if nothing was, or nothing that can be read: it is compiled again then.
    pub fn recall(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        let bytes = host.read(&paths.profile(guest))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// The guest's document, or an error that tells all that is wrong with its profile.
pub fn wanted(site: &Site, guest: &Guest) -> Result<Document> {
    super::document(site, guest)
        .with_context(|| format!("profile '{}' of guest '{}' cannot be used", guest.profile, guest.name))
}

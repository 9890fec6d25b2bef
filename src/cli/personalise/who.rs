//! Whose identity a filesystem gets, and where that is kept.

use anyhow::Result;

use crate::cli::Context;
use crate::config::site::{Guest, Site};
use crate::host::Host;
use crate::host::difference::Difference;
use crate::host::tree::Tree;
use crate::identity::assigned::{self, Assigned};
use crate::identity::personalise::Scrubbing;
use crate::identity::provided;
use crate::identity::wanted::Identity;
use crate::profile::{Document, compile, record};

/// Whose identity it is.
pub(super) enum Who<'a> {
    /// A guest of the site.
    Guest { site: &'a Site, guest: &'a Guest },
    /// A machine that its options describe.
    Machine(Box<Identity>),
}

/// Whether what a look draws is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draw {
    /// It is the identity from now on.
    AndKeep,
    /// It is forgotten again.
    ForALook,
}

impl Who<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Guest { guest, .. } => guest.name.as_str(),
            Self::Machine(identity) => &identity.fqdn,
        }
    }

    /// What a guest of the site is configured to be, too; nobody says so of another machine.
    pub(super) fn profile(&self) -> Result<Option<Document>> {
        match self {
            Self::Guest { site, guest } => Ok(Some(record::wanted(site, guest)?)),
            Self::Machine(_) => Ok(None),
        }
    }

    pub(super) fn profile_differences(&self, root: &dyn Tree) -> Result<Vec<Difference>> {
        let Some(document) = self.profile()? else { return Ok(Vec::new()) };
        let plan = compile::Plan::make(root, &document)?;
        crate::profile::diff::differences(root, &plan)
    }

    /// What goes of an old machine: as asked for, and what the profile says.
    pub(super) fn scrubbing(&self, asked: &Scrubbing) -> Result<Scrubbing> {
        match self.profile()? {
            Some(document) => asked.with_profile(&document),
            None => Ok(asked.clone()),
        }
    }

    /// When a guest's own disk was made the guest's (seconds since 1970): what is newer, the guest itself wrote.
    pub(super) fn personalised_at(&self, context: &Context) -> Option<i64> {
        use std::os::unix::fs::MetadataExt;
        match self {
            Self::Guest { guest, .. } => {
                std::fs::metadata(context.paths.profile(&guest.name)).ok().map(|record| record.mtime())
            }
            Self::Machine(_) => None,
        }
    }

    pub(super) fn kept(&self, context: &Context) -> Result<Option<Assigned>> {
        let (host, paths) = (&context.host, &context.paths);
        match self {
            Self::Guest { guest, .. } => assigned::load(host, paths, &guest.name),
            Self::Machine(identity) => assigned::load_machine(host, paths, &identity.fqdn),
        }
    }

    pub(super) fn keep(&self, context: &Context, assigned: &Assigned) -> Result<()> {
        let (host, paths) = (&context.host, &context.paths);
        match self {
            Self::Guest { guest, .. } => assigned::store(host, paths, &guest.name, assigned),
            Self::Machine(identity) => assigned::store_machine(host, paths, &identity.fqdn, assigned),
        }
    }

    pub(super) fn identity(&self, context: &Context, draw: Draw) -> Result<Identity> {
        let (host, paths) = (&context.host as &dyn Host, &context.paths);
        let assigned = match self.kept(context)? {
            Some(assigned) => assigned,
            None => {
                let assigned = Assigned::draw(self.name())?;
                if draw == Draw::AndKeep {
                    self.keep(context, &assigned)?;
                }
                assigned
            }
        };
        Ok(match self {
            Self::Guest { site, guest } => {
                let site_key = match (draw, host.read(&paths.site_key())?) {
                    (Draw::ForALook, None) => String::new(),
                    _ => assigned::site_key(host, paths, site.name.as_str())?,
                };
                Identity::of(site, guest, assigned, &site_key).with_provided(provided::read(host, guest)?)
            }
            Self::Machine(described) => Identity { assigned, ..Identity::clone(described) },
        })
    }
}

//! Node profiles: what a guest is configured to be, as data, and how it gets into the guest's filesystem.
//!
//! ```text
//!   profiles/*.toml, features/*.toml, templates/*      (the site's, installed, built in)
//!        | library: found by name, read, checked
//!        | lineage: base < extended < features < role < the guest's own features
//!        | settled: variables, declared by profiles and told by the site
//!   Document                      one deterministic text: packages, accounts, files, services, tasks, checks
//!        | compile: generations, accounts, files, units; idempotent
//!   the guest's filesystem        /var/lib/gridgate/profile/NUMBER, current -> NUMBER
//! ```
//!
//! A role is a list of features, and both are files of one form: a new one needs no Rust. Whatever is wrong with one is
//! told with its file, line and column, before anything is changed.

pub mod document;
mod keys;
mod text;
mod source;
mod library;
mod lineage;
mod settled;
mod render;
mod assemble;
pub mod scrub;
pub mod compile;
pub mod diff;
pub mod record;
pub mod export;
pub mod import;

use crate::config::problem::Problems;
use crate::config::site::{Guest, Site};
use crate::names::GuestName;

pub use assemble::Workshop;
pub use document::Document;
pub use library::{Kind, Listed, Place};
pub use scrub::{ScrubPath, scrub_paths};

/// The compiled profile of a guest. Reads the site's profiles, changes nothing.
pub fn document(site: &Site, guest: &Guest) -> Result<Document, Problems> {
    Workshop::open(site)?.document(guest)
}

/// All that is wrong with the profiles of the site's guests, each thing once.
pub fn check(site: &Site) -> Result<(), Problems> {
    let workshop = Workshop::open(site)?;
    let mut wrong = Vec::new();
    for guest in &site.guests {
        if let Err(problems) = workshop.document(guest) {
            wrong.extend(problems.iter().cloned());
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.into_iter().collect::<Problems>().sorted()),
    }
}

/// The digest of each guest's compiled profile, or why it has none.
pub fn digests(site: &Site) -> Vec<(GuestName, Result<String, Problems>)> {
    let workshop = Workshop::open(site);
    let digest = |guest: &Guest| match &workshop {
        Ok(workshop) => workshop.document(guest).map(|document| document.digest()),
        Err(problems) => Err(problems.clone()),
    };
    site.guests.iter().map(|guest| (guest.name.clone(), digest(guest))).collect()
}

#[cfg(test)]
mod tests;

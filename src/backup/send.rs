//! What was taken, into a store.

use std::path::Path;

use anyhow::{Context, Result};

use super::take::Taken;
use crate::chunks::head::Kind;
use crate::chunks::place::Shelf;
use crate::chunks::push::{Pushed, What, push_files};
use crate::host::Host;
use crate::host::refused::Refused;
use crate::names::{ImageName, SiteName};
use crate::progress::Progress;

/// The name of a site's backups in a store.
pub fn name(site: &SiteName) -> Result<ImageName> {
    site.as_str().parse().with_context(|| format!("naming the backups of site '{site}'"))
}

/// Refuses a store that others may read, unless that is fine: a backup holds every private key of the site.
pub fn private(shelf: &dyn Shelf, shared_is_fine: bool) -> Result<()> {
    if shelf.make_private()? || shared_is_fine {
        return Ok(());
    }
    let shown = shelf.shown();
    Err(Refused(format!(
        "others may read the store in '{shown}', and a backup holds every private key of the site\nhint: chmod 700 its directory, \
         name one that is not there yet, or --insecure-shared-store if only those get there who may have the keys"
    ))
    .into())
}

/// Makes it the newest backup of its site in the store; it counts when all of it is there.
pub fn send(
    host: &dyn Host,
    taken: &Taken<'_>,
    shelf: &dyn Shelf,
    key: Option<&Path>,
    progress: &Progress,
) -> Result<Pushed> {
    let site = &taken.manifest.site;
    let name = name(site)?;
    let what = What {
        kind: Kind::Backup,
        name: &name,
        built_at_epoch_seconds: taken.manifest.taken_at_epoch_seconds,
        files: &taken.files,
    };
    push_files(host, &what, &taken.dir.join("packs"), shelf, key, progress)
        .with_context(|| format!("putting the backup of site '{site}' into '{}'", shelf.shown()))
}

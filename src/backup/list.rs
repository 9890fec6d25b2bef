//! The backups of a store.

use anyhow::{Context, Result, bail};

use crate::chunks::head::{Head, Kind, Signed};
use crate::chunks::place::{Missing, Place};
use crate::names::ImageName;

/// Longest head of a backup.
const LONGEST: u64 = 2 << 20;

/// A backup of a store, which nobody has looked into yet.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What it says of itself, and who says so.
    pub signed: Signed,
    /// Whether it is the newest.
    pub latest: bool,
}

/// Sites of which a store has backups.
pub fn sites(place: &dyn Place) -> Result<Vec<ImageName>> {
    let mut sites: Vec<ImageName> =
        place.names(Kind::Backup.dir())?.iter().filter_map(|name| name.parse().ok()).collect();
    sites.sort();
    Ok(sites)
}

/// Backups of a site, the newest first.
pub fn of_site(place: &dyn Place, site: &ImageName) -> Result<Vec<Listed>> {
    let what = || format!("looking at the backups of site '{site}' in '{}'", place.shown());
    let dir = format!("{}/{site}", Kind::Backup.dir());
    let head = |path: &str| -> Result<Signed> {
        let signed = Signed::parse(&place.get(path, LONGEST)?)?;
        if signed.head.kind != Kind::Backup || signed.head.name != *site {
            bail!("'{path}' is of {} '{}'", signed.head.kind, signed.head.name);
        }
        Ok(signed)
    };
    let latest = match head(&Head::latest(Kind::Backup, site)) {
        Ok(latest) => latest,
        Err(error) if error.is::<Missing>() => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(what),
    };
    let mut found = Vec::new();
    for name in place.names(&dir)?.iter().filter(|name| name.ends_with(".head")) {
        match head(&format!("{dir}/{name}")) {
            Ok(signed) if signed.head.version != latest.head.version => {
                found.push(Listed { signed, latest: false });
            }
            Ok(_) => {}
            // It was collected meanwhile.
            Err(error) if error.is::<Missing>() => {}
            Err(error) => return Err(error).with_context(what),
        }
    }
    // One that was put there and not made the newest does not count yet.
    found.retain(|listed| listed.signed.head.sequence < latest.head.sequence);
    found.push(Listed { signed: latest, latest: true });
    found.sort_by_key(|listed| std::cmp::Reverse(listed.signed.head.sequence));
    Ok(found)
}

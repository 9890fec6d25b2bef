//! Which guest waits for which when systemd starts them by itself, as it does at boot: a drop-in beside each guest's unit.
//!
//! `up` waits by itself; a boot of the host has only units. Stopping goes the other way round (systemd.unit(5)).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::site::{Guest, Site};
use crate::host::Host;
use crate::names::GuestName;
use crate::plan::order;

/// The administrator's own units; a boot reads it before anything of gridgate's runs.
const UNITS: &str = "/etc/systemd/system";

/// Writes the drop-ins of the site's guests, and removes those of guests that wait for nobody or are the site's no more.
/// Whether anything changed, which systemd then has to be told.
pub fn arrange(host: &dyn Host, site: &Site) -> Result<bool> {
    let mut changed = false;
    for guest in &site.guests {
        let path = path(&guest.name);
        match drop_in(guest) {
            Some(text) if host.read(&path)?.as_deref() != Some(text.as_bytes()) => {
                host.write(&path, text.as_bytes(), 0o644)
                    .with_context(|| format!("writing what guest '{}' waits for", guest.name))?;
                changed = true;
            }
            Some(_) => {}
            None => changed |= forget(host, &guest.name)?,
        }
    }
    for entry in host.list(Path::new(UNITS))? {
        let Some(guest) = guest_of(&entry) else { continue };
        if site.guest(&guest).is_none() {
            changed |= forget(host, &guest)?;
        }
    }
    Ok(changed)
}

/// Removes the drop-in of a guest; whether there was one. Other drop-ins of the same unit are not gridgate's, and stay.
pub fn forget(host: &dyn Host, guest: &GuestName) -> Result<bool> {
    let path = path(guest);
    if host.stat(&path)?.is_none() {
        return Ok(false);
    }
    host.remove(&path)?;
    if let Some(dir) = path.parent()
        && host.list(dir)?.is_empty()
    {
        host.remove(dir)?;
    }
    Ok(true)
}

fn path(guest: &GuestName) -> PathBuf {
    Path::new(UNITS).join(format!("gridgate-guest@{guest}.service.d/order.conf"))
}

fn guest_of(entry: &str) -> Option<GuestName> {
    entry.strip_prefix("gridgate-guest@")?.strip_suffix(".service.d")?.parse().ok()
}

/// What the guest's unit needs besides its template. Waiting for the other's unit as well keeps the order of stopping
/// where the other never became ready.
fn drop_in(guest: &Guest) -> Option<String> {
    let mut lines = String::new();
    for other in &guest.needs {
        lines.push_str(&format!("Wants=gridgate-guest@{other}.service\n"));
    }
    for other in order::waits_for(guest) {
        lines.push_str(&format!("After=gridgate-guest@{other}.service gridgate-ready@{other}.service\n"));
    }
    let head = "# Written by `gridgate up` from the site's files, and again when they change.\n[Unit]\n";
    (!lines.is_empty()).then(|| format!("{head}{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::Files;
    use crate::host::model::Model;
    use crate::identity::edits::tests::site as example;

    #[test]
    fn the_order_is_written_once_and_goes_with_what_it_was_for() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        let mut site = example();
        let (first, second) = (site.guests[0].name.clone(), site.guests[1].name.clone());
        site.guests[1].after = Vec::new();
        site.guests[1].needs = vec![first.clone()];
        assert!(arrange(&host, &site).unwrap());
        let written = String::from_utf8(host.read(&path(&second)).unwrap().unwrap()).unwrap();
        let expected = format!(
            "[Unit]\nWants=gridgate-guest@{first}.service\nAfter=gridgate-guest@{first}.service \
             gridgate-ready@{first}.service\n"
        );
        assert!(written.ends_with(&expected), "{written}");
        assert!(!arrange(&host, &site).unwrap(), "the second time");
        site.guests[1].needs.clear();
        assert!(arrange(&host, &site).unwrap());
        assert_eq!(host.list(Path::new(UNITS)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_others_wrote_beside_it_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let host = Model::new(scratch.path());
        let mut site = example();
        let second = site.guests[1].name.clone();
        site.guests[1].after = vec![site.guests[0].name.clone()];
        let own = path(&second).with_file_name("own.conf");
        host.write(&own, b"[Unit]\n", 0o644).unwrap();
        arrange(&host, &site).unwrap();
        site.guests.remove(1);
        assert!(arrange(&host, &site).unwrap());
        assert!(host.stat(&path(&second)).unwrap().is_none());
        assert!(host.stat(&own).unwrap().is_some());
        assert!(!forget(&host, &second).unwrap());
    }
}

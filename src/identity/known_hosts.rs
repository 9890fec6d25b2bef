//! The site's known_hosts, written before any guest has booted for the first time.

use std::fmt::Write;

use anyhow::Result;

use crate::config::site::Site;
use crate::host::Host;
use crate::identity::assigned;
use crate::paths::Paths;

/// Writes it anew for all guests; one that has no identity yet is given one. The file is sshd(8)'s: names and address, then the key.
pub fn write(host: &dyn Host, paths: &Paths, site: &Site) -> Result<()> {
    let text = render(host, paths, site)?;
    if host.read(&paths.known_hosts())?.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    host.write(&paths.known_hosts(), text.as_bytes(), 0o644)
}

fn render(host: &dyn Host, paths: &Paths, site: &Site) -> Result<String> {
    let mut text = String::new();
    for guest in &site.guests {
        let assigned = assigned::load_or_draw(host, paths, &guest.name)?;
        let key = assigned.host_key_public()?;
        let mut words = key.split_whitespace();
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let _ = writeln!(text, "{},{},{} {kind} {base64}", guest.name, guest.fqdn, guest.address);
    }
    Ok(text)
}

//! The site's known_hosts, written before any guest has booted for the first time.

use std::fmt::Write;

use anyhow::Result;

use crate::config::site::Site;
use crate::host::Host;
use crate::identity::assigned;
use crate::paths::Paths;

/// Writes it anew for all guests; one that has no identity yet is given one, and the site its own key: guests are
/// personalised side by side after this, and two of them must not each make one. The file is sshd(8)'s: names and address,
/// then the key.
pub fn write(host: &dyn Host, paths: &Paths, site: &Site) -> Result<()> {
    assigned::site_key(host, paths, site.name.as_str())?;
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
        for key in assigned.public_lines()? {
            let mut words = key.split_whitespace();
            let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let _ = writeln!(text, "{},{},{} {kind} {base64}", guest.name, guest.fqdn, guest.address);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use crate::host::files::Files;
    use crate::identity::edits::tests::site as example;

    #[test]
    fn the_sites_key_is_there_before_any_guest_is_personalised() {
        let state = tempfile::tempdir().unwrap();
        let paths = Paths::new(state.path(), state.path());
        write(&Live, &paths, &example()).unwrap();
        let made = Live.read(&paths.site_key()).unwrap();
        assert!(made.is_some());
        write(&Live, &paths, &example()).unwrap();
        assert_eq!(Live.read(&paths.site_key()).unwrap(), made);
    }
}

//! How gridgate's own links and tables are called and known.

use crate::host::net::{Link, LinkKind};
use crate::names::{BadName, GuestName, IfName, NicName};

const PREFIX: &str = "gridgate:";
/// Without the four that are taken for one another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The note on a bridge of the site; `id` is [`crate::paths::Paths::id`].
pub fn alias(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// The note on a guest's port.
pub fn guest_alias(id: &str, guest: &GuestName) -> String {
    format!("{PREFIX}{id}:{guest}")
}

/// Name of the table that translates the site's addresses.
pub fn table(id: &str) -> String {
    format!("gridgate_{id}")
}

/// Name of a guest's port on the host, or in the namespace of a rehearsed site, where it is plain. On the host it is
/// `gg`, six letters that stand for site and guest, and the start of the guest's name: two sites never meet there.
pub fn port_name(id: &str, guest: &GuestName, rehearsed: bool) -> Result<IfName, BadName> {
    let plain = format!("gg-{guest}");
    if rehearsed && plain.len() <= 15 {
        return plain.parse();
    }
    let start: String = guest.as_str().chars().take(6).collect();
    format!("gg{}-{start}", letters(&format!("{id}/{guest}"))).parse()
}

/// Six of them, always the same for the same text.
fn letters(of: &str) -> String {
    let hash = blake3::hash(of.as_bytes());
    hash.as_bytes()[..6].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// Name of the port of a guest's further card: as [`port_name`], with the card's name behind the guest's. No guest is called
/// with `_`, so that it is no other guest's port.
pub fn further_port_name(
    id: &str,
    guest: &GuestName,
    nic: &NicName,
    rehearsed: bool,
) -> Result<IfName, BadName> {
    let plain = format!("gg-{guest}_{nic}");
    if rehearsed && plain.len() <= 15 {
        return plain.parse();
    }
    let start: String = guest.as_str().chars().take(6).collect();
    format!("gg{}_{start}", letters(&format!("{id}/{guest}/{nic}"))).parse()
}

/// The site whose gridgate made this link.
pub fn owner(link: &Link) -> Option<&str> {
    link.alias.as_deref()?.strip_prefix(PREFIX)?.split(':').next()
}

/// Whether this is the port of a guest of the site; such a link lives no longer than what runs the guest.
pub fn is_guest_port(link: &Link, id: &str) -> bool {
    matches!(link.kind, LinkKind::Tap | LinkKind::Veth) && owner(link) == Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_in_a_rehearsal_has_its_guests_name() {
        let name = |guest: &str| port_name("0123abcd", &guest.parse().unwrap(), true).unwrap().to_string();
        assert_eq!(name("ce"), "gg-ce");
        assert_eq!(name("worker-node1"), "gg-worker-node1");
        assert_eq!(name("worker-node12").len(), 15);
    }

    #[test]
    fn ports_of_two_sites_on_one_host_differ() {
        let name = |id: &str| port_name(id, &"ce".parse().unwrap(), false).unwrap();
        assert_ne!(name("0123abcd"), name("0123abce"));
        assert_eq!(name("0123abcd"), name("0123abcd"));
    }

    proptest! {
        #[test]
        fn every_guest_has_a_port_name_for_each_card(
            guest in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", nic in "n[a-z0-9._-]{0,14}", rehearsed: bool,
        ) {
            let (guest, nic) = (guest.parse().unwrap(), nic.parse().unwrap());
            let first = port_name("0123abcd", &guest, rehearsed).unwrap();
            prop_assert_ne!(first, further_port_name("0123abcd", &guest, &nic, rehearsed).unwrap());
        }
    }
}

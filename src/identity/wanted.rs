//! What a filesystem is to become, as one value.

use std::net::IpAddr;

use crate::config::interface::Interface;
use crate::config::site::{Guest, Site};
use crate::identity::assigned::Assigned;
use crate::identity::provided::ProvidedFile;

/// Everything that makes an installed system itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The host name's first label.
    pub hostname: String,
    /// First label and domain; the label alone if there is no domain.
    pub fqdn: String,
    /// The domain; empty if there is none.
    pub domain: String,
    /// Its own names and those of others that it knows without a name server; its own first.
    pub hosts: Vec<HostLine>,
    /// Its network interfaces, the first one first.
    pub interfaces: Vec<Interface>,
    /// Name servers; empty: names come from the hosts file alone.
    pub dns: Vec<IpAddr>,
    /// Domains that names are completed with.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// Public keys that may log in as root, the site's own first; none: whoever may, still may.
    pub authorized_keys: Vec<String>,
    /// Keys and certificates that the site has for it.
    pub provided: Vec<ProvidedFile>,
    /// Old and new ids of the disk around its root filesystem, as files name them.
    pub disk_ids: Vec<(String, String)>,
    /// What is drawn once and kept.
    pub assigned: Assigned,
}

/// One line of hosts(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLine {
    /// Its address.
    pub address: IpAddr,
    /// Its names, the full one first.
    pub names: Vec<String>,
}

impl Identity {
    /// The identity of a guest of a site, without what has to be read for it ([`Identity::with_provided`]). `site_key` is the
    /// public line of the site's own key.
    pub fn of(site: &Site, guest: &Guest, assigned: Assigned, site_key: &str) -> Self {
        let keys = std::iter::once(site_key).chain(site.admin_keys.iter().map(String::as_str));
        Self {
            hostname: guest.name.as_str().to_owned(),
            fqdn: guest.fqdn.clone(),
            domain: guest.fqdn.split_once('.').map(|(_, domain)| domain.to_owned()).unwrap_or_default(),
            hosts: host_lines(site, guest),
            interfaces: guest.interfaces.clone(),
            dns: site.dns.clone(),
            search: guest.search.clone(),
            ntp: site.ntp.clone(),
            authorized_keys: keys.map(str::to_owned).collect(),
            provided: Vec::new(),
            disk_ids: Vec::new(),
            assigned,
        }
    }

    /// The same, with what the site has for it.
    pub fn with_provided(self, provided: Vec<ProvidedFile>) -> Self {
        Self { provided, ..self }
    }
}

/// The guest itself comes first: `hostname -f` takes the first line that has its name (hostname(1)).
fn host_lines(site: &Site, guest: &Guest) -> Vec<HostLine> {
    let others = site.guests.iter().filter(|other| other.name != guest.name);
    let line = |one: &Guest| {
        let mut names = vec![one.fqdn.clone()];
        if one.fqdn != one.name.as_str() {
            names.push(one.name.as_str().to_owned());
        }
        HostLine { address: one.address, names }
    };
    std::iter::once(guest).chain(others).map(line).collect()
}

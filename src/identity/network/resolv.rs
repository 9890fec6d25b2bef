//! Name servers where programs look for them: `/etc/resolv.conf` (resolv.conf(5)).
//!
//! It is often a link out of `/etc`, honestly so. Where systemd-resolved comes up and the link leads to one of its files,
//! the link stays and resolved is told of the servers (systemd-resolved.service(8), "/etc/resolv.conf"). Everywhere else a
//! regular file takes its place: resolvconf(8), netconfig(8) and NetworkManager's `rc-manager` leave such a file alone or
//! write the same servers into it, and a link of theirs would lead to nothing before they run.

use std::fmt::Write;

use crate::identity::edit::Edit;
use crate::identity::network::HEADER;
use crate::identity::network::found::{Found, Renderer};
use crate::identity::network::wanted::{Wanted, joined};

const FILE: &str = "/etc/resolv.conf";
const RESOLVED: &str = "/etc/systemd/resolved.conf.d/10-gridgate.conf";

/// Edits for whoever resolves names in the guest.
pub fn edits(wanted: &Wanted<'_>, found: &Found, renderer: &Renderer) -> Vec<Edit> {
    if !(found.resolved_up && found.resolv_conf_is_resolveds) {
        return vec![Edit::text(FILE, text(wanted)), Edit::remove(RESOLVED)];
    }
    let by_renderer =
        matches!(renderer, Renderer::Networkd | Renderer::Netplan(_)) || renderer.is_network_managers(found);
    if by_renderer || (wanted.dns.is_empty() && wanted.search.is_empty()) {
        return vec![Edit::remove(RESOLVED)];
    }
    let mut text = format!("{HEADER}[Resolve]\n");
    if !wanted.dns.is_empty() {
        // Writing to a String cannot fail; so below.
        let _ = writeln!(text, "DNS={}", joined(wanted.dns, " "));
    }
    if !wanted.search.is_empty() {
        let _ = writeln!(text, "Domains={}", joined(wanted.search, " "));
    }
    vec![Edit::text(RESOLVED, text)]
}

fn text(wanted: &Wanted<'_>) -> String {
    let mut text = String::new();
    if !wanted.search.is_empty() {
        let _ = writeln!(text, "search {}", joined(wanted.search, " "));
    }
    for server in wanted.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if wanted.dns.is_empty() {
        text.push_str("# the site has no name server; names come from /etc/hosts\n");
    }
    text
}

//! A guest's network, written for whatever brings it up.
//!
//! ```text
//!   Identity: interfaces, name servers            the guest's filesystem
//!                 |                                         |
//!                 |                  found: what comes up at boot, which files speak of cards
//!                 +------------------> render <-------------+
//!                                        | one of: ifupdown, redhat, suse, keyfile, networkd, netplan
//!                                        | and always: naming, resolv
//!                               Rendered { edits, notes }
//! ```
//!
//! One renderer gets the interfaces. What another one has for network cards is taken away, since the guest's network is
//! what the site's files say; what is no card's (a bridge of containers, a tunnel, the loopback) stays.
//!
//! The guest's `/etc/localtime` is a link that leads out of `/etc` just as `/etc/resolv.conf` does; it says nothing of who
//! the guest is and is never written.

mod claims;
mod comes_up;
pub mod found;
mod ifupdown;
mod keyfile;
mod naming;
mod netplan;
mod networkd;
mod redhat;
mod resolv;
mod shell_lines;
mod suse;
mod wanted;

use std::path::PathBuf;

use crate::identity::edit::Edit;
use crate::identity::wanted::Identity;
use found::{Found, Manager, Renderer};
use wanted::Wanted;

/// Stands in every file that gridgate writes for a network, so that it is known as gridgate's when it is no longer wanted.
const HEADER: &str = "# written by gridgate: what is changed here is lost when the guest is personalised\n";

/// What the guest's network becomes.
#[derive(Debug, Default)]
pub struct Rendered {
    /// All edits.
    pub edits: Vec<Edit>,
    /// What whoever asked for it should know.
    pub notes: Vec<Note>,
}

/// Something that was noticed in a guest, or done in it unasked; for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Note(pub String);

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that gives the guest its network, for the renderer that it really uses. Pure, and the same for the same
/// input: applied twice it changes nothing the second time. An identity that has no interfaces says nothing of them: only
/// its name servers are written.
pub fn render(identity: &Identity, found: &Found) -> Rendered {
    if identity.interfaces.is_empty() {
        let (edits, notes) =
            (resolv::edits(&Wanted::new(identity, &[]), found, &found.renderer()), Vec::new());
        return Rendered { edits, notes };
    }
    let mut notes = Vec::new();
    let renderer = found.renderer();
    let interfaces = naming::fit(&identity.interfaces, found, &renderer);
    let wanted = Wanted::new(identity, &interfaces);
    let mut edits = naming::edits(&wanted, found);
    edits.extend(match &renderer {
        Renderer::Ifupdown => ifupdown::edits(&wanted, found),
        Renderer::RedHat => redhat::edits(&wanted, found),
        Renderer::Suse => suse::edits(&wanted, found),
        Renderer::Keyfile => keyfile::edits(&wanted),
        Renderer::Networkd => networkd::edits(&wanted),
        Renderer::Netplan(manager) => netplan::edits(&wanted, *manager),
    });
    if renderer != Renderer::Ifupdown && found.interfaces_file {
        edits.push(Edit::text(ifupdown::FILE, ifupdown::loopback(found)));
    }
    edits.extend(resolv::edits(&wanted, found, &renderer));
    edits.extend(hands_off(&wanted, found, &renderer, &mut notes));
    edits.extend(come_up(found, &renderer, &mut notes));
    let written: Vec<PathBuf> = edits.iter().map(|edit| edit.path().to_owned()).collect();
    let old = found.claims.iter().filter(|claim| !written.contains(&claim.path));
    edits.extend(old.map(|claim| Edit::remove(&claim.path)));
    Rendered { edits, notes }
}

/// Those that come up beside the one that has the interfaces are told to leave them alone.
fn hands_off(wanted: &Wanted<'_>, found: &Found, renderer: &Renderer, notes: &mut Vec<Note>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for other in found.up.iter().filter(|other| *other != renderer) {
        let taken = found.claims.iter().any(|claim| claim.renderer.same_files(other));
        let then = if taken { "its files for network cards were taken away" } else { "it gets none" };
        notes.push(Note(format!("{other} comes up beside {renderer}, which has the interfaces: {then}")));
    }
    // A card that nobody speaks of gets a connection of NetworkManager's own making (NetworkManager.conf(5),
    // 'no-auto-default'); 'unmanaged-devices' is for everything that is another's.
    let theirs = found.network_manager_up && !renderer.is_network_managers(found);
    if theirs {
        let names: Vec<String> =
            wanted.interfaces.iter().map(|nic| format!("interface-name:{}", nic.name)).collect();
        let text = format!("{HEADER}[keyfile]\nunmanaged-devices={}\n", names.join(";"));
        edits.push(Edit::text(keyfile::UNMANAGED, text));
    } else if found.unmanaged_file {
        edits.push(Edit::remove(keyfile::UNMANAGED));
    }
    if found.cloud_init {
        // https://cloudinit.readthedocs.io/en/latest/reference/network-config.html, "Disabling network configuration".
        edits.push(Edit::text(
            "/etc/cloud/cloud.cfg.d/99-gridgate-network.cfg",
            format!("{HEADER}network: {{config: disabled}}\n"),
        ));
        notes.push(Note("cloud-init is told to leave the network alone".to_owned()));
    }
    edits
}

/// A renderer that would not come up by itself is enabled, or told of where that takes more than a link.
fn come_up(found: &Found, renderer: &Renderer, notes: &mut Vec<Note>) -> Vec<Edit> {
    if found.up.contains(renderer) {
        return Vec::new();
    }
    let unit = match renderer {
        Renderer::Networkd | Renderer::Netplan(Manager::Networkd) => "systemd-networkd.service",
        Renderer::Keyfile | Renderer::Netplan(Manager::NetworkManager) => "NetworkManager.service",
        Renderer::Ifupdown => "networking.service",
        Renderer::RedHat => "network.service",
        Renderer::Suse => "wicked.service",
    };
    match found.units.iter().find(|path| path.ends_with(unit)) {
        Some(path) => {
            notes.push(Note(format!("{renderer} did not come up at boot and was enabled")));
            let link = format!("/etc/systemd/system/multi-user.target.wants/{unit}");
            vec![Edit::link(&link, &path.to_string_lossy())]
        }
        None => {
            let what = format!("nothing here brings a network up at boot; the files are for {renderer}");
            notes.push(Note(what));
            Vec::new()
        }
    }
}

//! The host's own system: an image's filesystem that becomes this machine.

use anyhow::{Context, Result};

use super::boot;
use super::network;
use super::program::Program;
use super::site_files;
use crate::config::site::Site;
use crate::host::root::{FileMode, Root};
use crate::identity::assigned::Assigned;
use crate::identity::edit::Edit;
use crate::identity::personalise::{Plan, Scrubbing};
use crate::identity::wanted::{HostLine, Identity};

/// What the filesystem is told of the machine's other partitions.
#[derive(Debug, Clone)]
pub struct Disks {
    /// UUID of the root filesystem.
    pub root: String,
    /// UUID and kind of the data filesystem.
    pub data: (String, &'static str),
    /// Volume id of the EFI system partition.
    pub esp: String,
}

/// Makes it the machine. `assigned` is what was drawn for it; sshd may want keys of further types, which are drawn then.
pub fn make(
    root: &Root,
    old_uuid: [u8; 16],
    site: &Site,
    program: &Program,
    assigned: &mut Assigned,
    disks: &Disks,
) -> Result<()> {
    let mut identity = identity(site, assigned.clone());
    let plan = Plan::make(root, &mut identity, Some(old_uuid), &Scrubbing::default())?;
    plan.apply(root).context("giving the host its identity")?;
    *assigned = identity.assigned;
    program.install(root)?;
    site_files::copy(root, &site.dir)?;
    let mut edits = network::edits(&site.host, &site.dns, &site.domain);
    let (data_uuid, data_kind) = &disks.data;
    edits.push(Edit::text("/etc/fstab", boot::fstab(&disks.root, (data_uuid, data_kind), &disks.esp)));
    edits.push(Edit::Write {
        path: boot::MENU.into(),
        content: boot::menu(&site.host, &disks.root).into_bytes(),
        mode: FileMode::Exactly(0o644),
        owner: None,
        secret: false,
    });
    for dir in [super::plan::STATE, "/boot/efi"] {
        edits.push(Edit::Dir { path: dir.into(), mode: 0o755 });
    }
    for edit in &edits {
        edit.apply(root).with_context(|| format!("writing '{}'", edit.path().display()))?;
    }
    Ok(())
}

/// Its network is written by [`network`], which knows of bridges; an identity without interfaces leaves it alone.
fn identity(site: &Site, assigned: Assigned) -> Identity {
    let host = &site.host;
    let mut names = vec![host.fqdn.clone()];
    if host.fqdn != host.hostname.as_str() {
        names.push(host.hostname.to_string());
    }
    // Without a fixed address Debian's own: the name is known, whatever the network says.
    let fixed = host.addresses.first().map(ipnet::IpNet::addr);
    let address = fixed.unwrap_or_else(|| std::net::Ipv4Addr::new(127, 0, 1, 1).into());
    let guests = site.guests.iter().map(|guest| {
        let mut names = vec![guest.fqdn.clone()];
        if guest.fqdn != guest.name.as_str() {
            names.push(guest.name.to_string());
        }
        HostLine { address: guest.address, names }
    });
    Identity {
        hostname: host.hostname.to_string(),
        fqdn: host.fqdn.clone(),
        domain: site.domain.clone(),
        hosts: std::iter::once(HostLine { address, names }).chain(guests).collect(),
        interfaces: Vec::new(),
        dns: site.dns.clone(),
        search: vec![site.domain.clone()].into_iter().filter(|domain| !domain.is_empty()).collect(),
        ntp: site.ntp.clone(),
        authorized_keys: site.admin_keys.clone(),
        provided: Vec::new(),
        disk_ids: Vec::new(),
        assigned,
    }
}

//! What is to be made, as one value: everything is looked at and checked here, and nothing is changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::layout::{self, Layout, Needs, Role};
use super::stock::Stock;
use super::table;
use crate::config::host_machine::HostMachine;
use crate::config::site::{BackendChoice, Site};
use crate::host::Host;
use crate::host::disk::Disk;
use crate::host::target;
use crate::identity::keys;
use crate::image::store::{self, Golden};
use crate::names::{Bytes, GuestName, ImageName, SiteName};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The host's own image.
    pub image: ImageName,
    /// A block device, or a file that is made.
    pub to: PathBuf,
    /// The file's length.
    pub size: Option<Bytes>,
    /// Number or name of a partition that is kept.
    pub saved: Option<String>,
}

/// What the machine is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A block device, or a file something of which is kept: it is changed in place.
    InPlace,
    /// A file that gets its name when all of it is there.
    NewFile,
    /// As before, in place of one that has the name now.
    ReplacedFile,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedGuest {
    /// Its name.
    pub name: GuestName,
    /// The golden image that its disk is made from.
    pub image: ImageName,
    /// The disk's length.
    pub disk_bytes: Bytes,
}

/// See the module.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The site.
    pub site: SiteName,
    /// The machine itself.
    pub host: HostMachine,
    /// Its own image.
    pub image: ImageName,
    /// Where it is made.
    pub to: PathBuf,
    /// How.
    pub target: Target,
    /// How the disk is divided.
    pub layout: Layout,
    /// Its guests.
    pub guests: Vec<PlannedGuest>,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
}

/// Programs that this takes, and the packages that they are in.
const PROGRAMS: [(&str, &str); 5] = [
    ("sfdisk", "fdisk"),
    ("mkfs.fat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkfs.xfs", "xfsprogs"),
    ("e2fsck", "e2fsprogs"),
];
/// What a filesystem keeps for itself, and a guest's disk needs of its own at first: names, keys, a journal.
const OVERHEAD: u64 = 128 << 20;
const PER_GUEST: u64 = 48 << 20;
/// Room in the host's filesystem for what an image that is full to the brim does not have: logs, a site, an upgrade's packages.
const SPARE: u64 = 64 << 20;

/// Looks at everything and says what will be done.
pub fn plan(host: &dyn Host, stock: &Stock, site: &Site, request: &Request) -> Result<Plan> {
    let paths = &stock.paths;
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| host.find_program(program).is_none())
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() {
        bail!("programs are missing that make a machine's disk; hint: apt install {}", missing.join(" "));
    }
    if site.guest(&site.host.hostname).is_some() {
        let name = &site.host.hostname;
        bail!(
            "the host and guest '{name}' have the same name; hint: [host] hostname = \"gw\" in the site's file"
        );
    }
    let golden = store::open(host, paths, &request.image)?;
    let mut images: Vec<Golden> = Vec::new();
    for guest in &site.guests {
        if images.iter().all(|image| image.manifest.name != guest.image) {
            images.push(store::open(host, paths, &guest.image)?);
        }
        let image = images.iter().find(|image| image.manifest.name == guest.image);
        let needed = image.map_or(0, |image| image.manifest.disk.size_bytes);
        if guest.disk_bytes.0 < needed {
            bail!(
                "guest '{}': its disk of {} is smaller than image '{}' with {}; hint: a larger 'disk' in its file",
                guest.name,
                guest.disk_bytes,
                guest.image,
                Bytes(needed)
            );
        }
        if guest.backend == BackendChoice::Uml && host.stat(&paths.uml_kernel())?.is_none() {
            bail!(
                "guest '{}' is to run under user-mode Linux, and '{}' is not there to be put on the machine; hint: fetch-uml",
                guest.name,
                paths.uml_kernel().display()
            );
        }
    }
    // Guests share the blocks of their image until they write.
    let data: u64 = images.iter().map(|image| image.manifest.disk.allocated_bytes).sum();
    let data = data + OVERHEAD + PER_GUEST * site.guests.len() as u64;

    let saved = request.saved.as_deref().map(|wanted| table::find(host, &request.to, wanted)).transpose()?;
    let (target, size) = target(request)?;
    let needs = Needs { root: golden.manifest.disk.size_bytes + stock.program.bytes()? + SPARE, data, saved };
    let layout = layout::plan(size, &needs, &mut || Ok(version_4(keys::random()?)))
        .with_context(|| format!("dividing '{}'", request.to.display()))?;
    // A link is not replaced, but the file that it leads to.
    let to = match target {
        Target::ReplacedFile => request.to.canonicalize().unwrap_or_else(|_| request.to.clone()),
        Target::NewFile | Target::InPlace => request.to.clone(),
    };
    let guests = site.guests.iter().map(|guest| PlannedGuest {
        name: guest.name.clone(),
        image: guest.image.clone(),
        disk_bytes: guest.disk_bytes,
    });
    let mut plan = Plan {
        site: site.name.clone(),
        host: site.host.clone(),
        image: request.image.clone(),
        to,
        target,
        layout,
        guests: guests.collect(),
        notes: Vec::new(),
    };
    plan.notes = notes(&plan, site)?;
    Ok(plan)
}

/// What the target is, and how long; refused if somebody uses it. Nothing of the site is needed to tell.
pub fn target(request: &Request) -> Result<(Target, u64)> {
    let to = &request.to;
    let shown = to.display();
    match (target::Target::at(to)?, request.size) {
        (target::Target::Directory { .. }, _) => {
            bail!("'{shown}' is a directory; hint: name a file or a device")
        }
        (target::Target::Device { .. }, Some(_)) => {
            bail!("'{shown}' is a device and has the size that it has; hint: leave --size away")
        }
        // Opened as it will be, so that a device that is in use is refused here already.
        (target::Target::Device { .. }, None) => Ok((Target::InPlace, Disk::open(to)?.len())),
        (target::Target::File { len }, None) if request.saved.is_some() => {
            target::unused_file(to)?;
            Ok((Target::InPlace, len))
        }
        (target::Target::File { .. }, Some(_)) if request.saved.is_some() => {
            bail!("'{shown}' keeps its size if something in it is kept; hint: leave --size away")
        }
        (target::Target::File { len }, size) => {
            target::unused_file(to)?;
            Ok((Target::ReplacedFile, size.map_or(len, |size| size.0)))
        }
        (target::Target::Nothing, Some(size)) => Ok((Target::NewFile, size.0)),
        (target::Target::Nothing, None) => {
            bail!("'{shown}' is not there; hint: --size 6G makes a file of that size")
        }
    }
}

fn notes(plan: &Plan, site: &Site) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if site.admin_keys.is_empty() {
        let what = "nobody can log in to the host over the network: the site has no 'admin_keys'";
        notes.push(what.to_owned());
    }
    if !plan.host.knows_card() {
        notes.push("[host] names no card: every card of the machine asks for an address (DHCP)".to_owned());
    }
    let data = plan.layout.of(Role::Data)?.size_bytes;
    let asked: u64 = plan.guests.iter().map(|guest| guest.disk_bytes.0).sum();
    if asked > data {
        notes.push(format!(
            "the guests' disks may grow to {}, the data partition has {}",
            Bytes(asked),
            Bytes(data)
        ));
    }
    Ok(notes)
}

/// A random UUID (RFC 9562, version 4).
pub fn version_4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

impl Plan {
    /// What is done, in order, for people.
    pub fn steps(&self) -> Vec<String> {
        let to = self.to.display();
        let mut steps = Vec::new();
        match self.target {
            Target::InPlace => {
                let kept: Vec<&layout::Partition> =
                    self.layout.partitions.iter().filter(|p| p.kept).collect();
                match kept.first() {
                    None => steps.push(format!("take away all that '{to}' holds")),
                    Some(kept) => steps.push(format!(
                        "take away all that '{to}' holds but partition {} ({})",
                        kept.number, kept.name
                    )),
                }
            }
            Target::NewFile => steps.push(format!("make a file of {}", Bytes(self.layout.size_bytes))),
            Target::ReplacedFile => {
                let size = Bytes(self.layout.size_bytes);
                steps.push(format!("make a file of {size}, which replaces '{to}' when all is done"));
            }
        }
        for partition in &self.layout.partitions {
            let what = match (partition.role, partition.kept) {
                (_, true) => "kept with its content".to_owned(),
                (Role::Bios, _) => "GRUB, for BIOS".to_owned(),
                (Role::Esp, _) => "EFI system partition: shim and GRUB, for UEFI".to_owned(),
                (Role::Root, _) => format!("image '{}' as {}", self.image, self.host.fqdn),
                (Role::Data | Role::Kept, _) => "/var/lib/gridgate".to_owned(),
            };
            let (number, name, size) = (partition.number, &partition.name, Bytes(partition.size_bytes));
            steps.push(format!("partition {number}: {name:<14} {size:>6}  {what}"));
        }
        for guest in &self.guests {
            let (name, size, image) = (&guest.name, guest.disk_bytes, &guest.image);
            steps.push(format!(
                "guest {name}: a disk of {size} from image '{image}', its identity and profile"
            ));
        }
        steps.push("write the partition table".to_owned());
        steps
    }
}

/// Where the machine itself has its state.
pub const STATE: &str = "/var/lib/gridgate";

/// As [`STATE`], on the machine; for what has the path built in.
pub fn uml_on_machine() -> PathBuf {
    Path::new(STATE).join("kernels/uml")
}

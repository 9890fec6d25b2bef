//! The arguments of `gridgate personalise`, and the identity that they describe.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, Args as ClapArgs};
use ipnet::IpNet;

use crate::cli::{Ending, Exit};
use crate::config::interface::{Automatic, Interface, first_name};
use crate::host::lvm::VolumeName;
use crate::identity::assigned::Assigned;
use crate::identity::known::Class;
use crate::identity::personalise::Scrubbing;
use crate::identity::wanted::{HostLine, Identity};
use crate::names::{GuestName, ImageName, MacAddr};

const WHAT: &str = "What to write into";
const WHO: &str = "Whose identity";
const OLD: &str = "What is there of an old machine";

/// Write an identity into a disk, image or tree
///
/// Everything that makes one installed system differ from its copies is set at once: names, addresses, host keys, ids and the
/// filesystem's UUID. What is drawn for a machine is kept, so that it is the same the next time; a second run changes
/// nothing. The guest that uses the disk must not run.
///
/// `personalise ui --as wn` turns the disk of guest ui into that of guest wn, which must have none yet.
#[derive(Debug, Clone, ClapArgs)]
#[command(group = ArgGroup::new("target").required(true).args(["guest", "disk", "tree", "image"]))]
#[command(group = ArgGroup::new("part").args(["partition", "volume"]))]
pub struct Args {
    /// A guest of the site: its own disk
    #[arg(value_name = "GUEST")]
    pub guest: Option<GuestName>,
    /// A disk image or block device
    #[arg(long, value_name = "FILE", help_heading = WHAT)]
    pub disk: Option<PathBuf>,
    /// The partition of the disk with the root filesystem
    #[arg(long, value_name = "N", requires = "disk", help_heading = WHAT)]
    pub partition: Option<u32>,
    /// The logical volume of the disk with the root filesystem, where it is one of LVM
    #[arg(long, value_name = "GROUP/VOLUME", requires = "disk", help_heading = WHAT)]
    pub volume: Option<VolumeName>,
    /// Edit the disk without mounting it: ext4 alone; this is how it is done where the user is not root
    #[arg(long, conflicts_with_all = ["tree", "guest"], help_heading = WHAT)]
    pub offline: bool,
    /// A directory with a root filesystem's files
    #[arg(long, value_name = "DIR", help_heading = WHAT)]
    pub tree: Option<PathBuf>,
    /// A golden image, which can only be looked at: --diff, --audit
    #[arg(long, value_name = "NAME", help_heading = WHAT)]
    pub image: Option<ImageName>,
    /// Make it this guest of the site
    #[arg(long = "as", value_name = "GUEST", conflicts_with = "hostname", help_heading = WHO)]
    pub as_guest: Option<GuestName>,
    /// First label of its name; for a machine that is no guest of the site
    #[arg(long, value_name = "NAME", conflicts_with = "guest", help_heading = WHO)]
    pub hostname: Option<GuestName>,
    /// Its domain
    #[arg(long, value_name = "DOMAIN", requires = "hostname", help_heading = WHO)]
    pub domain: Option<String>,
    /// Its address with the length of the prefix; again for further ones
    #[arg(long, value_name = "ADDRESS/LENGTH", requires = "hostname", help_heading = WHO)]
    pub address: Vec<IpNet>,
    /// Its default gateway; again for the other family
    #[arg(long, value_name = "ADDRESS", requires = "hostname", help_heading = WHO)]
    pub gateway: Vec<IpAddr>,
    /// Hardware address of its interface, which it is known by
    #[arg(long, value_name = "MAC", requires = "hostname", help_heading = WHO)]
    pub mac: Option<MacAddr>,
    /// A name server; again for further ones
    #[arg(long, value_name = "ADDRESS", requires = "hostname", help_heading = WHO)]
    pub dns: Vec<IpAddr>,
    /// A time server; again for further ones
    #[arg(long, value_name = "SERVER", requires = "hostname", help_heading = WHO)]
    pub ntp: Vec<String>,
    /// Keep the machine-id and the host keys that are in the filesystem, from now on
    #[arg(long, conflicts_with = "new_identity", help_heading = WHO)]
    pub keep_identity: bool,
    /// Draw a new machine-id, new host keys and a new UUID
    #[arg(long, help_heading = WHO)]
    pub new_identity: bool,
    /// Leave the ids of the partition table, of LVM and of the disk's other partitions and volumes
    #[arg(long, requires = "part", help_heading = WHO)]
    pub keep_disk_ids: bool,
    /// Show what would change, file by file, and change nothing; exit 3 if anything would
    #[arg(long)]
    pub diff: bool,
    /// Look for what is left of an old identity, in known places and in every file; exit 3 if anything is
    #[arg(long, conflicts_with = "diff", help_heading = OLD)]
    pub audit: bool,
    /// Whose identity to look for: a guest of the site, or a file (JSON); again for further ones
    #[arg(long, value_name = "GUEST|FILE", help_heading = OLD)]
    pub old: Vec<String>,
    /// Erase instead of assign: make a golden image out of a used disk
    #[arg(long, conflicts_with_all = ["audit", "as_guest", "hostname", "new_identity", "keep_identity"], help_heading = OLD)]
    pub seal: bool,
    /// Let what belongs to a class stay: logs, caches, history, users, services and so on
    #[arg(long, value_name = "CLASS", help_heading = OLD)]
    pub keep: Vec<Class>,
    /// Let what belongs to a class go, although it would stay
    #[arg(long, value_name = "CLASS", help_heading = OLD)]
    pub scrub: Vec<Class>,
}

impl Args {
    /// What goes of an old machine, where it is not as usual.
    pub fn scrubbing(&self) -> Scrubbing {
        Scrubbing { keep: self.keep.clone(), scrub: self.scrub.clone(), extra: Vec::new() }
    }

    /// The identity that the options describe; what is drawn for it is not in it yet.
    pub fn described(&self, hostname: &GuestName) -> Result<Identity> {
        let hostname = hostname.as_str().to_owned();
        let domain = self.domain.clone().unwrap_or_default();
        if domain.split('.').any(|label| !domain.is_empty() && label.parse::<GuestName>().is_err()) {
            let message = format!("'{domain}' is no domain\nhint: for example --domain example.org");
            return Err(Ending::error(Exit::Usage, message));
        }
        let fqdn = if domain.is_empty() { hostname.clone() } else { format!("{hostname}.{domain}") };
        let mut names = vec![fqdn.clone()];
        if !domain.is_empty() {
            names.push(hostname.clone());
        }
        let line = |net: &IpNet| HostLine { address: net.addr(), names: names.clone() };
        Ok(Identity {
            hosts: self.address.first().map(line).into_iter().collect(),
            interfaces: self.interface()?.into_iter().collect(),
            dns: self.dns.clone(),
            search: Some(domain.clone()).into_iter().filter(|domain| !domain.is_empty()).collect(),
            ntp: self.ntp.clone(),
            authorized_keys: Vec::new(),
            provided: Vec::new(),
            disk_ids: Vec::new(),
            assigned: Assigned::draw(&hostname)?,
            hostname,
            fqdn,
            domain,
        })
    }

    fn interface(&self) -> Result<Option<Interface>> {
        let Some(mac) = self.mac else {
            if self.address.is_empty() {
                return Ok(None);
            }
            let message =
                "an address needs an interface to be on\nhint: --mac says which one, by its hardware address";
            return Err(Ending::error(Exit::Usage, message));
        };
        Ok(Some(Interface {
            addresses: self.address.clone(),
            gateways: self.gateway.clone(),
            automatic: Automatic { ipv4: self.address.is_empty(), ipv6: self.address.is_empty() },
            ..Interface::card(first_name(), Some(mac))
        }))
    }
}

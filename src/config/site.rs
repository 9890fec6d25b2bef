//! A site, valid by construction: every value resolved, every reference checked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::host_machine::HostMachine;
use super::interface::{FIRST_INTERFACE, Interface, InterfaceKind};
use super::limits::Limits;
use super::provided::Provided;
use super::supervision::Supervision;
use super::variables::{Feature, Variables};
use crate::names::{Bytes, GuestName, IfName, ImageName, MacAddr, NetworkName, SiteName};

/// One gateway's whole description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Site {
    /// Short name of the site.
    pub name: SiteName,
    /// What it is, for people.
    pub description: String,
    /// DNS domain that guests' names are completed with.
    pub domain: String,
    /// Name servers of the guests; empty: they resolve from their hosts file alone.
    pub dns: Vec<IpAddr>,
    /// Time servers, names or addresses.
    pub ntp: Vec<String>,
    /// Public keys (lines of authorized_keys) that may log in as root on every guest.
    pub admin_keys: Vec<String>,
    /// The group that may read consoles' logs; `adm`, where there is one, if the site says nothing.
    pub admin_group: Option<String>,
    /// What all guests' profiles are told.
    pub variables: Variables,
    /// The machine that runs the guests.
    pub host: HostMachine,
    /// In the order of the site file.
    pub networks: Vec<Network>,
    /// In the order of the site file's list; else sorted by name.
    pub guests: Vec<Guest>,
    /// Where the site's files are.
    #[serde(skip)]
    pub dir: PathBuf,
}

impl Site {
    /// A site that names neither guests nor networks: all that is kept in a state directory is then something that the
    /// site does not know, which can be shown and taken down. For when a site's own files cannot be used.
    pub fn of_nothing(dir: PathBuf) -> Self {
        #[expect(clippy::expect_used, reason = "the text is right here")]
        let name = "unreadable".parse().expect("it is a label");
        #[expect(clippy::expect_used, reason = "the text is right here")]
        let hostname = "unreadable".parse().expect("it is a label");
        let (description, domain) = (String::new(), String::new());
        let (dns, ntp, admin_keys) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            name,
            description,
            domain,
            dns,
            ntp,
            admin_keys,
            admin_group: None,
            variables: Variables::new(),
            host: HostMachine::undescribed(hostname, ""),
            networks: Vec::new(),
            guests: Vec::new(),
            dir,
        }
    }

    /// The guest of that name.
    pub fn guest(&self, name: &GuestName) -> Option<&Guest> {
        self.guests.iter().find(|g| g.name == *name)
    }

    /// The network of that name.
    pub fn network(&self, name: &NetworkName) -> Option<&Network> {
        self.networks.iter().find(|n| n.name == *name)
    }

    /// Whether the whole site lives in a network namespace of its own; checking has made sure that either all networks
    /// are rehearsed or none.
    pub fn rehearsed(&self) -> bool {
        self.networks.iter().any(|n| n.mode == NetworkMode::Rehearsal)
    }
}

/// A network that guests are on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// Name in the site's files.
    pub name: NetworkName,
    /// What it is joined to.
    pub mode: NetworkMode,
    /// The bridge on the host (or in the site's namespace).
    pub bridge: IfName,
    /// The interface that joins a `bridge` network to the world; none if the bridge is the administrator's own.
    pub uplink: Option<IfName>,
    /// The network's addresses.
    pub subnet: IpNet,
    /// The guests' default gateway. In `nat` and `rehearsal` mode the host's bridge has this address.
    pub gateway: Option<IpAddr>,
}

/// What a network is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A bridge with an uplink: guests are on the host's own network.
    Bridge,
    /// A bridge behind address translation (nftables).
    Nat,
    /// A bridge with nothing else.
    Isolated,
    /// A bridge in a network namespace that holds the whole site with its real addresses.
    Rehearsal,
}

/// One virtual machine or container of the site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guest {
    /// Name in the site's files, its host name's first label and its unit's instance.
    pub name: GuestName,
    /// `ce`, `se`, `ui`, `wn`, `install`, or a site's own.
    pub role: String,
    /// What it is, for people.
    pub description: String,
    /// What runs it.
    pub backend: BackendChoice,
    /// Golden image that its disk is cloned from.
    pub image: ImageName,
    /// Node profile.
    pub profile: String,
    /// Size of main memory.
    pub memory_bytes: Bytes,
    /// Virtual processors.
    pub cpus: u32,
    /// Size of the disk.
    pub disk_bytes: Bytes,
    /// First label and domain, such as `ce.example.org`.
    pub fqdn: String,
    /// The network that it is on.
    pub network: NetworkName,
    /// Its address on that network.
    pub address: IpAddr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Its default gateway.
    pub gateway: Option<IpAddr>,
    /// Hardware address of its interface.
    pub mac: MacAddr,
    /// All its interfaces, the first one first, which the four before are of.
    pub interfaces: Vec<Interface>,
    /// Domains that names are completed with.
    pub search: Vec<String>,
    /// Guests that, if they are started too, must be ready before this one is started.
    pub after: Vec<GuestName>,
    /// As `after`, and they are started with this one.
    pub needs: Vec<GuestName>,
    /// What must be seen before the guest counts as ready; all of them.
    pub ready: Vec<ReadyCheck>,
    /// How long that may take before the guest counts as degraded. It is never killed for it.
    #[serde(rename = "ready_timeout_ms", serialize_with = "milliseconds")]
    pub ready_timeout: Duration,
    /// How long a polite stop may take before the hard one.
    #[serde(rename = "stop_timeout_ms", serialize_with = "milliseconds")]
    pub stop_timeout: Duration,
    /// Whether it comes up with the host and with `up` without names.
    pub autostart: bool,
    /// Bound of its console logs, all boots together.
    pub console_log_bytes: Bytes,
    /// Whether what is typed on its console is kept, and not only who typed and how much.
    pub console_record: bool,
    /// Patterns (regular expressions) of lines on its console that become events.
    pub console_watch: Vec<String>,
    /// Further words for the guest kernel's command line.
    pub kernel_args: String,
    /// How it is looked after.
    #[serde(flatten)]
    pub supervision: Supervision,
    /// How much of the host it may use.
    pub limits: Limits,
    /// Keys and certificates that the site has for it.
    #[serde(rename = "keys")]
    pub provided: Vec<Provided>,
    /// What its profile is told.
    pub variables: Variables,
    /// Features that it has beside those of its profile.
    pub features: Vec<Feature>,
}

impl Guest {
    /// Cards beside the first one, which whoever runs the guest must plug in, too.
    pub fn further_cards(&self) -> Vec<&Interface> {
        let cards = self.interfaces.iter().filter(|nic| nic.kind == InterfaceKind::Ethernet);
        cards.filter(|nic| nic.name.as_str() != FIRST_INTERFACE).collect()
    }
}

fn milliseconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// What a guest asks to be run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// The best that works here: QEMU where KVM really works, else user-mode Linux, else QEMU without KVM.
    Auto,
    /// QEMU, with KVM if it really works.
    Qemu,
    /// User-mode Linux.
    Uml,
    /// systemd-nspawn.
    Nspawn,
}

impl BackendChoice {
    /// As in the site's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Qemu => "qemu",
            Self::Uml => "uml",
            Self::Nspawn => "nspawn",
        }
    }
}

/// One sign of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyCheck {
    /// A login prompt on the console.
    Login,
    /// A regular expression that matches a line of the console (or an unfinished last line).
    Console(String),
    /// The guest accepts connections on this TCP port.
    Tcp(u16),
    /// What answers on this TCP port says that it is an SSH server (RFC 4253, section 4.2).
    Ssh(u16),
    /// The guest says so itself: its systemd (nspawn's `NOTIFY_SOCKET`; QEMU's `vmm.notify_socket` credential where the host
    /// has vsock), or whoever writes to `/proc/mconsole` under user-mode Linux.
    Notify,
    /// The QEMU guest agent answers.
    Agent,
    /// All check commands of the guest's profile succeed in the guest.
    Checks,
    /// This command ends with status 0 on the host, in the site's network, with `$GUEST` and `$ADDRESS` set.
    Command(String),
    /// The guest says that it lives (as in [`ReadyCheck::Notify`]) at least every so many seconds; if it stops doing so it
    /// is degraded until it does again.
    Heartbeat(u32),
}

/// As in the site's files.
impl std::fmt::Display for ReadyCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Login => f.write_str("login"),
            Self::Console(pattern) => write!(f, "console:{pattern}"),
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Ssh(port) => write!(f, "ssh:{port}"),
            Self::Notify => f.write_str("notify"),
            Self::Agent => f.write_str("agent"),
            Self::Checks => f.write_str("checks"),
            Self::Command(line) => write!(f, "command '{line}'"),
            Self::Heartbeat(seconds) => write!(f, "heartbeat:{seconds}"),
        }
    }
}

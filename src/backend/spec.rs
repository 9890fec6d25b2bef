//! All that is needed to start a guest, decided beforehand: a start needs neither the site's files nor a choice, so that
//! a box comes up even if its files were broken meanwhile.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::interface::first_name;
use crate::config::limits::Limits;
use crate::config::site::ReadyCheck;
use crate::config::supervision::Supervision;
use crate::host::Host;
use crate::names::{Bytes, GuestName, IfName, MacAddr, NicName};
use crate::paths::Paths;

/// What runs the guest, chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Engine {
    /// User-mode Linux.
    Uml {
        /// The kernel, an ordinary program.
        kernel: PathBuf,
    },
    /// QEMU.
    Qemu {
        /// Whether the processor runs the guest itself; otherwise it is emulated (TCG).
        kvm: bool,
        /// Kernel of the golden image.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: PathBuf,
    },
    /// systemd-nspawn.
    Nspawn,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uml { .. } => "user-mode Linux",
            Self::Qemu { kvm: true, .. } => "QEMU (KVM)",
            Self::Qemu { kvm: false, .. } => "QEMU (emulated)",
            Self::Nspawn => "systemd-nspawn",
        })
    }
}

/// A network card of a guest, and where its cable goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What it is called inside the guest.
    pub name: NicName,
    /// Its hardware address.
    pub mac: MacAddr,
    /// The bridge that it is plugged into.
    pub bridge: IfName,
    /// The host's end of its network cable.
    pub tap: IfName,
}

/// A guest has no more cards than this.
pub const MOST_CARDS: usize = 8;

/// What a guest is started with; `guests/NAME/spec.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Format of the file.
    pub version: u32,
    /// The guest.
    pub guest: GuestName,
    /// What runs it.
    pub engine: Engine,
    /// Main memory.
    pub memory_bytes: Bytes,
    /// Virtual processors.
    pub cpus: u32,
    /// Its disk.
    pub disk: PathBuf,
    /// Hardware address of its interface.
    pub mac: MacAddr,
    /// Its address, for readiness checks.
    pub address: IpAddr,
    /// The bridge that it is plugged into.
    pub bridge: IfName,
    /// The host's end of its network cable.
    pub tap: IfName,
    /// Its cards beside the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Card>,
    /// The namespace that the bridge is in; the host's own if none.
    pub netns: Option<PathBuf>,
    /// Further words for the kernel's command line.
    pub kernel_args: String,
    /// What must be seen before it counts as ready.
    pub ready: Vec<ReadyCheck>,
    /// Milliseconds until it counts as degraded.
    pub ready_timeout_ms: u64,
    /// Milliseconds for a polite stop.
    pub stop_timeout_ms: u64,
    /// Bound of its console logs.
    pub console_log_bytes: Bytes,
    /// Whether what is typed on its console is kept.
    #[serde(default)]
    pub console_record: bool,
    /// The group that may read its console's logs.
    #[serde(default)]
    pub admin_group: Option<String>,
    /// Guests that it waits for.
    #[serde(default)]
    pub waits_for: Vec<GuestName>,
    /// Patterns of lines on its console that become events.
    #[serde(default)]
    pub console_watch: Vec<String>,
    /// How it is looked after.
    #[serde(default)]
    pub supervision: Supervision,
    /// How much of the host it may use, as the site's files have it; what `gridgate limit` keeps wins over it.
    #[serde(default)]
    pub limits: Limits,
}

/// Format that this gridgate writes.
pub const VERSION: u32 = 1;

impl Spec {
    /// What the guest would be started with; `None` if it was never brought up.
    pub fn read(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Option<Self>> {
        let path = paths.spec(guest);
        let Some(bytes) = host.read(&path)? else { return Ok(None) };
        let what = || format!("reading '{}'", path.display());
        let spec: Self = serde_json::from_slice(&bytes).with_context(what)?;
        if spec.version != VERSION {
            anyhow::bail!("{}: it has format {}, this gridgate knows {VERSION}", what(), spec.version);
        }
        Ok(Some(spec))
    }

    /// All its cards, the first one first.
    pub fn cards(&self) -> Vec<Card> {
        let (bridge, tap) = (self.bridge.clone(), self.tap.clone());
        let first = Card { name: first_name(), mac: self.mac, bridge, tap };
        std::iter::once(first).chain(self.further.iter().cloned()).collect()
    }

    /// Keeps it for the next start.
    pub fn write(&self, host: &dyn Host, paths: &Paths) -> Result<()> {
        host.write(&paths.spec(&self.guest), &serde_json::to_vec_pretty(self)?, 0o644)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(engine: Engine) -> Spec {
        Spec {
            version: VERSION,
            guest: "ce".parse().unwrap(),
            engine,
            memory_bytes: Bytes(256 << 20),
            cpus: 1,
            disk: "/s/disk".into(),
            mac: "52:54:00:00:00:10".parse().unwrap(),
            address: "10.77.0.10".parse().unwrap(),
            bridge: "gg0".parse().unwrap(),
            tap: "gg-ce".parse().unwrap(),
            further: Vec::new(),
            netns: None,
            kernel_args: String::new(),
            ready: vec![ReadyCheck::Login],
            ready_timeout_ms: 60_000,
            stop_timeout_ms: 30_000,
            console_log_bytes: Bytes(1 << 20),
            console_record: false,
            admin_group: None,
            waits_for: Vec::new(),
            console_watch: Vec::new(),
            supervision: Supervision::default(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn storage() -> Card {
        Card {
            name: "storage".parse().unwrap(),
            mac: "52:54:00:00:01:10".parse().unwrap(),
            bridge: "gg1".parse().unwrap(),
            tap: "gg-ce_storage".parse().unwrap(),
        }
    }

    #[test]
    fn a_spec_survives_being_written_and_read() {
        let before = Spec { further: vec![storage()], ..spec(Engine::Uml { kernel: "/k".into() }) };
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), before);
    }
}

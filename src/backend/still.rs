//! Holding a running guest still for as long as its disk is copied.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::spec::Engine;
use super::{OWN, Target, mconsole, qmp, uml};
use crate::console::ready;
use crate::host::freeze::Mounted;

/// How a guest is held still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Its agent holds the writers of its filesystems.
    Agent,
    /// The host's kernel, which is the guest's too, holds the writers of its filesystem.
    Filesystem,
    /// Its processors stand still.
    Machine,
}

impl Way {
    /// Whether the filesystem on the disk is clean then. Otherwise it is as after a power cut, and its journal makes it whole.
    pub fn is_clean(self) -> bool {
        self != Self::Machine
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Agent => "its agent held its writers",
            Self::Filesystem => "its writers were held",
            Self::Machine => "it stood still",
        })
    }
}

/// A grip on a running guest. It stays good when the process that runs the guest has ended.
#[derive(Debug)]
pub struct Grip(Kind);

#[derive(Debug)]
enum Kind {
    Uml { mconsole: PathBuf },
    Qemu { qmp: PathBuf, agent: PathBuf },
    Nspawn(Mounted),
}

/// For one answer of a hypervisor.
const PATIENCE: Duration = Duration::from_secs(10);
/// An agent that is there answers in milliseconds.
const AGENT_PATIENCE: Duration = Duration::from_millis(500);
/// The guest writes all that is dirty before its writers are held.
const FREEZE_PATIENCE: Duration = Duration::from_secs(8);

impl Grip {
    /// Takes hold of nothing yet. `tree` is where the guest's disk is mounted, for a backend that has it so.
    pub fn on(target: &Target<'_>, tree: PathBuf) -> Result<Self> {
        Ok(Self(match target.spec.engine {
            Engine::Uml { .. } => Kind::Uml { mconsole: uml::socket(target.spec, target.run_dir) },
            Engine::Qemu { .. } => Kind::Qemu {
                qmp: target.run_dir.join(OWN).join("qmp.sock"),
                agent: target.run_dir.join(OWN).join("agent.sock"),
            },
            Engine::Nspawn => Kind::Nspawn(Mounted::of(target.pid, &tree, &target.spec.disk)?),
        }))
    }

    /// The ways that there are now, the best first. A machine that stands still already is an error.
    pub fn ways(&self) -> Result<Vec<Way>> {
        match &self.0 {
            Kind::Uml { .. } => Ok(vec![Way::Machine]),
            Kind::Nspawn(_) => Ok(vec![Way::Filesystem]),
            Kind::Qemu { qmp, agent } => {
                let mut client = qmp::Client::connect(qmp, PATIENCE)?;
                let status = client.execute("query-status", &json!({}))?;
                if status["running"] != true {
                    bail!(
                        "it does not run: QEMU says that it is '{}'",
                        status["status"].as_str().unwrap_or("?")
                    );
                }
                drop(client);
                let hears = ready::call_agent(agent, "guest-ping", AGENT_PATIENCE).is_ok();
                Ok(if hears { vec![Way::Agent, Way::Machine] } else { vec![Way::Machine] })
            }
        }
    }

    /// Has the guest write out what is dirty, as far as it can be told to, so that there is little to write later.
    pub fn write_out(&self) -> Result<()> {
        match &self.0 {
            Kind::Uml { mconsole } => mconsole::call(mconsole, "sysrq s").map(drop),
            Kind::Nspawn(mounted) => mounted.sync(),
            // Holding it does.
            Kind::Qemu { .. } => Ok(()),
        }
    }

    /// Holds the guest. After an error it may be held all the same, now or a moment later.
    pub fn hold(&self, way: Way) -> Result<()> {
        match (&self.0, way) {
            (Kind::Uml { mconsole }, _) => mconsole::call(mconsole, "stop").map(drop),
            (Kind::Nspawn(mounted), _) => mounted.freeze(),
            (Kind::Qemu { agent, .. }, Way::Agent) => {
                let held = ready::call_agent(agent, "guest-fsfreeze-freeze", FREEZE_PATIENCE)?;
                match held.as_u64() {
                    Some(0) | None => bail!("its agent holds no filesystem"),
                    Some(_) => Ok(()),
                }
            }
            (Kind::Qemu { qmp, .. }, _) => qmp::call_with(qmp, "stop", &json!({})),
        }
    }

    /// Lets it go on. Not held is fine.
    pub fn release(&self, way: Way) -> Result<()> {
        match (&self.0, way) {
            // One that runs says that it does not know the word.
            (Kind::Uml { mconsole }, _) => mconsole::tell(mconsole, "go"),
            (Kind::Nspawn(mounted), _) => mounted.thaw(),
            (Kind::Qemu { agent, .. }, Way::Agent) => {
                ready::call_agent(agent, "guest-fsfreeze-thaw", FREEZE_PATIENCE).map(drop)
            }
            (Kind::Qemu { qmp, .. }, _) => qmp::call_with(qmp, "cont", &json!({})),
        }
        .context("letting it go on")
    }
}

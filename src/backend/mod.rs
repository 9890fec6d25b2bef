//! What runs a guest: a hypervisor's command line out of a [`spec::Spec`], and how that hypervisor is asked to stop.
//!
//! A backend is small on purpose: disks, networks, consoles and supervision are the same for all of them, so that one
//! disk boots in each.

pub mod spec;
pub mod mconsole;
pub mod qmp;
pub mod uml;
pub mod qemu;
pub mod nspawn;
pub mod line;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::host::programs::Program;
use spec::{Engine, Spec};

/// How a guest is plugged into its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// A tap that the hypervisor opens as a file descriptor.
    Tap(RawFd),
    /// A network namespace that already has the guest's interface in it.
    Namespace(RawFd),
}

/// Which plug a backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlugKind {
    /// See [`Plug::Tap`].
    Tap,
    /// See [`Plug::Namespace`].
    Namespace,
}

/// The hypervisor's part of what belongs to a running guest: its sockets. It has a user of its own, who can do here what he
/// likes; all that is trusted lies beside it. The name is short because sockets' paths have to be (unix(7)).
pub const OWN: &str = "hv";

/// What the launcher has laid out for the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wires {
    /// Its network.
    pub plug: Plug,
    /// What belongs to the running guest; [`OWN`] in it is the hypervisor's.
    pub run_dir: PathBuf,
    /// Where the guest's root filesystem is mounted, for a backend that wants it so.
    pub tree: Option<PathBuf>,
}

/// What all backends can do.
pub trait Backend: Send + Sync {
    /// As it is spelt in a site's files.
    fn name(&self) -> &'static str;
    /// What its network is plugged into.
    fn plug(&self) -> PlugKind;
    /// Whether it wants the disk mounted as a tree instead of as a file.
    fn wants_tree(&self) -> bool {
        false
    }
    /// The program whose process is the guest. Its standard input and output are the console.
    fn program(&self, spec: &Spec, wires: &Wires) -> Program;
    /// Asks the guest to shut itself down; returns at once. A guest in early boot may not hear it, so it is asked again.
    fn ask_to_stop(&self, spec: &Spec, run_dir: &Path, pid: i32) -> Result<()>;
    /// Exit status by which the process says that the guest wants to be started again, if it has one.
    fn reboot_status(&self) -> Option<i32> {
        None
    }
}

/// The backend of an engine.
pub fn backend(engine: &Engine) -> &'static dyn Backend {
    match engine {
        Engine::Uml { .. } => &uml::Uml,
        Engine::Qemu { .. } => &qemu::Qemu,
        Engine::Nspawn => &nspawn::Nspawn,
    }
}

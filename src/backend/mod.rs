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
pub mod still;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::console::heard::vsock::Vsock;
use crate::host::programs::Program;
pub use crate::paths::OWN;
use spec::{Engine, Spec};

/// How a guest is plugged into its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plug {
    /// A tap for each of its cards, which the hypervisor has as a file descriptor.
    Taps(Vec<RawFd>),
    /// A network namespace that already has the guest's interfaces in it.
    Namespace(RawFd),
}

/// Which plug a backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlugKind {
    /// See [`Plug::Taps`].
    Taps,
    /// See [`Plug::Namespace`].
    Namespace,
}

/// What the launcher has laid out for the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wires {
    /// Its network.
    pub plug: Plug,
    /// What belongs to the running guest; [`OWN`] in it is the hypervisor's.
    pub run_dir: PathBuf,
    /// Where the guest's root filesystem is mounted, for a backend that wants it so.
    pub tree: Option<PathBuf>,
    /// How a whole machine says how it is, if it is to and this host can hear it.
    pub vsock: Option<Vsock>,
}

/// What a guest, or what runs it, can be told on the way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The guest is to shut itself down. One in early boot may not hear it, so that it is asked again.
    Ask,
    /// The same, by its agent.
    Agent,
    /// Its kernel is to write its filesystems back.
    Sync,
    /// Its kernel is to mount them read-only.
    Remount,
    /// The hypervisor is to end.
    Quit,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was handed over.
    Yes,
    /// Nobody is there to take it: this backend knows nothing like it, or the guest has nobody for it.
    Nobody,
}

/// A running guest, and how long it may take to hand an order over.
#[derive(Debug)]
pub struct Target<'a> {
    /// What it was started with.
    pub spec: &'a Spec,
    /// Where its sockets are.
    pub run_dir: &'a Path,
    /// Its process.
    pub pid: i32,
    /// For the handing over.
    pub patience: Duration,
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
    /// Gives the guest or its hypervisor an order, without waiting for what comes of it. An error is one of handing it
    /// over: the guest is not up far enough, hangs, or has gone.
    fn order(&self, order: Order, target: &Target<'_>) -> Result<Taken>;
    /// Whether [`Order::Ask`] is to be given only once: the second would mean something else.
    fn asks_once(&self) -> bool {
        false
    }
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

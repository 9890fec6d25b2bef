//! What is to be done, from what is wanted and what is there; pure.
//!
//! A plan is a list of steps, each with the steps that must be done before it, so that what is independent can go on side
//! by side. It leaves no choice for later: printing it is the dry run.

pub mod down;
pub mod network;
pub mod order;
pub mod spec;
pub mod up;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::spec::Spec;
use crate::names::{Bytes, GuestName, ImageName};
use crate::plan::network::{NetProblem, NetStep};

/// What is to be done, in an order that respects every step's prerequisites.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The steps; prerequisites are indices of earlier ones.
    pub steps: Vec<Step>,
    /// What the user should know although nothing is done about it.
    pub notes: Vec<String>,
    /// Guests that are wanted up, run, and were not ready in their time: nothing can be done about them from here.
    pub degraded: Vec<GuestName>,
}

/// One act.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Steps that must have succeeded before.
    pub after: Vec<usize>,
    /// Steps that have their turn before, whatever comes of them.
    pub behind: Vec<usize>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Something about the site's networks.
    Network(NetStep),
    /// The console holder is to run.
    Prepare,
    /// A disk is cloned from a golden image.
    Clone {
        /// Whose.
        guest: GuestName,
        /// The image's name.
        image: ImageName,
        /// Its filesystem.
        from: PathBuf,
        /// Size of the new disk.
        size: Bytes,
    },
    /// Every guest's identity is drawn and the site's known_hosts written.
    KnownHosts,
    /// A disk gets its guest's identity.
    Personalise {
        /// Whose.
        guest: GuestName,
    },
    /// What the guest is started with is written down.
    Spec(Box<Spec>),
    /// A guest is started.
    Start {
        /// Which.
        guest: GuestName,
        /// Not earlier than so long after those that it waits for are ready; see [`crate::config::supervision`].
        delay: Duration,
    },
    /// A guest is waited for until it is ready.
    Ready {
        /// Which.
        guest: GuestName,
    },
    /// A guest is stopped.
    Stop {
        /// Which.
        guest: GuestName,
    },
    /// All that a guest has here is removed: disk, identity, logs.
    Purge {
        /// Whose.
        guest: GuestName,
    },
    /// Nothing is left to look after: the console holder ends.
    Retire,
}

impl Action {
    /// The guest that it is about, if it is about one.
    pub fn guest(&self) -> Option<&GuestName> {
        match self {
            Self::Clone { guest, .. }
            | Self::Personalise { guest }
            | Self::Start { guest, .. }
            | Self::Ready { guest }
            | Self::Stop { guest }
            | Self::Purge { guest } => Some(guest),
            Self::Spec(spec) => Some(&spec.guest),
            Self::Network(_) | Self::Prepare | Self::KnownHosts | Self::Retire => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(step) => step.fmt(f),
            Self::Prepare => f.write_str("start the console holder"),
            Self::Clone { guest, image, size, .. } => {
                write!(f, "{guest}: clone a disk of {size} from image '{image}'")
            }
            Self::KnownHosts => f.write_str("write the host keys of all guests to the site's known_hosts"),
            Self::Personalise { guest } => write!(f, "{guest}: personalise its disk"),
            Self::Spec(spec) => {
                write!(f, "{}: start with {}, {} of memory", spec.guest, spec.engine, spec.memory_bytes)
            }
            Self::Start { guest, delay } if delay.is_zero() => write!(f, "{guest}: start"),
            Self::Start { guest, delay } => {
                write!(f, "{guest}: start, not before its delay of {:.1} s is over", delay.as_secs_f64())
            }
            Self::Ready { guest } => write!(f, "{guest}: wait until it is ready"),
            Self::Stop { guest } => write!(f, "{guest}: stop"),
            Self::Purge { guest } => write!(f, "{guest}: remove its disk, identity and logs"),
            Self::Retire => f.write_str("end the console holder"),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// One with a next move.
    pub fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl From<NetProblem> for Problem {
    fn from(problem: NetProblem) -> Self {
        Self { message: problem.what, hint: Some(problem.hint) }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn push(&mut self, action: Action, after: Vec<usize>) -> usize {
        self.steps.push(Step { action, after, behind: Vec::new() });
        self.steps.len() - 1
    }
}

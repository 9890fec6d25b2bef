//! What happened on a site, in order: one line of JSON an event, in a file of bounded size that any number of readers
//! follow, and go on reading where they stopped.
//!
//! ```text
//!   events.jsonl       {"generation":7}                     the first line of a file
//!                      {"at_ms":...,"guest":"ce","event":"ready","after_ms":3200}
//!   events.old.jsonl   the generation before, whole
//! ```
//!
//! An event's place is its generation and its offset there, which is what a reader's token says ([`Token`]). Writers are
//! any of gridgate's processes: a line is appended in one write(2), which the kernel does not mix with another's.

mod log;
mod reader;

pub use log::note;
pub use reader::{Item, Reader, Token};

use serde::{Deserialize, Serialize};

use crate::names::GuestName;

/// Bytes of a generation; two are kept.
pub const GENERATION_BYTES: u64 = 1 << 20;
/// Longest line; a longer text is cut.
pub const LINE_BYTES: usize = 4 << 10;

/// Something that happened to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970, by the host's clock, which may jump.
    pub at_ms: u64,
    /// Whom.
    pub guest: GuestName,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// Somebody asked for the guest to run or to be stopped.
    Asked {
        /// `running` or `stopped`.
        desired: String,
    },
    /// Its process runs.
    Started {
        /// The process.
        pid: i32,
        /// `qemu`, `uml` or `nspawn`.
        backend: String,
    },
    /// Every sign of readiness was seen.
    Ready {
        /// Since its start.
        after_ms: u64,
    },
    /// It was not ready in its time, or is no more.
    Degraded {
        /// The signs that are missing, as in the site's files.
        missing: Vec<String>,
    },
    /// It started itself again.
    Rebooted {
        /// The boot that began, as the console's log counts.
        boot: u32,
    },
    /// Its process is gone.
    Stopped {
        /// Who or what ended it, as in `status --json`.
        by: String,
        /// The same for people.
        how: String,
        /// The rung of the stop ladder that worked.
        #[serde(skip_serializing_if = "Option::is_none")]
        rung: Option<String>,
    },
    /// It died, and will be started again.
    Waiting {
        /// When, in milliseconds since 1970.
        next_try_ms: u64,
        /// Why it died.
        why: String,
    },
    /// A line of its console is one that the site wants to hear of.
    ConsoleMatch {
        /// The pattern.
        pattern: String,
        /// The line, without escape sequences.
        line: String,
    },
    /// Its limits are others now.
    LimitChanged {
        /// All that hold, as `cpu=50% memory=512M`.
        limits: String,
    },
    /// Something about its console is not as it should be, or is again (then empty).
    ConsoleTrouble {
        /// What.
        why: String,
    },
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked { desired } => write!(f, "asked to be {desired}"),
            Self::Started { pid, backend } => write!(f, "started with {backend} as process {pid}"),
            Self::Ready { after_ms } => write!(f, "ready after {:.1} s", *after_ms as f64 / 1000.0),
            Self::Degraded { missing } => write!(f, "not ready in its time, without {}", missing.join(", ")),
            Self::Rebooted { boot } => write!(f, "started itself again, boot {boot}"),
            Self::Stopped { how, .. } => write!(f, "stopped: {how}"),
            Self::Waiting { why, .. } => write!(f, "will be tried again: {why}"),
            Self::ConsoleMatch { line, .. } => write!(f, "its console says: {line}"),
            Self::LimitChanged { limits } if limits.is_empty() => f.write_str("has no limits"),
            Self::LimitChanged { limits } => write!(f, "has limits {limits}"),
            Self::ConsoleTrouble { why } if why.is_empty() => f.write_str("its console is well again"),
            Self::ConsoleTrouble { why } => write!(f, "its console is in trouble: {why}"),
        }
    }
}

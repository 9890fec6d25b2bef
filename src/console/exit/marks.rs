//! What is known of a guest's end before its process ends: that somebody is stopping it, and what was heard of it. Each
//! belongs to one life, told by its launch, so that what is left of an earlier one does no harm.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::console::record::{read_json, write_json};
use crate::names::GuestName;
use crate::paths::Paths;

/// `stop.json`: gridgate is stopping the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopMark {
    /// The life that is to end.
    pub launched_at_ms: u64,
    /// When that began, in milliseconds since 1970.
    pub began_ms: u64,
    /// The rung of the ladder that it has come to, as in the site's files.
    pub rung: String,
    /// When that rung gives way to the next one; 0 if none comes after it.
    pub until_ms: u64,
}

impl StopMark {
    /// The guest's mark, if it is one of that life.
    pub fn read(paths: &Paths, guest: &GuestName, launched_at_ms: u64) -> Option<Self> {
        let mark: Option<Self> = read_json(&paths.stop_mark(guest)).ok().flatten();
        mark.filter(|mark| mark.launched_at_ms == launched_at_ms)
    }

    /// Replaces the guest's mark.
    pub fn write(&self, paths: &Paths, guest: &GuestName) -> Result<()> {
        write_json(&paths.stop_mark(guest), self)
    }
}

/// `end.json`: what the hypervisor or the guest's kernel said of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndHint {
    /// The life that it was said of.
    pub launched_at_ms: u64,
    /// What was said.
    #[serde(flatten)]
    pub hint: Hint,
}

/// See [`EndHint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hint", rename_all = "kebab-case")]
pub enum Hint {
    /// The kernel panicked; why, if it said so.
    Panic {
        /// In the kernel's words.
        why: String,
    },
    /// The guest shut itself down.
    Shutdown,
    /// The hypervisor was told to end, by a signal or an order that was none of gridgate's.
    Quit,
}

impl EndHint {
    /// The guest's hint, if it is one of that life.
    pub fn read(paths: &Paths, guest: &GuestName, launched_at_ms: u64) -> Option<Hint> {
        let found: Option<Self> = read_json(&paths.end_hint(guest)).ok().flatten();
        found.filter(|found| found.launched_at_ms == launched_at_ms).map(|found| found.hint)
    }

    /// Replaces the guest's hint.
    pub fn write(&self, paths: &Paths, guest: &GuestName) -> Result<()> {
        write_json(&paths.end_hint(guest), self)
    }
}

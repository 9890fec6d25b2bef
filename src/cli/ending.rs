//! How a command ends.

use crate::archive::pack::PrivateKeys;
use crate::host::refused::Refused;
use crate::signature::Untrusted;

/// How a command ended; the numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; nothing was changed, or all was undone.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Differs, not ready, or timed out waiting.
    Differs = 3,
    /// Refused for safety.
    Refused = 4,
    /// Failed half way; the message says what is left.
    HalfWay = 5,
    /// A unit's process that must not be tried again: what is wrong only people can mend (EX_CONFIG of sysexits.h, which is
    /// how systemd shows it).
    Config = 78,
}

/// An error that is more than a failure: it knows how the process must end.
#[derive(Debug)]
pub struct Ending {
    /// How.
    pub exit: Exit,
    /// What to say; empty if all is said.
    pub message: String,
}

impl Ending {
    /// As an error that `run` understands.
    pub fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { exit, message: message.into() })
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ending {}

/// What is refused for safety ends so; anything else stays as it is.
pub(crate) fn refusal(error: anyhow::Error) -> anyhow::Error {
    let is_refusal = error
        .chain()
        .any(|cause| cause.is::<Refused>() || cause.is::<Untrusted>() || cause.is::<PrivateKeys>());
    if is_refusal { Ending::error(Exit::Refused, format!("{error:#}")) } else { error }
}

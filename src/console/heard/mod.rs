//! What is heard of a guest besides its console: from itself, from its kernel, from its hypervisor. All of it may come from
//! somebody hostile; it is read by these functions, bounded, and does nothing but what [`Heard`] says.

pub mod notify;
pub mod qmp;
pub mod vsock;

/// Something that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The guest says that it is ready.
    Ready,
    /// A sign of life.
    Beat,
    /// The guest says how it is, in a few words; nothing, if it takes back what it said.
    Status(String),
    /// The container's first process, by systemd-nspawn's account.
    Leader(i32),
    /// A user-mode kernel has come up, and has not said anything on its console yet.
    KernelUp,
    /// The machine was reset: a guest that was there starts again.
    Reset,
    /// The kernel panicked, and why if it said so.
    Panic(String),
    /// The guest shuts itself down.
    Shutdown,
    /// The hypervisor ends because it was told to.
    Quit,
}

/// Longest text that is kept of what a guest says.
const TEXT_CHARS: usize = 200;

/// Bytes as a line of text without control characters.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_CHARS)
        .collect()
}

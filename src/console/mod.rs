//! Consoles: every byte that a guest ever says on its serial line, kept, and shown to whoever wants to see it.
//!
//! A guest's terminal is a pty pair. The slave is the guest's; the master is held twice: by the process that runs the
//! guest, which never uses it (so that nothing else's end can hang the terminal up), and by the holder, which reads it.
//!
//! ```text
//!   guest --- pty --- holder --- log (segments, by boot and offset)
//!                       |           |
//!                       |           +--- readers: each is an offset into the log, nothing more
//!                       +--- writer: a short queue of input
//! ```
//!
//! - The guest never waits: the holder reads whatever a reader does, and a reader that is too slow loses its place.
//! - The holder may die at any moment. Guests live on, their ptys keep up to 64 KiB meanwhile, and the next holder takes the
//!   masters from the processes that run them ([`record::RunRecord`], pidfd_getfd(2)). What the dead one had read but not
//!   yet logged is found in a mapped file ([`inflight`]).
//! - Each of a boot's bytes has an offset, counted from the boot's first byte, also if the log could not keep it. A
//!   reader's place ([`protocol::Position`]) therefore survives the holder.

pub mod access;
pub mod attach;
pub mod client;
pub mod escape;
pub mod exit;
pub mod heard;
pub mod holder;
pub mod inflight;
pub mod lines;
pub mod log;
pub mod logread;
pub mod matches;
pub mod moment;
pub mod protocol;
pub mod ready;
pub mod record;
pub mod restart;
pub mod sanitise;
pub mod select;
pub mod times;
pub mod when;
pub mod writers;

/// Bound of a guest's console logs where nobody gave one.
pub const DEFAULT_LOG_BYTES: u64 = 16 << 20;

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).unwrap_or(0)
}

//! What makes an installed system itself, and how it gets into a guest's filesystem.
//!
//! ```text
//! Assigned (kept by the host, 0600)    Site, Guest            the guest's filesystem
//!              |                           |                            |
//!              +-------> Identity <--------+                          found (read only)
//!                            |                                          |
//!                          edits <--------------------------------------+
//!                            | Vec<Edit>
//!                          apply: each edit changes what differs and nothing else
//! ```
//!
//! An identity is assigned once and kept by the host, so that a guest that is made anew comes back as itself: same host
//! keys, same machine-id. Two guests never get the same one, since each is random.

pub mod keys;
pub mod assigned;
pub mod initramfs;
pub mod edit;
pub mod known;
pub mod scrub;
pub mod wanted;
pub mod words;
pub mod names;
pub mod network;
pub mod found;
pub mod ids;
pub mod ssh;
pub mod filesystem;
pub mod disk;
pub mod label;
pub mod selinux;
pub mod edits;
pub mod registry;
pub mod adopt;
pub mod diff;
pub mod known_hosts;
pub mod target;
pub mod personalise;
pub mod provided;
pub mod audit;
pub mod seal;

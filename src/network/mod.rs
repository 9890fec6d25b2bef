//! Makes the site's networks as planned, takes them away again, finds what is left over, and knows the way to a guest.

mod apply;
mod leftovers;
mod reach;

pub use apply::{apply, undo};
pub use leftovers::{Leftover, free, leftovers};
pub use reach::{endpoint, namespace, probe_addresses};

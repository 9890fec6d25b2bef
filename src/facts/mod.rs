//! What is on the machine; looks, changes nothing.

mod probe_guest;
pub mod backends;
pub mod doctor;
pub mod network;

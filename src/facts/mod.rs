//! What is on the machine; looks, changes nothing.

pub mod network;

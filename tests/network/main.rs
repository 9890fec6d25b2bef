//! Networks for real. Every test lives in network and mount namespaces of its own, which end with it, so that the
//! machine itself is never touched. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod commands;
#[path = "../support/described.rs"]
mod described;
mod lab;
mod modes;
mod ports;
mod rates;

//! The console holder with real terminals: programs on ptys stand for guests, and users attach to them.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod attach;
mod console;
mod guests;
mod log;
mod panes;
mod ready;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod writers;

/// Not a test: a process that [`Site::launch`] starts becomes a guest here.
#[test]
fn launcher() {
    support::launcher();
}

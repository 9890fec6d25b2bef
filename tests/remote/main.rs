//! `gridgate --host`, between two boxes that are network namespaces, through a real sshd. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]
#![expect(clippy::duplicate_mod, reason = "both kinds of sites bring what they need")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/site.rs"]
#[allow(dead_code, reason = "each test file uses the part that it needs")]
mod site;

mod commands;
mod far;
mod guests;
mod lab;
mod programs;
mod standby;
mod terminals;

/// Not a test: a process that [`support::Site::launch`] starts becomes a guest here.
#[test]
fn launcher() {
    support::launcher();
}

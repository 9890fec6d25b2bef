//! A gateway in a store, and on another machine again.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod full;
mod killed;
mod made;
mod running;
mod trust;

#[path = "../support/site.rs"]
#[allow(dead_code, reason = "each test file uses the part that it needs")]
mod support;

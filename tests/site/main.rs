//! Whole sites with real guests, and what can go wrong with them.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

mod backends;
mod clones;
mod crashes;
mod input;
mod interfaces;
mod interrupts;
mod life;
mod limits;
mod profile;
mod together;
mod supervision;
mod trouble;

#[path = "../support/site.rs"]
mod support;

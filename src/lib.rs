//! gridgate puts a whole grid site's gateway on one box.
//!
//! The modules stand in the order that data flows; each imports only what stands above it
//! (`tests/layering.rs` holds that):
//!
//! ```text
//!   site directory, images                  the machine
//!            |                                   |
//!       config::load -> Site              facts::gather -> Facts
//!            +---------------> plan <------------+
//!                               | Plan
//!                             apply     (image, identity, network, backend, service: one step each)
//!                               | Outcome
//!                            report
//! ```

// What tests share with those beside the library says 'gridgate', too.
#[cfg(test)]
extern crate self as gridgate;

pub mod names;
pub mod progress;
pub mod config;
pub mod paths;
pub mod host;
pub mod events;
pub mod console;
pub mod signature;
pub mod image;
pub mod profile;
pub mod identity;
pub mod archive;
pub mod import;
pub mod chunks;
pub mod backend;
pub mod facts;
pub mod plan;
pub mod network;
pub mod service;
pub mod apply;
pub mod machine;
pub mod backup;
pub mod report;
pub mod panes;
pub mod remote;
pub mod cli;

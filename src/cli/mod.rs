//! The command line.

pub mod console;
pub mod hold;

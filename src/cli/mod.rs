//! The command line.

pub mod image;

//! What people type.

pub mod enter;
pub mod image;
pub mod ssh;

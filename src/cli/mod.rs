//! What people type.

pub mod enter;
pub mod ssh;

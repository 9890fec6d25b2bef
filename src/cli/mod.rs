//! What people type.

pub mod console;
pub mod enter;
pub mod hold;
pub mod image;
pub mod ssh;

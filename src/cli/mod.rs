//! What people type.

pub mod console;
pub mod doctor;
pub mod enter;
pub mod hold;
pub mod image;
pub mod ssh;

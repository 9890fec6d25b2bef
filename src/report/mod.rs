//! What is told to people and to programs.

pub mod status;
pub mod sentences;
pub mod text;

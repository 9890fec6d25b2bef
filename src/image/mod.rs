//! Golden images: from a definition to a filesystem that guests are cloned from.
//!
//! ```text
//! images/NAME.toml --definition--> Definition --build--> STATE/images/NAME/ --store::open--> Golden --clone--> disk
//! ```
//!
//! An image's directory appears under its name in one rename, complete; whatever else lies there has a name of
//! [`crate::host::temporary::Maker`]'s and is no image.

pub mod definition;
pub mod sources;
pub mod manifest;
pub mod packages;
pub mod records;
pub mod compare;
pub mod store;
pub mod staging;
pub mod kernel;
pub mod times;
mod tree;
mod rpm;
pub mod build;

//! A whole machine, made on a blank disk: `gridgate site install`.
//!
//! ```text
//!   site, golden images, the site's identities            the disk
//!              |                                             |
//!              +--------------> plan::plan <-----------------+
//!                                   | Plan   (`--dry-run` prints it and stops here)
//!                              install::install
//!      begin: nothing on the disk counts any more, except what is kept
//!      root: the image, and in it names, network, keys, gridgate, the site     (esp, program, site_files, network, boot)
//!      data: images, and every guest's disk with its identity and profile      (guests)
//!      table: written last; its first sector makes a machine of all that
//!                                   | Report
//! ```
//!
//! Filesystems are opened through loop devices that the kernel takes down with this process, and mounted nowhere. Whatever
//! ends it, the disk is no machine before it is all of one.

pub mod boot;
pub mod bundle;
pub mod esp;
pub mod guests;
pub mod host;
pub mod install;
pub mod layout;
pub mod network;
pub mod plan;
pub mod program;
pub mod report;
pub mod rows;
pub mod site_files;
pub mod stock;
pub mod table;

//! The only door to the kernel and to other programs.
//!
//! [`Host`] is what the rest of gridgate may ask of a machine. It is made of one trait a subject, each in its own
//! file with its live form: [`files::Files`], [`programs::Programs`], and so on. Two more forms exist: a model that
//! keeps a machine in memory, and a recorder that writes down each call and fails at call N, so that every failure
//! point of a plan can be rehearsed.

pub mod blockdev;
pub mod bounds;
mod unsynced;
pub mod cgroups;
pub mod files;
pub mod net;
pub mod notify;
pub mod sockets;
pub mod users;
pub mod view;
pub mod processes;
pub mod programs;
pub mod nameless;
pub mod root;
pub mod sandbox;
pub mod tree;
pub mod difference;
pub mod disk;
pub mod loopdev;
pub mod superblock;
pub mod content;
pub mod partitions;
pub mod lvm;
pub mod volume;
mod undo;
pub mod filesystem;
pub mod freeze;
pub mod newfs;
pub mod target;
pub mod source;
pub mod decompress;
pub mod qcow2;
pub mod ext4;
pub mod offline;
pub mod temporary;
pub mod disks;
pub mod begun;
pub mod refused;
pub mod remains;
pub mod trial;
pub mod writeback;
pub mod memory;
pub mod model;
pub mod recorder;

/// All that can be asked of a machine.
pub trait Host:
    files::Files + programs::Programs + disks::Disks + filesystem::Filesystems + net::Net + Send + Sync
{
}

/// The machine that this process runs on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Live;

impl Host for Live {}

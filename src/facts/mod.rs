//! What is on the machine; looks, changes nothing.

mod probe_guest;
pub mod backends;
pub mod doctor;
pub mod engines;
pub mod guests;
pub mod network;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::backend::uml;
use crate::config::site::Site;
use crate::console::client;
use crate::host::Host;
use crate::image::store;
use crate::names::{GuestName, ImageName};
use crate::paths::Paths;

/// What planning needs to know of the machine.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Guests that the site names, and any other that has left something here.
    pub guests: BTreeMap<GuestName, guests::GuestFacts>,
    /// Golden images that the site's guests want.
    pub images: BTreeMap<ImageName, ImageFacts>,
    /// What can run guests here.
    pub engines: engines::Engines,
    /// Links, namespaces and rule sets.
    pub network: network::NetFacts,
    /// Free bytes where disks are kept.
    pub free_bytes: u64,
    /// Free bytes where guests of user-mode Linux have their memory.
    pub memory_bytes: u64,
    /// Whether the console holder runs.
    pub holder: bool,
    /// Whether the site has a run directory: a holder that was killed leaves it.
    pub run_dir: bool,
    /// Whether the site's known_hosts is there.
    pub known_hosts: bool,
}

/// A golden image, as far as cloning needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFacts {
    /// It can be cloned.
    Good(GoodImage),
    /// Why it cannot.
    Bad(String),
}

/// An image that can be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodImage {
    /// Its filesystem.
    pub disk: std::path::PathBuf,
    /// Length of the filesystem in bytes.
    pub size_bytes: u64,
    /// Bytes that a copy takes up.
    pub allocated_bytes: u64,
    /// Kernel and initial RAM disk for a whole machine, if it has them.
    pub kernel: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

/// Looks at all that bringing the site up may need.
pub fn gather(host: &dyn Host, paths: &Paths, site: &Site) -> Result<Facts> {
    let mut facts = Facts {
        engines: engines::gather(host, paths)?,
        free_bytes: host.free_bytes(&paths.state)?,
        memory_bytes: host.free_bytes(Path::new(uml::MEMORY_DIR))?,
        known_hosts: host.stat(&paths.known_hosts())?.is_some(),
        ..gather_to_stop(host, paths, site)?
    };
    for guest in &site.guests {
        if !facts.images.contains_key(&guest.image) {
            let image = image(host, paths, &guest.image);
            facts.images.insert(guest.image.clone(), image);
        }
    }
    Ok(facts)
}

/// Looks only at what stopping needs: guests, networks and holder. It works where nothing could be started.
pub fn gather_to_stop(host: &dyn Host, paths: &Paths, site: &Site) -> Result<Facts> {
    Ok(Facts {
        guests: guests::gather(host, paths, site)?,
        network: network::gather(host, paths)?,
        holder: client::holder_runs(paths),
        run_dir: host.stat(&paths.run)?.is_some(),
        ..Facts::default()
    })
}

fn image(host: &dyn Host, paths: &Paths, name: &ImageName) -> ImageFacts {
    match store::open(host, paths, name) {
        Ok(golden) => ImageFacts::Good(GoodImage {
            size_bytes: golden.manifest.disk.size_bytes,
            allocated_bytes: golden.manifest.disk.allocated_bytes,
            kernel: golden.kernel.zip(golden.initrd),
            disk: golden.disk,
        }),
        Err(error) => ImageFacts::Bad(format!("{error:#}")),
    }
}

//! What machines are made of: the centre's own images, or what a bundle was unpacked to.

use std::path::PathBuf;

use super::program::Program;
use crate::config::site::Site;
use crate::names::SiteName;
use crate::paths::Paths;

/// See the module.
#[derive(Debug, Clone)]
pub struct Stock {
    /// Where images and kernels are taken from.
    pub paths: Paths,
    /// Which gridgate goes onto the machine.
    pub program: Program,
    /// The centre's own state, which keeps what is drawn for a site, so that a machine that is made again is known by the
    /// same keys.
    pub state: PathBuf,
    /// Identities that came with a bundle, for a site that the centre has none of.
    pub identities: Option<PathBuf>,
}

impl Stock {
    /// What is at the centre.
    pub fn own(paths: &Paths) -> Self {
        Self { paths: paths.clone(), program: Program::Own, state: paths.state.clone(), identities: None }
    }

    /// Where the centre keeps what it drew for a site.
    pub fn kept(&self, site: &Site) -> Paths {
        self.kept_of(&site.name)
    }

    /// The same of a site of that name.
    pub fn kept_of(&self, site: &SiteName) -> Paths {
        Paths::new(&self.paths.site, &self.state.join("sites").join(site))
    }
}

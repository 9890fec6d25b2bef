//! `backup.json`: what a backup is made of.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::backend::still::Way;
use crate::names::{GuestName, SiteName};

/// The file's name among those of a backup.
pub const FILE: &str = "backup.json";
/// All files that are small, one after the other.
pub const SMALL: &str = "files";
/// Which form this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// More than any site has.
const MOST_ENTRIES: usize = 100_000;

/// A site at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The site.
    pub site: SiteName,
    /// Seconds since 1970.
    pub taken_at_epoch_seconds: u64,
    /// The program.
    pub taken_by: String,
    /// Where the site's files were.
    pub site_dir: PathBuf,
    /// Its permission bits.
    pub site_mode: u32,
    /// Where the state was.
    pub state_dir: PathBuf,
    /// Its guests, by name.
    pub guests: Vec<Guest>,
    /// Directories before what is in them.
    pub entries: Vec<Entry>,
}

/// A guest of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name.
    pub name: GuestName,
    /// Length of its disk.
    pub disk_bytes: u64,
    /// How it was held still; it did not run if `None`.
    pub held: Option<Way>,
    /// For how long: microseconds.
    pub paused_us: Option<u64>,
    /// Whether its filesystem is clean; otherwise its journal makes it so when it is mounted.
    pub clean: bool,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it belongs.
    pub tree: Tree,
    /// Where in it.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What is restored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tree {
    /// The site's directory.
    Site,
    /// The state directory.
    State,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum What {
    /// A directory.
    Dir,
    /// A part of [`SMALL`].
    Small {
        /// Where it begins there.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// A file of the backup's own.
    Part {
        /// Its name.
        part: String,
    },
}

impl Manifest {
    /// Reads one. One of a later format is refused, and so is whatever would lie elsewhere than in the two trees.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).context("reading what the backup is made of")
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.format_version != FORMAT_VERSION {
            bail!("it has format {}, this program knows {FORMAT_VERSION}", manifest.format_version);
        }
        if manifest.entries.len() > MOST_ENTRIES {
            bail!("it names more than {MOST_ENTRIES} files");
        }
        for entry in &manifest.entries {
            let mut parts = entry.path.components();
            let plain =
                parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
            if !plain || (entry.tree == Tree::State && !is_state(&entry.path)) {
                bail!("it names a file '{}'", entry.path.display());
            }
        }
        Ok(manifest)
    }

    /// As it is stored.
    pub fn print(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("writing what the backup is made of")
    }
}

/// What of the state directory goes into a backup: the first parts of its paths. The rest tells of the machine, or of what is
/// going on there.
pub const STATE: [&str; 7] = ["guests", "images", "kernels", "keys", "known_hosts", "identities", "sites"];

fn is_state(path: &Path) -> bool {
    path.iter().next().is_some_and(|first| STATE.iter().any(|name| first == *name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(path: &str, tree: Tree) -> Manifest {
        let small = What::Small { at: 0, len: 3 };
        Manifest {
            format_version: FORMAT_VERSION,
            site: "x".parse().unwrap(),
            taken_at_epoch_seconds: 1,
            taken_by: "test".to_owned(),
            site_dir: "/etc/gridgate".into(),
            site_mode: 0o755,
            state_dir: "/var/lib/gridgate".into(),
            guests: Vec::new(),
            entries: vec![Entry { tree, path: path.into(), mode: 0o600, what: small }],
        }
    }

    #[test]
    fn a_manifest_is_read_again_and_paths_that_lead_elsewhere_are_refused() {
        let good = sample("guests/ce/spec.json", Tree::State);
        assert_eq!(Manifest::parse(&good.print().unwrap()).unwrap(), good);
        for (bad, tree) in [
            ("", Tree::Site),
            ("/etc/passwd", Tree::Site),
            ("guests/../../etc/passwd", Tree::Site),
            ("host.json", Tree::State),
            ("lock", Tree::State),
        ] {
            assert!(Manifest::parse(&sample(bad, tree).print().unwrap()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0..1000_usize, to in any::<u8>()) {
            let mut bytes = sample("site.toml", Tree::Site).print().unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = Manifest::parse(&bytes);
        }
    }
}

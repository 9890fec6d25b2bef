//! What a bundle says of itself, and what an archive has to be to be one.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{IDENTITIES, IMAGES, KERNELS, PROGRAM, SITES};
use crate::archive::entry::{Entry, Kind};
use crate::archive::limits::Limits;
use crate::archive::manifest::Manifest;
use crate::config::site::BackendChoice;
use crate::image::manifest;
use crate::names::{GuestName, ImageName, SiteName};
use crate::signature::Purpose;

/// Which form of a bundle this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Longest `bundle.json`, manifest of an image, file of a site.
pub const LONGEST: u64 = 16 << 20;
/// Longest kernel, or part of gridgate.
const LONGEST_PROGRAM: u64 = 1 << 30;
const SITES_AT_MOST: usize = 1000;
const DEPTH_AT_MOST: usize = 16;

/// What is in it: `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Which gridgate is in it.
    pub program: ProgramVersion,
    /// The sites, by name.
    pub sites: Vec<PackedSite>,
    /// The golden images, by name.
    pub images: Vec<PackedImage>,
    /// Whether it has a kernel for user-mode Linux.
    pub has_uml_kernel: bool,
}

/// The program in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramVersion {
    /// Its version.
    pub version: String,
    /// What it runs on, such as `x86_64`.
    pub architecture: String,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedSite {
    /// Its name.
    pub name: SiteName,
    /// The host's full name.
    pub fqdn: String,
    /// The host's own image.
    pub image: ImageName,
    /// Its guests.
    pub guests: Vec<PackedGuest>,
    /// Secret files of the site that are not in the bundle: they have to be there when a machine is made.
    pub left_out: Vec<String>,
    /// Whether its identities, and with them private keys, are in the bundle.
    pub has_identities: bool,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedGuest {
    /// Its name.
    pub name: GuestName,
    /// Its role.
    pub role: String,
    /// Its image.
    pub image: ImageName,
    /// What is to run it.
    pub backend: BackendChoice,
}

/// One golden image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedImage {
    /// Its name.
    pub name: ImageName,
    /// Length of its filesystem.
    pub size_bytes: u64,
    /// BLAKE3 of its filesystem, as its own manifest has it.
    pub blake3: String,
    /// When it was built: seconds since 1970.
    pub built_at_epoch_seconds: u64,
    /// How many packages it has.
    pub packages: u64,
}

/// How much of a bundle's manifest is believed: it tells of a few files.
pub fn limits() -> Limits {
    Limits { manifest_bytes: 64 << 20, entries: 100_000, ..Limits::default() }
}

impl Contents {
    /// Reads what [`Contents::print`] has written.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let what = "reading the bundle's 'bundle.json'";
        // Another version may have other fields.
        let Version { format_version } = serde_json::from_slice(bytes).context(what)?;
        if format_version != FORMAT_VERSION {
            bail!("{what}: it has format {format_version}, this program knows {FORMAT_VERSION}");
        }
        serde_json::from_slice(bytes).context(what)
    }

    /// As it is in the bundle.
    pub fn print(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).context("writing the bundle's 'bundle.json'")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The site of that name.
    pub fn site(&self, name: &SiteName) -> Result<&PackedSite> {
        self.sites.iter().find(|site| site.name == *name).with_context(|| format!("it has no site '{name}'"))
    }

    /// Whether what it says is what the archive has.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let named: BTreeSet<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
        let there = sites(manifest);
        ensure!(
            named.len() == self.sites.len() && named == there.iter().map(SiteName::as_str).collect(),
            "its 'bundle.json' tells of other sites than it has"
        );
        let images: BTreeSet<&ImageName> = self.images.iter().map(|image| &image.name).collect();
        for site in &self.sites {
            let used = site.guests.iter().map(|guest| &guest.image).chain([&site.image]);
            for image in used {
                ensure!(images.contains(image), "site '{}' uses image '{image}', which it lacks", site.name);
            }
            for path in &site.left_out {
                ensure!(
                    is_inside(Path::new(path)),
                    "site '{}' leaves out '{path}', which is no path of it",
                    site.name
                );
            }
        }
        Ok(())
    }
}

/// A path of plain names alone.
pub(super) fn is_inside(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let count = path.components().count();
    (1..=DEPTH_AT_MOST).contains(&count) && path.components().all(plain)
}

/// Refuses an archive that is no bundle, or has what no bundle has. An archive is hostile; what is refused here is not
/// unpacked: devices, links (but those of the program, which nothing follows), set-id programs, other owners than root.
pub fn check(manifest: &Manifest) -> Result<()> {
    if manifest.purpose() != Purpose::Bundle {
        bail!("it is an archive, but no bundle; hint: 'gridgate image restore' is for archives of images");
    }
    ensure!(manifest.head.own.len() == 1, "it has files of its own that no bundle has");
    for entry in &manifest.entries {
        one(entry).with_context(|| format!("'{}' in it", entry.path.escape_ascii()))?;
    }
    let count = sites(manifest).len();
    ensure!((1..=SITES_AT_MOST).contains(&count), "it has {count} sites");
    Ok(())
}

/// The sites that an archive has, by name; [`check`] has seen to it that they are names.
pub fn sites(manifest: &Manifest) -> Vec<SiteName> {
    let name = |entry: &Entry| {
        let path = std::str::from_utf8(&entry.path).ok()?;
        path.strip_prefix(SITES)?.strip_prefix('/')?.parse().ok()
    };
    manifest.entries.iter().filter_map(name).collect()
}

fn one(entry: &Entry) -> Result<()> {
    let path = std::str::from_utf8(&entry.path).context("its name is not UTF-8")?;
    ensure!(entry.uid == 0 && entry.gid == 0, "it belongs to another user than root");
    ensure!(entry.mode & !0o755 == 0, "others than its owner may write to it, or it is set-id");
    ensure!(entry.attributes.is_empty() && entry.flags == 0, "it has attributes");
    let parts: Vec<&str> = path.split('/').collect();
    let is_dir = entry.kind == Kind::Directory;
    // Most of it is read as a whole later; a hole takes no room in an archive.
    let longest = match parts[..] {
        [IMAGES, _, manifest::FILE] => LONGEST,
        [IMAGES, _, manifest::KERNEL | manifest::INITRD] => LONGEST_PROGRAM,
        [IMAGES, ..] => u64::MAX,
        [PROGRAM | KERNELS, ..] => LONGEST_PROGRAM,
        _ => LONGEST,
    };
    if let Kind::File(content) = &entry.kind {
        ensure!(content.len <= longest, "it has more than {} bytes", longest);
    }
    match &entry.kind {
        Kind::Directory | Kind::File(_) => {}
        Kind::SymbolicLink(_) if parts[0] == PROGRAM => {}
        _ => bail!("it is neither a file nor a directory"),
    }
    if path.is_empty() {
        return Ok(());
    }
    ensure!(is_inside(&PathBuf::from(path)), "its path is none of a bundle");
    ensure!(parts[0] == PROGRAM || !parts.iter().any(|part| part.starts_with('.')), "it is hidden");
    match parts[..] {
        [IMAGES | KERNELS | SITES | IDENTITIES | PROGRAM] => ensure!(is_dir, "it is no directory"),
        [IMAGES, name] => {
            ensure!(is_dir && name.parse::<ImageName>().is_ok(), "it is no image");
        }
        [IMAGES, _, _] => ensure!(!is_dir, "no image has a directory"),
        [SITES | IDENTITIES, name] => {
            ensure!(is_dir && name.parse::<SiteName>().is_ok(), "it is no site");
        }
        [KERNELS, "uml"] => ensure!(is_dir, "it is no directory"),
        [KERNELS, "uml", _] => ensure!(!is_dir, "it is no file"),
        [SITES | IDENTITIES | PROGRAM, ..] => {}
        _ => bail!("no bundle has that"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;

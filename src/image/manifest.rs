//! `manifest.json`: what an image is, written when all of it is there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::names::ImageName;

/// The file's name inside an image's directory.
pub const FILE: &str = "manifest.json";
/// Signatures of the manifest, beside it; there are none until somebody signs.
pub const SIGNATURES: &str = "manifest.json.sig";
/// The filesystem's name inside an image's directory.
pub const DISK: &str = "disk.ext4";
/// The kernel for QEMU.
pub const KERNEL: &str = "vmlinuz";
/// Its initial ram disk.
pub const INITRD: &str = "initrd.img";

/// Which form of the manifest this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What an image is and what it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The image's name.
    pub name: ImageName,
    /// Digest of the definition that it was built from.
    pub definition_digest: String,
    /// The filesystem.
    pub disk: Disk,
    /// The kernel for QEMU, if the image brings one.
    pub kernel: Option<Part>,
    /// Its initial ram disk.
    pub initrd: Option<Part>,
    /// Installed packages, by name.
    pub packages: Vec<Package>,
    /// When it was built: seconds since 1970.
    pub built_at_epoch_seconds: u64,
    /// What built it.
    pub built_by: String,
    /// Versions of the programs that did the work.
    pub tools: Vec<String>,
    /// What it was imported from; none if it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What an imported image was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `directory`, `tar`, `disk` or `guest`.
    pub kind: String,
    /// Where it was, as it was named; `-` for a pipe.
    pub source: String,
    /// BLAKE3 of a tar's bytes, as they came.
    pub blake3: Option<String>,
    /// The partition of a disk.
    pub partition: Option<u32>,
    /// Whether the identity of the machine that it was has been taken out.
    pub sealed: bool,
    /// What identity is in it.
    pub audit: Remains,
}

/// What an audit has found of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remains {
    /// Whether nothing was found.
    pub clean: bool,
    /// How many findings there are of each class.
    pub classes: BTreeMap<String, u64>,
    /// Files that hold a private key.
    pub private_keys: Vec<String>,
}

/// The filesystem of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Name in the image's directory.
    pub file: String,
    /// Its length.
    pub size_bytes: u64,
    /// What it took up when it was made.
    pub allocated_bytes: u64,
    /// BLAKE3 of the whole length, holes read as zeros.
    pub blake3: String,
    /// The filesystem's UUID; clones get their own.
    pub uuid: String,
}

/// A further file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Name in the image's directory.
    pub file: String,
    /// Its length.
    pub size_bytes: u64,
    /// BLAKE3 of its content.
    pub blake3: String,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file in the archive that it came from, hexadecimal; `None` if the archive does not tell.
    #[serde(default)]
    pub sha256: Option<String>,
}

impl Manifest {
    /// Reads a manifest; one of a later format is refused. A name of a part that is more than a name is refused, too.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes).context("reading the manifest")?;
        if manifest.format_version != FORMAT_VERSION {
            bail!("the manifest has format {}, this program knows {FORMAT_VERSION}", manifest.format_version);
        }
        let parts = [&manifest.kernel, &manifest.initrd].into_iter().flatten().map(|part| &part.file);
        for file in parts.chain([&manifest.disk.file]) {
            if file.is_empty() || file.starts_with('.') || file.contains('/') {
                bail!("the manifest names a file '{file}'");
            }
        }
        Ok(manifest)
    }

    /// As it is stored.
    pub fn print(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).context("writing the manifest")?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A manifest of a made-up image.
    pub(crate) fn sample(name: &str, disk: &[u8]) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            name: name.parse().unwrap(),
            definition_digest: "d".to_owned(),
            disk: Disk {
                file: DISK.to_owned(),
                size_bytes: disk.len() as u64,
                allocated_bytes: disk.len() as u64,
                blake3: blake3::hash(disk).to_hex().to_string(),
                uuid: "u".to_owned(),
            },
            kernel: None,
            initrd: None,
            packages: crate::image::packages::with_digests("dbus\t1.14\n", ""),
            built_at_epoch_seconds: 0,
            built_by: "test".to_owned(),
            tools: Vec::new(),
            origin: None,
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let manifest = sample("x", b"disk");
        assert_eq!(Manifest::parse(&manifest.print().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn a_part_outside_the_image_is_refused() {
        for bad in ["", "../disk", "/etc/shadow", ".hidden"] {
            let mut manifest = sample("x", b"disk");
            manifest.disk.file = bad.to_owned();
            assert!(Manifest::parse(&manifest.print().unwrap()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_later_format_is_refused() {
        let manifest = Manifest { format_version: 2, ..sample("x", b"disk") };
        let error = Manifest::parse(&manifest.print().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "the manifest has format 2, this program knows 1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}

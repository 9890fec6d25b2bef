//! The manifest: what is in an archive, as lines of JSON that come before all else.
//!
//! The first line is the [`Head`]; each further one an entry, in the order in which the archive has them: directories first, each
//! after the one that it is in, then all else, hard links after what they are further names of.

mod check;
mod line;

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind};
use super::limits::Limits;
use super::text::Text;
use crate::signature::Purpose;

/// Which form of the manifest, and of the tar behind it, this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// About all of it.
    pub head: Head,
    /// Each thing, in the order of the archive; the first is the top directory.
    pub entries: Vec<Entry>,
}

/// The manifest's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What was packed: the image's name, or that of the file or directory.
    pub name: String,
    /// What packed it.
    pub packed_by: String,
    /// The filesystem that it was packed from; none for a directory.
    pub filesystem: Option<Filesystem>,
    /// How many entries follow.
    pub entries: u64,
    /// Lengths of all regular files together, holes included.
    pub content_bytes: u64,
    /// The same without holes.
    pub data_bytes: u64,
    /// The smallest ext4 filesystem that it fits into.
    pub minimum_bytes: u64,
    /// What was looked for in it before it was packed.
    pub audit: Audit,
    /// Files of the archive's own that come before the entries, in `.gridgate/`.
    pub own: Vec<Own>,
}

/// A filesystem, as its superblock has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// `ext4`, `xfs` or `btrfs`.
    pub kind: String,
    /// Its UUID, in five groups of digits; files of it may name it.
    pub uuid: String,
    /// Its label, empty if it has none.
    pub label: Text,
    /// How long the disk or partition is that it was on.
    pub size_bytes: u64,
}

/// What was found that should not be in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Whether nothing was found.
    pub clean: bool,
    /// Files that hold a private key; packed only because that was asked for.
    pub private_keys: Vec<Text>,
    /// What sealing would take out or change: files and directories that hold what belongs to one machine.
    #[serde(default)]
    pub identity: Vec<Text>,
}

/// A file of the archive's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// Its name in `.gridgate/`.
    pub name: OwnName,
    /// Its length.
    pub len: u64,
    /// BLAKE3 of its content, as digits.
    pub blake3: String,
}

/// Which file of the archive's own it is. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OwnName {
    /// The golden image's manifest as its host had it.
    #[serde(rename = "image.json")]
    Image,
    /// Its kernel.
    #[serde(rename = "kernel")]
    Kernel,
    /// Its initial ram disk.
    #[serde(rename = "initrd")]
    Initrd,
    /// What a bundle holds, from which whole machines are made.
    #[serde(rename = "bundle.json")]
    Bundle,
}

impl OwnName {
    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image.json",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Bundle => "bundle.json",
        }
    }
}

/// What an archive with these files of its own is signed for.
pub fn purpose(mut own: impl Iterator<Item = OwnName>) -> Purpose {
    if own.any(|name| name == OwnName::Bundle) { Purpose::Bundle } else { Purpose::Image }
}

impl Manifest {
    /// What its signatures are for.
    pub fn purpose(&self) -> Purpose {
        purpose(self.head.own.iter().map(|own| own.name))
    }

    /// Puts a manifest together and fills in what follows from the entries. They must be in order; what would not be read again is
    /// refused here.
    pub fn new(mut head: Head, entries: Vec<Entry>) -> Result<Self> {
        let mut sums = check::Sums::default();
        for entry in &entries {
            sums.add(entry)?;
        }
        (head.entries, head.content_bytes, head.data_bytes) = (sums.entries, sums.content, sums.data);
        let manifest = Self { head, entries };
        check::all(&manifest)?;
        Ok(manifest)
    }

    /// Reads what [`Manifest::print`] has written. It is hostile: every length is bounded, and whatever could lead out of the top
    /// directory, or mean two things, is refused.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let what = "reading the archive's manifest";
        if bytes.len() as u64 > limits.manifest_bytes {
            bail!("{what}: it has {} bytes, more than {}", bytes.len(), limits.manifest_bytes);
        }
        let Some(all) = bytes.strip_suffix(b"\n") else { bail!("{what}: its last line does not end") };
        let mut lines = all.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        check_version(first).context(what)?;
        let head: Head = serde_json::from_slice(first).with_context(|| format!("{what}: line 1"))?;
        if head.entries > limits.entries {
            bail!("{what}: it tells of {} entries, more than {}", head.entries, limits.entries);
        }
        let mut entries = Vec::new();
        for (number, line) in lines.enumerate() {
            if number as u64 >= head.entries {
                bail!("{what}: there are more entries than the {} that it tells of", head.entries);
            }
            entries.push(line::parse(line).with_context(|| format!("{what}: line {}", number + 2))?);
        }
        let manifest = Self { head, entries };
        check::all(&manifest).context(what)?;
        Ok(manifest)
    }

    /// As it is in the archive, and as it is signed.
    pub fn print(&self) -> Result<Vec<u8>> {
        let what = "writing the manifest";
        let mut bytes = serde_json::to_vec(&self.head).context(what)?;
        bytes.push(b'\n');
        for entry in &self.entries {
            line::print(entry, &mut bytes).context(what)?;
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// Which files have further names.
    pub fn further_names(&self) -> FurtherNames<'_> {
        FurtherNames::of(&self.entries)
    }

    /// Its regular files.
    pub fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::File(_)))
    }
}

/// Files by the first of their names, as far as they have others.
#[derive(Debug)]
pub struct FurtherNames<'m>(HashMap<&'m [u8], Option<&'m Entry>>);

impl<'m> FurtherNames<'m> {
    /// Of all these.
    pub fn of(entries: &'m [Entry]) -> Self {
        let wanted = entries.iter().filter_map(|entry| match &entry.kind {
            Kind::HardLink(target) => Some(&target[..]),
            _ => None,
        });
        let mut files: HashMap<&[u8], Option<&Entry>> = wanted.map(|path| (path, None)).collect();
        for entry in entries {
            if let Some(found) = files.get_mut(&entry.path[..]) {
                *found = Some(entry);
            }
        }
        Self(files)
    }

    /// The entry itself, or where it is a hard link the one of the file, which says all about it.
    pub fn file_of<'e>(&self, entry: &'e Entry) -> &'e Entry
    where
        'm: 'e,
    {
        match &entry.kind {
            Kind::HardLink(target) => self.0.get(&target[..]).copied().flatten().unwrap_or(entry),
            _ => entry,
        }
    }
}

/// Whether a filesystem can be made of these, in their order, whoever told of them; how many bytes of data they have.
pub fn check_entries(entries: &[Entry]) -> Result<u64> {
    check::entries(entries).map(|sums| sums.data)
}

/// Another version may have other fields; it is told apart before they are looked at.
fn check_version(line: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = serde_json::from_slice(line).context("line 1")?;
    if format_version != FORMAT_VERSION {
        bail!("it has format {format_version}, this program knows {FORMAT_VERSION}");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;

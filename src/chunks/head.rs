//! The head of a version: one line of JSON that says what it is, and signatures of that line behind it.
//!
//! By hand: `head -n1 latest | ssh-keygen -Y verify -n gridgate-image -f allowed_signers -I NAME -s <(tail -n+2 latest)`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::blocks::GROUP;
use super::index::MOST_GROUPS;
use crate::image::manifest::Part;
use crate::names::ImageName;
use crate::signature::Purpose;

/// Which form of heads this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a store has versions of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A golden image.
    #[default]
    Image,
    /// A whole site at one time, with its private keys.
    Backup,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Image, Self::Backup];

    /// The directory of its heads in a store.
    pub fn dir(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Backup => "backups",
        }
    }

    /// What its signatures are for.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Image => Purpose::Image,
            Self::Backup => Purpose::Backup,
        }
    }

    /// Files of one version at most.
    fn most_parts(self) -> usize {
        match self {
            Self::Image => 16,
            Self::Backup => 4096,
        }
    }

    fn is_image(&self) -> bool {
        *self == Self::Image
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Image => "image",
            Self::Backup => "backup",
        })
    }
}

/// What a version is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Of what.
    #[serde(default, skip_serializing_if = "Kind::is_image")]
    pub kind: Kind,
    /// The image's name, or the site's.
    pub name: ImageName,
    /// 32 digits that are in the names of its files.
    pub version: String,
    /// Grows by one with each push of that name.
    pub sequence: u64,
    /// When the image was built, as its manifest says, or the backup taken: seconds since 1970.
    pub built_at_epoch_seconds: u64,
    /// Seconds since 1970.
    pub pushed_at_epoch_seconds: u64,
    /// The program.
    pub pushed_by: String,
    /// The image's files. On the disk that the index tells of each begins with a group of its own, in this order.
    pub parts: Vec<Part>,
    /// Length of the index.
    pub index_size_bytes: u64,
    /// BLAKE3 of the index.
    pub index_blake3: String,
}

/// A head as it lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub head: Head,
    /// The line that was signed, with its newline.
    pub payload: Vec<u8>,
    /// Signatures, none or several.
    pub signatures: Vec<u8>,
}

impl Head {
    /// Where the newest version's head lies.
    pub fn latest(kind: Kind, name: &ImageName) -> String {
        format!("{}/{name}/latest", kind.dir())
    }

    /// Where this one lies.
    pub fn path(&self) -> String {
        format!("{}/{}/{}.head", self.kind.dir(), self.name, self.version)
    }

    /// Where its index lies.
    pub fn index(&self) -> String {
        format!("indexes/{}.index", self.version)
    }

    /// Where the hashes of its blocks lie.
    pub fn hashes(&self) -> String {
        format!("indexes/{}.hashes", self.version)
    }

    /// Groups of all its parts.
    pub fn groups(&self) -> u64 {
        self.parts.iter().map(|part| part.size_bytes.div_ceil(GROUP)).sum()
    }

    /// The line that is signed.
    pub fn print(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).context("writing the head of a version")?;
        line.push(b'\n');
        Ok(line)
    }
}

impl Signed {
    /// Reads a head; one of a later format is refused, and names that are more than names.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).context("reading the head of a version")
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().position(|b| *b == b'\n').context("it has no first line")? + 1;
        let (payload, signatures) = bytes.split_at(end);
        let version: serde_json::Value = serde_json::from_slice(payload)?;
        match version.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(FORMAT_VERSION) => {}
            Some(version) => bail!("it has format {version}, this program knows {FORMAT_VERSION}"),
            None => bail!("it is none"),
        }
        let head: Head = serde_json::from_value(version)?;
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex(&head.version, 32) || !hex(&head.index_blake3, 64) {
            bail!("its version is none");
        }
        let mut names = BTreeSet::new();
        let mut groups = 0_u64;
        for part in &head.parts {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
            let name = &part.file;
            if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
                bail!("it names a file '{}'", name.escape_default());
            }
            if !names.insert(name) || head.parts.len() > head.kind.most_parts() {
                bail!("it names too many files, or '{name}' twice");
            }
            groups = groups.saturating_add(part.size_bytes.div_ceil(GROUP));
        }
        if groups > MOST_GROUPS {
            bail!("more than 1 TiB");
        }
        Ok(Self { head, payload: payload.to_vec(), signatures: signatures.to_vec() })
    }

    /// The file's content.
    pub fn print(&self) -> Vec<u8> {
        [&self.payload[..], &self.signatures].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A head of a made-up image.
    pub(crate) fn sample() -> Head {
        let part =
            |file: &str, size_bytes| Part { file: file.to_owned(), size_bytes, blake3: "0".repeat(64) };
        Head {
            format_version: FORMAT_VERSION,
            kind: Kind::Image,
            name: "x".parse().unwrap(),
            version: "0123456789abcdef0123456789abcdef".to_owned(),
            sequence: 3,
            built_at_epoch_seconds: 0,
            pushed_at_epoch_seconds: 0,
            pushed_by: "test".to_owned(),
            parts: vec![part("manifest.json", 10), part("disk.ext4", 1 << 20)],
            index_size_bytes: 16,
            index_blake3: "0".repeat(64),
        }
    }

    #[test]
    fn a_head_and_what_is_signed_of_it_are_read_again() {
        let signed =
            Signed { head: sample(), payload: sample().print().unwrap(), signatures: b"armour\n".to_vec() };
        assert_eq!(Signed::parse(&signed.print()).unwrap(), signed);
        assert_eq!(signed.head.groups(), 17);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "../disk", "a/b", ".hidden", "a\nb", "disk.ext4"] {
            let mut head = sample();
            head.parts[0].file = bad.to_owned();
            assert!(Signed::parse(&head.print().unwrap()).is_err(), "{bad:?}");
        }
        for bad in ["", "../../../../../../../../../etc/pas"] {
            let head = Head { version: bad.to_owned(), ..sample() };
            assert!(Signed::parse(&head.print().unwrap()).is_err(), "{bad:?}");
        }
        let mut head = sample();
        head.parts[0].size_bytes = u64::MAX;
        assert!(Signed::parse(&head.print().unwrap()).is_err());
    }

    #[test]
    fn a_later_format_is_told_of() {
        let head = Head { format_version: 2, ..sample() };
        let error = format!("{:#}", Signed::parse(&head.print().unwrap()).unwrap_err());
        assert_eq!(error, "reading the head of a version: it has format 2, this program knows 1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..400_usize, to in any::<u8>()) {
            let _ = Signed::parse(&bytes);
            let mut good = sample().print().unwrap();
            let at = at % good.len();
            good[at] = to;
            let _ = Signed::parse(&good);
        }
    }
}

//! What an image is made of: the file `images/NAME.toml`, checked as it is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::files::Files;
use crate::names::{BadName, Bytes, ImageName};

/// One image, as its file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The image's name; the file is called `NAME.toml`.
    pub name: ImageName,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// Whether it is a machine's own: kernel and initial ram disk then stay in its `/boot`. From other images they are taken
    /// out, for whoever runs the guest. (Left out of the digest where it is not set, so that older images stay what they are.)
    #[serde(default, skip_serializing_if = "is_not")]
    pub bootable: bool,
    /// Which packages of which release, of Debian or what is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<Debian>,
    /// The same of the Red Hat family. A definition has one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpm: Option<Rpm>,
    /// Profiles whose packages are installed, too, so that guests of them find theirs. (Left out of the digest where there is none:
    /// the packages are in it.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Word>,
    /// The filesystem that is made of them.
    pub filesystem: Filesystem,
    /// What runs at boot and what does not.
    #[serde(default)]
    pub units: Units,
    /// Files that are written, in this order.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
    /// Symbolic links: where, and what they hold.
    #[serde(default)]
    pub links: BTreeMap<GuestPath, String>,
    /// Commands (program and arguments) run inside the tree.
    #[serde(default)]
    pub customise: Vec<Vec<String>>,
    /// A shell script run inside the tree after them. (Left out of the digest where there is none.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Whether commands and the script may use the host's network; what they fetch is theirs to keep the same.
    #[serde(default, skip_serializing_if = "is_not")]
    pub network: bool,
    /// Shell patterns of what is removed last.
    #[serde(default)]
    pub remove: Vec<GuestPath>,
}

/// Packages and where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Code name of the release, such as `bookworm`.
    pub release: Word,
    /// mmdebstrap's variant: how much is installed besides the packages named.
    #[serde(default = "minbase")]
    pub variant: Word,
    /// Base address of an archive; left out, the building host's own package sources.
    #[serde(default)]
    pub mirror: Option<String>,
    /// Packages by name.
    pub packages: Vec<Word>,
    /// Patterns that dpkg does not unpack.
    #[serde(default)]
    pub exclude: Vec<GuestPath>,
    /// Exceptions from `exclude`.
    #[serde(default)]
    pub include: Vec<GuestPath>,
}

/// RPM packages and where they come from; dnf(8) installs them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rpm {
    /// What `$releasever` stands for, such as `9`.
    pub release: Word,
    /// Repositories by name; left out, those that the building host's own dnf knows.
    #[serde(default)]
    pub repositories: BTreeMap<Word, Repository>,
    /// Packages, and groups with a `@`.
    pub packages: Vec<Word>,
    /// Packages that are not installed, whoever asks for them.
    #[serde(default)]
    pub exclude: Vec<Word>,
    /// Where the system's own rpm looks for its records, which is somewhere else in Fedora: `/usr/lib/sysimage/rpm`.
    #[serde(default = "rpm_records")]
    pub records: GuestPath,
}

/// A repository of RPM packages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Its base address; dnf puts in `$releasever` and `$basearch`.
    pub url: String,
    /// A file of this host with the key that signs its packages.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Packages that nobody has signed are taken.
    #[serde(default)]
    pub unsigned: bool,
}

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin<'d> {
    /// Debian's kind of archive.
    Debian(&'d Debian),
    /// Repositories of RPM packages.
    Rpm(&'d Rpm),
}

/// The raw ext4 filesystem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// Its size; clones are grown from it.
    #[serde(with = "size")]
    pub size: Bytes,
    /// Volume label, at most 16 bytes (ext4 has no room for more).
    #[serde(default)]
    pub label: Label,
    /// mke2fs `-O` features on top of its defaults; `^` takes one away.
    #[serde(default)]
    pub features: Vec<Word>,
}

/// systemd's units.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Units {
    /// The target to boot to.
    pub default: Option<Word>,
    /// Started at boot.
    pub enable: Vec<Word>,
    /// Not started at boot.
    pub disable: Vec<Word>,
    /// Cannot be started at all.
    pub mask: Vec<Word>,
}

/// A file that is written as a whole; its directories are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where in the guest.
    pub path: GuestPath,
    /// Permissions, in octal.
    pub mode: Mode,
    /// The text.
    pub content: String,
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(why) => Err(BadName(format!("'{text}' {why}"))),
                }
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> String {
                checked.0
            }
        }
    };
}

checked_text! {
    /// A name of a package, unit, release or feature: never empty, never an option, no white space and no comma, so that
    /// it stays one word on any command line.
    Word, |text| match text.as_bytes() {
        [] => Err("is empty"),
        [b'-', ..] => Err("must not start with '-'"),
        bytes if bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.+:@^~=/\\".contains(b)) => Ok(()),
        _ => Err("may have only letters, digits and '-_.+:@^~=/\\'"),
    }
}

checked_text! {
    /// An absolute path in the guest, or a pattern of paths, that names no parent directory.
    GuestPath, |text| {
        let mut parts = text.split('/');
        if parts.next() != Some("") || text.len() < 2 {
            Err("must be an absolute path")
        } else if parts.any(|part| part == ".." || part == ".") {
            Err("must not contain '.' or '..'")
        } else if text.contains(char::is_control) {
            Err("must not contain control characters")
        } else {
            Ok(())
        }
    }
}

checked_text! {
    /// Permissions in octal, such as `0644`.
    Mode, |text| {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if octal && (3..=4).contains(&text.len()) { Ok(()) } else { Err("must be three or four octal digits") }
    }
}

checked_text! {
    /// A volume label.
    Label, |text| match text.len() {
        0..=16 if !text.starts_with('-') && !text.contains(char::is_control) => Ok(()),
        _ => Err("must have at most 16 bytes"),
    }
}

/// Sizes are written with a unit, as everywhere in a site's files.
mod size {
    use super::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|why| D::Error::custom(format!("'{text}' {why}")))
    }

    pub(super) fn serialize<S: Serializer>(size: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(size.0)
    }
}

fn is_not(flag: &bool) -> bool {
    !flag
}

fn rpm_records() -> GuestPath {
    GuestPath("/var/lib/rpm".to_owned())
}

fn minbase() -> Word {
    Word("minbase".to_owned())
}

impl Definition {
    /// Reads the text of a definition; `file` is named in errors, with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let definition: Self = toml::from_str(text).map_err(|e| {
            let (line, column) = position(text, e.span().map_or(0, |span| span.start));
            anyhow::anyhow!("{file}:{line}:{column}: {}", e.message().replace('\n', " "))
        })?;
        if definition.customise.iter().any(Vec::is_empty) {
            bail!("{file}: an entry of 'customise' names no program");
        }
        definition.origin().with_context(|| file.to_owned())?;
        Ok(definition)
    }

    /// With these packages besides its own, each once.
    pub fn with_packages(mut self, more: Vec<String>) -> Result<Self> {
        let own = match (&mut self.debian, &mut self.rpm) {
            (Some(debian), _) => &mut debian.packages,
            (None, Some(rpm)) => &mut rpm.packages,
            (None, None) => bail!("image '{}' has no packages", self.name),
        };
        for package in more {
            let package = Word::try_from(package).with_context(|| format!("image '{}'", self.name))?;
            if !own.contains(&package) {
                own.push(package);
            }
        }
        Ok(self)
    }

    /// Where packages come from; an error if a definition that nobody has checked says nothing of it, or two things.
    pub fn origin(&self) -> Result<Origin<'_>> {
        let rpm = match (&self.debian, &self.rpm) {
            (Some(debian), None) => return Ok(Origin::Debian(debian)),
            (None, Some(rpm)) => rpm,
            _ => bail!("it says what to install in one of [debian] and [rpm]"),
        };
        for (name, repository) in &rpm.repositories {
            let key = repository.key.as_ref().map(|key| key.display().to_string()).unwrap_or_default();
            if repository.url.contains(char::is_control) || key.contains(|c: char| c.is_control() || c == ' ')
            {
                bail!("repository '{}' has an address or a key that is none", name.as_str());
            }
            if repository.key.is_none() && !repository.unsigned {
                bail!(
                    "repository '{}' has no key, so that anybody could have made its packages; hint: key = FILE, or unsigned = true",
                    name.as_str()
                );
            }
        }
        Ok(Origin::Rpm(rpm))
    }

    /// What the image depends on, as one number: two definitions that differ only in comments or order of keys have one
    /// digest. It changes with the way images are built, too.
    pub fn digest(&self) -> Result<String> {
        let text = serde_json::to_vec(&(BUILD_GENERATION, std::env::consts::ARCH, self))
            .with_context(|| format!("computing the digest of image '{}'", self.name))?;
        Ok(blake3::hash(&text).to_hex().to_string())
    }
}

/// Counts up when the same definition gives another image than before, so that cached ones are built again.
const BUILD_GENERATION: u32 = 1;

/// Line and column, both from 1, of a byte offset; the column counts characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Definitions that come with the program, for when none is installed beside it.
const SHIPPED: [(&str, &str); 3] = [
    ("debian-12", include_str!("../../images/debian-12.toml")),
    ("debian-13", include_str!("../../images/debian-13.toml")),
    ("gateway", include_str!("../../images/gateway.toml")),
];

/// The definition of that name: the site's own (`SITE/images/`), else an installed one (`PREFIX/share/gridgate/images/`
/// where the program is `PREFIX/bin/gridgate`), else the one that the program was built with.
pub fn find(files: &dyn Files, site: &Path, name: &ImageName) -> Result<Definition> {
    let program = std::env::current_exe().unwrap_or_default();
    let installed = program.parent().and_then(Path::parent).map(|p| p.join("share/gridgate/images"));
    for dir in [Some(site.join("images")), installed].into_iter().flatten() {
        let path: PathBuf = dir.join(format!("{name}.toml"));
        if let Some(bytes) = files.read(&path)? {
            let text = String::from_utf8(bytes).with_context(|| format!("reading '{}'", path.display()))?;
            return named(
                name,
                Definition::parse(&path.display().to_string(), &text)?,
                &path.display().to_string(),
            );
        }
    }
    match SHIPPED.iter().find(|(shipped, _)| *shipped == name.as_str()) {
        Some((_, text)) => Definition::parse(&format!("images/{name}.toml"), text),
        None => bail!(
            "image '{name}' has no definition; hint: write '{}', or take one of these: {}",
            site.join("images").join(format!("{name}.toml")).display(),
            SHIPPED.map(|(shipped, _)| shipped).join(", ")
        ),
    }
}

fn named(name: &ImageName, definition: Definition, file: &str) -> Result<Definition> {
    if definition.name != *name {
        bail!("{file}: the image calls itself '{}', but its file is named '{name}.toml'", definition.name);
    }
    Ok(definition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: &str =
        "name = 'x'\n[debian]\nrelease = 'bookworm'\npackages = ['systemd']\n[filesystem]\nsize = '1G'\n";

    #[test]
    fn every_shipped_definition_is_valid_and_named_as_its_file() {
        for (name, text) in SHIPPED {
            let definition = Definition::parse(name, text).unwrap();
            assert_eq!(definition.name.as_str(), name);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_column() {
        let text = SMALL.replace("size =", "sice =");
        let error = Definition::parse("x.toml", &text).unwrap_err().to_string();
        assert!(error.starts_with("x.toml:6:1: unknown field `sice`"), "{error}");
    }

    #[test]
    fn a_path_that_climbs_out_is_refused_where_it_stands() {
        let text = format!("{SMALL}[[file]]\npath = '/etc/../../x'\nmode = '0644'\ncontent = ''\n");
        let error = Definition::parse("x.toml", &text).unwrap_err().to_string();
        assert_eq!(error, "x.toml:8:8: '/etc/../../x' must not contain '.' or '..'");
    }

    #[test]
    fn one_kind_of_packages_is_named_and_a_repository_has_a_key_or_says_why_not() {
        let told = |text: &str| format!("{:#}", Definition::parse("x.toml", text).unwrap_err());
        let none = "name = 'x'\n[filesystem]\nsize = '1G'\n";
        let which = "x.toml: it says what to install in one of [debian] and [rpm]";
        let rpm = "[rpm]\nrelease = '9'\npackages = ['@core']\n";
        assert_eq!(told(none), which);
        assert_eq!(told(&format!("{SMALL}{rpm}")), which);
        let repository = format!("{none}{rpm}[rpm.repositories.base]\nurl = 'http://x.example/9'\n");
        assert!(told(&repository).contains("repository 'base' has no key"), "{}", told(&repository));
        for more in ["unsigned = true\n", "key = '/etc/pki/x'\n"] {
            Definition::parse("x.toml", &format!("{repository}{more}")).unwrap();
        }
        assert!(told(&format!("{repository}key = '/x /y'\n")).contains("that is none"));
    }

    #[test]
    fn packages_of_profiles_come_to_those_of_its_own_and_change_the_digest() {
        let own = Definition::parse("x.toml", SMALL).unwrap();
        let more = own.clone().with_packages(vec!["munge".to_owned(), "systemd".to_owned()]).unwrap();
        let packages: Vec<&str> = more.debian.as_ref().unwrap().packages.iter().map(Word::as_str).collect();
        assert_eq!(packages, ["systemd", "munge"]);
        assert_ne!(own.digest().unwrap(), more.digest().unwrap());
        assert!(own.with_packages(vec!["--hook".to_owned()]).is_err());
    }

    #[test]
    fn a_package_that_is_an_option_is_refused() {
        let text = SMALL.replace("'systemd'", "'--hook'");
        assert!(Definition::parse("x.toml", &text).is_err());
    }

    #[test]
    fn only_what_an_image_depends_on_changes_its_digest() {
        let read = |text: &str| Definition::parse("x", text).unwrap().digest().unwrap();
        assert_eq!(read(SMALL), read(&format!("# a comment\n{SMALL}")));
        assert_eq!(read(SMALL), read(&SMALL.replace("'1G'", "'1024M'")));
        assert_ne!(read(SMALL), read(&SMALL.replace("'systemd'", "'systemd', 'dbus'")));
    }

    #[test]
    fn a_site_s_own_definition_goes_before_the_shipped_one() {
        let site = tempfile::tempdir().unwrap();
        std::fs::create_dir(site.path().join("images")).unwrap();
        let name: ImageName = "debian-12".parse().unwrap();
        let shipped = find(&crate::host::Live, site.path(), &name).unwrap();
        assert_eq!(shipped.debian.unwrap().release.as_str(), "bookworm");
        let path = site.path().join("images/debian-12.toml");
        std::fs::write(&path, SMALL.replace("'x'", "'debian-12'").replace("bookworm", "trixie")).unwrap();
        let own = find(&crate::host::Live, site.path(), &name).unwrap();
        assert_eq!(own.debian.unwrap().release.as_str(), "trixie");
        std::fs::write(&path, SMALL).unwrap();
        let error = find(&crate::host::Live, site.path(), &name).unwrap_err().to_string();
        assert!(
            error.ends_with("the image calls itself 'x', but its file is named 'debian-12.toml'"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_a_position(text in "\\PC{0,200}") {
            if let Err(e) = Definition::parse("x.toml", &text) {
                prop_assert!(e.to_string().starts_with("x.toml:"));
            }
        }

        #[test]
        fn any_change_of_a_valid_definition_is_read_or_refused(at in 0usize..SMALL.len(), with in "\\PC{0,3}") {
            let mut text = SMALL.to_owned();
            text.replace_range(at..at + 1, &with);
            let _ = Definition::parse("x.toml", &text);
        }
    }
}

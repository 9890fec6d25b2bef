//! A bundle becomes files again, beside everything else of the centre, for as long as a command takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::contents::Contents;
use super::{IDENTITIES, PROGRAM, SITES};
use crate::archive::manifest::OwnName;
use crate::archive::reader::Reader;
use crate::archive::restore::{self, Place, Size, Wish};
use crate::host::Host;
use crate::host::target::Target;
use crate::host::temporary::Maker;
use crate::machine::program::Program;
use crate::machine::stock::Stock;
use crate::names::{Bytes, SiteName};
use crate::paths::Paths;
use crate::progress::Progress;

/// A bundle's files. They are removed when this is dropped; those of a command that was killed, by the next one and by `gc`.
#[derive(Debug)]
pub struct Unpacked {
    /// What is in it.
    pub contents: Contents,
    all: PathBuf,
    _making: Making,
}

#[derive(Debug)]
struct Making(PathBuf);

/// Where bundles are unpacked.
pub fn place(state: &Path) -> PathBuf {
    state.join("bundles")
}

/// Unpacks all of it; everything is verified when this is done. The caller has asked who signed it, and [`super::contents::check`].
pub fn unpack(host: &dyn Host, state: &Path, reader: Reader, progress: &Progress) -> Result<Unpacked> {
    let place = place(state);
    host.make_dir(&place, 0o700)?;
    for left in host.abandoned(&place)? {
        host.remove(&left)?;
    }
    let manifest = reader.manifest.clone();
    let room = host.free_bytes(&place)?;
    if manifest.head.data_bytes > room {
        bail!(
            "unpacking the bundle takes {}, and '{}' has {} left; hint: --state DIR on another disk",
            Bytes(manifest.head.data_bytes),
            place.display(),
            Bytes(room)
        );
    }
    let making = Making(place.join(Maker::this().name("bundle")));
    let (all, own) = (making.0.join("all"), making.0.join("own"));
    for dir in [&making.0, &own] {
        host.make_dir(dir, 0o700)?;
    }
    let wish = Wish { kind: None, size: Size::Usual, new_uuid: false, verify: false, salvage: false };
    let plan = restore::plan(&manifest, &wish, &Target::Directory { empty: true }, None)?;
    let to = Place::Scratch(all.clone());
    restore::restore(host, reader, &plan, &to, &wish, Some(&own), progress)
        .context("unpacking the bundle")?;
    let bytes =
        host.read(&own.join(OwnName::Bundle.name()))?.context("the bundle's 'bundle.json' is gone")?;
    let contents = Contents::parse(&bytes)?;
    contents.check(&manifest).context("reading the bundle")?;
    Ok(Unpacked { contents, all, _making: making })
}

impl Unpacked {
    /// Where a site's files are.
    pub fn site(&self, name: &SiteName) -> PathBuf {
        self.all.join(SITES).join(name)
    }

    /// Puts a secret file into a site that the bundle does not have.
    pub fn add(&self, host: &dyn Host, site: &SiteName, path: &str, content: &[u8]) -> Result<()> {
        host.write(&self.site(site).join(path), content, 0o600)
    }

    /// What a machine of that site is made of; what is drawn for it is kept in `state`.
    pub fn stock(&self, site: &SiteName, state: &Path) -> Stock {
        let has = self.contents.sites.iter().any(|packed| packed.name == *site && packed.has_identities);
        Stock {
            paths: Paths::new(&self.site(site), &self.all),
            program: Program::From(self.all.join(PROGRAM)),
            state: state.to_owned(),
            identities: has.then(|| self.all.join(IDENTITIES).join(site)),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The next command, or gc, tries again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

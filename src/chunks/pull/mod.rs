//! `gridgate image pull`: the newest version of a name in a store becomes an image of this host.
//!
//! All work is done in `STATE/images/.NAME.pull/`, whose name does not tell who works there: what was fetched before a cut is
//! found again by the next pull of the same name, by its content. The image that is there stays until the new one is whole,
//! and takes its name in one step.

pub mod assemble;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::head::{Head, Kind, Signed};
use super::index::Index;
use super::mirrors::Mirrors;
use super::place::Missing;
use super::seed::Seeds;
use super::{LONGEST_HEAD, LONGEST_INDEX};
use crate::host::Host;
use crate::image::manifest::{self, Manifest, Part};
use crate::image::store;
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::signature::{self, Policy, Purpose, Signer};

/// What is to be pulled, and how.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The image, in the store and here.
    pub name: &'a ImageName,
    /// What is asked of its head.
    pub policy: Policy,
    /// Files or devices that may hold blocks of it, besides what is looked at anyway.
    pub seeds: &'a [PathBuf],
    /// Also a version that is older than the image that is here.
    pub older: bool,
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// What is there now.
    pub manifest: Manifest,
    /// Which version of the store.
    pub version: String,
    /// Who signed it; `None` if nobody was asked for.
    pub signer: Option<Signer>,
    /// Whether it was not here before.
    pub new: bool,
    /// Bytes of files that came.
    pub received_bytes: u64,
}

/// A version that goes away while it is pulled gives way to the newest one so often.
const VERSIONS: usize = 3;

/// Pulls an image. See the module.
pub fn pull(
    host: &dyn Host,
    paths: &Paths,
    request: &Request<'_>,
    mirrors: &Mirrors<'_>,
    progress: &Progress,
) -> Result<Pulled> {
    let name = request.name;
    let work = || -> Result<Pulled> {
        let dir = work_dir(paths, name);
        host.make_dir(&dir, 0o700)?;
        let _lock = host.lock(&dir.join("lock"), Duration::ZERO)?;
        let mut tried: Vec<String> = Vec::new();
        loop {
            let signed = newest(mirrors, name)?;
            let what = format!("version {} of image '{name}'", signed.head.version);
            let signer = signature::check(
                host,
                &what,
                &signed.payload,
                Some(&signed.signatures),
                &request.policy,
                Purpose::Image,
            )?;
            let pull = Pull { host, paths, request, mirrors, progress, head: &signed.head, dir: &dir };
            match pull.run() {
                Ok((manifest, new)) => {
                    let (version, received_bytes) = (signed.head.version, mirrors.received());
                    return Ok(Pulled { manifest, version, signer, new, received_bytes });
                }
                // What a store collects while it is read: there is a newer version then.
                Err(error) if error.is::<Missing>() && tried.len() < VERSIONS => {
                    let again = newest(mirrors, name)?.head.version;
                    if again == signed.head.version || tried.contains(&again) {
                        return Err(error);
                    }
                    progress.say(&format!("version {} is gone, going on with {again}", signed.head.version));
                    tried.push(signed.head.version);
                }
                Err(error) => return Err(error),
            }
        }
    };
    work().with_context(|| format!("pulling image '{name}' from {}", mirrors.shown()))
}

/// Where a pull of that name works.
pub fn work_dir(paths: &Paths, name: &ImageName) -> PathBuf {
    paths.images().join(format!(".{name}.pull"))
}

/// Directories of pulls that were not finished and that nobody has gone on with for so long, for `gc`.
pub fn leftovers(host: &dyn Host, paths: &Paths, untouched: Duration) -> Result<Vec<PathBuf>> {
    let pulls =
        host.list(&paths.images())?.into_iter().filter(|n| n.starts_with('.') && n.ends_with(".pull"));
    let mut left = Vec::new();
    for dir in pulls.map(|name| paths.images().join(name)) {
        let touched = std::fs::metadata(dir.join("lock")).and_then(|meta| meta.modified());
        let old = touched.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > untouched));
        if old && host.lock(&dir.join("lock"), Duration::ZERO).is_ok() {
            left.push(dir);
        }
    }
    Ok(left)
}

fn newest(mirrors: &Mirrors<'_>, name: &ImageName) -> Result<Signed> {
    let mut check = |bytes: &[u8]| {
        let head = Signed::parse(bytes)?.head;
        if head.name != *name {
            bail!("it is a version of image '{}'", head.name);
        }
        Ok(())
    };
    let bytes = mirrors.get(&Head::latest(Kind::Image, name), LONGEST_HEAD, &mut check);
    let bytes = bytes.map_err(|error| match error.is::<Missing>() {
        true => anyhow::anyhow!("there is no such image\n{error}"),
        false => error,
    })?;
    Signed::parse(&bytes)
}

struct Pull<'a> {
    host: &'a dyn Host,
    paths: &'a Paths,
    request: &'a Request<'a>,
    mirrors: &'a Mirrors<'a>,
    progress: &'a Progress,
    head: &'a Head,
    dir: &'a Path,
}

impl Pull<'_> {
    fn run(&self) -> Result<(Manifest, bool)> {
        let (host, name) = (self.host, self.request.name);
        let target = self.paths.image(name);
        let here = store::open(host, self.paths, name).ok();
        if let Some(here) = &here
            && self.is_here(&target)?
        {
            host.remove(self.dir)?;
            return Ok((here.manifest.clone(), false));
        }
        if let Some(here) = here
            && here.manifest.built_at_epoch_seconds > self.head.built_at_epoch_seconds
            && !self.request.older
        {
            let version = &self.head.version;
            bail!(
                "the image that is here was built later than version {version}\nhint: --older takes it all the same"
            );
        }
        let index = self.index()?;
        // What a pull of an older version fetched may hold what this one needs.
        let (now, before) = (self.dir.join(&self.head.version), self.dir.join("before"));
        for found in host.list(self.dir)? {
            if found.len() == 32 && found != self.head.version {
                host.remove(&before)?;
                host.rename(&self.dir.join(found), &before)?;
            }
        }
        host.make_dir(&now, 0o755)?;
        let needed = index.count() * super::blocks::BLOCK as u64;
        let there: u64 = self.head.parts.iter().map(|part| allocated(host, &now.join(&part.file))).sum();
        let free = host.free_bytes(self.dir)?;
        if free.saturating_add(there) < needed {
            let at = self.dir.display();
            bail!("not enough space in '{at}': {} are needed, {} are free", Bytes(needed), Bytes(free));
        }
        let mut seeds = Seeds::default();
        for path in self.seed_files(&before)? {
            seeds.add(path, self.progress)?;
        }
        assemble::assemble(self.mirrors, self.head, &index, &seeds, &now, self.progress)?;
        drop(seeds);
        let manifest = self.check(&now)?;
        for part in &self.head.parts {
            host.sync_file(&now.join(&part.file))?;
        }
        host.publish_dir(&now, &target)?;
        // With the image that was there before.
        host.remove(self.dir)?;
        Ok((manifest, true))
    }

    fn is_here(&self, target: &Path) -> Result<bool> {
        for part in &self.head.parts {
            match self.host.stat(&target.join(&part.file))? {
                Some(stat) if stat.len == part.size_bytes => {}
                _ => return Ok(false),
            }
            // The manifest has digests of the others.
            let small = [manifest::FILE, manifest::SIGNATURES].contains(&part.file.as_str());
            if small && store::blake3_of(&target.join(&part.file), self.progress)? != part.blake3 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn index(&self) -> Result<Index> {
        let head = self.head;
        if head.index_size_bytes > LONGEST_INDEX {
            bail!("the index of version {} would have {}", head.version, Bytes(head.index_size_bytes));
        }
        let mut check = |bytes: &[u8]| match blake3::hash(bytes).to_hex().as_str() == head.index_blake3 {
            true => Ok(()),
            false => bail!("'{}' is not what the version's head says", head.index()),
        };
        let file = self.dir.join("index");
        if let Some(bytes) = self.host.read(&file)?
            && check(&bytes).is_ok()
        {
            return Index::parse(&bytes, head.groups());
        }
        let bytes = self.mirrors.get(&head.index(), head.index_size_bytes, &mut check)?;
        self.host.write(&file, &bytes, 0o600)?;
        Index::parse(&bytes, head.groups())
    }

    /// Files of this host that may hold blocks: those that were named, the image of the same name, or else of all others.
    fn seed_files(&self, before: &Path) -> Result<Vec<PathBuf>> {
        let mut files = self.request.seeds.to_vec();
        for path in &files {
            if self.host.stat(path)?.is_none() {
                bail!("the seed '{}' is not there", path.display());
            }
        }
        let mut dirs = vec![before.to_owned(), self.paths.image(self.request.name)];
        if self.host.stat(&dirs[1])?.is_none() {
            let all = store::list(self.host, self.paths)?;
            dirs.extend(all.into_iter().map(|(name, _)| self.paths.image(&name)));
        }
        for dir in dirs {
            for name in self.host.list(&dir)? {
                let path = dir.join(name);
                if self.host.stat(&path)?.is_some_and(|stat| !stat.is_dir) && path.is_file() {
                    files.push(path);
                }
            }
        }
        Ok(files)
    }

    /// Reads all that was made, and holds it against the head and the image's own manifest.
    fn check(&self, dir: &Path) -> Result<Manifest> {
        for part in &self.head.parts {
            let found = store::blake3_of(&dir.join(&part.file), self.progress)?;
            if found != part.blake3 {
                self.host.remove(dir)?;
                bail!(
                    "'{}' came together wrong\nhint: try again; if that fails, the store is damaged",
                    part.file
                );
            }
        }
        let bytes = self.host.read(&dir.join(manifest::FILE))?.context("the version has no manifest")?;
        let manifest = Manifest::parse(&bytes)?;
        if manifest.name != *self.request.name {
            bail!("its manifest is that of image '{}'", manifest.name);
        }
        let of = |part: &Part| self.head.parts.contains(part);
        let disk = &manifest.disk;
        let disk = Part { file: disk.file.clone(), size_bytes: disk.size_bytes, blake3: disk.blake3.clone() };
        let others: Vec<&Part> = [&manifest.kernel, &manifest.initrd].into_iter().flatten().collect();
        let built = manifest.built_at_epoch_seconds == self.head.built_at_epoch_seconds;
        if !built || !of(&disk) || !others.iter().all(|part| of(part)) {
            bail!("its manifest and its head do not agree");
        }
        let own = [manifest::FILE, manifest::SIGNATURES];
        let named =
            |part: &Part| *part == disk || others.contains(&part) || own.contains(&part.file.as_str());
        match self.head.parts.iter().find(|part| !named(part)) {
            Some(part) => bail!("its manifest does not know its file '{}'", part.file),
            None => Ok(manifest),
        }
    }
}

fn allocated(host: &dyn Host, path: &Path) -> u64 {
    host.stat(path).ok().flatten().map_or(0, |stat| stat.allocated)
}

//! A backup, on this machine: all of it, or nothing.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::commit::{self, Plan};
use super::list::{self, Listed};
use super::manifest::{self, Entry, Manifest, Tree, What};
use super::standby::{self, Standby};
use crate::chunks::blocks::BLOCK;
use crate::chunks::head::{Head, Signed};
use crate::chunks::keep;
use crate::chunks::mirrors::Mirrors;
use crate::chunks::place::Place;
use crate::chunks::pull::assemble;
use crate::chunks::seed::Seeds;
use crate::host::Host;
use crate::host::files::LockGuard;
use crate::host::refused::Refused;
use crate::image::{self, store};
use crate::names::{Bytes, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::service::desired::Desired;
use crate::service::direct;
use crate::signature::{self, Policy, Purpose, Signer};

/// Which backup, and how it is restored.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which site; needed where a store has several.
    pub site: Option<ImageName>,
    /// The newest that was taken at or before this time (seconds since 1970); the newest of all if `None`.
    pub at: Option<u64>,
    /// What is asked of it.
    pub policy: Policy,
    /// In place of a site that is here.
    pub replace: bool,
    /// Guests stay stopped, and the next one may come.
    pub standby: bool,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What it is.
    pub manifest: Manifest,
    /// Which version of the store.
    pub version: String,
    /// Who signed it; `None` if nobody was asked for.
    pub signer: Option<Signer>,
    /// Bytes of files that came.
    pub received_bytes: u64,
}

/// Finds the backup that is meant.
pub fn choose(place: &dyn Place, request: &Request) -> Result<Signed> {
    let shown = place.shown();
    let site = match &request.site {
        Some(site) => site.clone(),
        None => match &list::sites(place)?[..] {
            [site] => site.clone(),
            [] => bail!("there is no backup in '{shown}'"),
            several => {
                let names: Vec<&str> = several.iter().map(ImageName::as_str).collect();
                bail!("'{shown}' has backups of several sites\nhint: --name, one of {}", names.join(", "));
            }
        },
    };
    let found = list::of_site(place, &site)?;
    let early = |listed: &Listed| request.at.is_none_or(|at| listed.signed.head.built_at_epoch_seconds <= at);
    match found.into_iter().find(early) {
        Some(listed) => Ok(listed.signed),
        None => bail!("there is no backup of site '{site}' in '{shown}' that was taken by then"),
    }
}

/// Fetches the backup and makes it what this machine is. `lock` takes the site's lock, which is held at the end only.
pub fn restore(
    host: &dyn Host,
    paths: &Paths,
    place: Box<dyn Place>,
    request: &Request,
    lock: &dyn Fn() -> Result<LockGuard>,
    progress: &Progress,
) -> Result<Restored> {
    drop(lock()?);
    allowed(host, paths, request)?;
    let signed = choose(&*place, request)?;
    let head = &signed.head;
    let what = format!("backup {} of site '{}'", head.version, head.name);
    let signer = match &request.policy {
        Policy::Unsigned => None,
        Policy::SignedBy(file) => {
            let good = signature::verify(host, &signed.payload, &signed.signatures, file, Purpose::Backup);
            Some(good.with_context(|| format!("checking who signed {what}"))?)
        }
    };
    let index = keep::index(&*place, head)?;
    let mirrors = Mirrors::new(vec![place], progress);
    let work = || -> Result<Manifest> {
        let dir = commit::work_dir(paths);
        make_dir(&dir)?;
        let _mine = host.lock(&dir.join("lock"), Duration::ZERO)?;
        let fetched = dir.join(&head.version);
        for found in host.list(&dir)? {
            if found != "lock" && found != head.version {
                host.remove(&dir.join(found))?;
            }
        }
        make_dir(&fetched)?;
        forget_disks_in_use(host, &fetched)?;
        let here = clone_what_is_here(host, paths, head, &fetched, progress)?;
        let needed = index.count() * BLOCK as u64;
        let there: u64 = head.parts.iter().map(|part| allocated(host, &fetched.join(&part.file))).sum();
        let free = host.free_bytes(&dir)?;
        if free.saturating_add(there) < needed {
            let at = dir.display();
            bail!("not enough space in '{at}': {} are needed, {} are free", Bytes(needed), Bytes(free));
        }
        let mut seeds = Seeds::default();
        for path in seed_files(host, paths, head, &here)? {
            seeds.add(path, progress)?;
        }
        assemble::assemble(&mirrors, head, &index, &seeds, &fetched, progress)?;
        drop(seeds);
        let manifest = check(host, head, &fetched, progress)?;
        let plan = lay_out(host, paths, &manifest, request, &fetched)?;
        let _lock = lock()?;
        allowed(host, paths, request)?;
        commit::commit(host, paths, &plan)?;
        commit::finish(host, paths)?;
        Ok(manifest)
    };
    let manifest = work().with_context(|| format!("restoring {what}"))?;
    Ok(Restored { manifest, version: head.version.clone(), signer, received_bytes: mirrors.received() })
}

/// Refuses to make this machine another one than it is.
fn allowed(host: &dyn Host, paths: &Paths, request: &Request) -> Result<()> {
    let refuse = |text: String| Err(Refused(text).into());
    if direct::any_running(paths) || direct::any_waiting(paths) {
        return refuse("guests run here\nhint: gridgate down, if they are not to run any more".to_owned());
    }
    let standby = Standby::read(host, paths)?;
    if let Some(standby) = standby.filter(|_| request.standby) {
        return match standby.taken_over(host, paths)? {
            Some(guest) => refuse(format!(
                "this machine has taken over: guest '{guest}' was asked to run here\nhint: gridgate stop {guest}, if it is to stand by \
                 again; what was done in its guests since is lost then"
            )),
            None => Ok(()),
        };
    }
    if request.replace {
        return Ok(());
    }
    let hint = "hint: --replace puts the backup in its place";
    if let Some(guest) = host.list(&paths.guests())?.first() {
        return refuse(format!("there is a guest '{guest}' here\n{hint}"));
    }
    for file in ["site.toml", "site.conf"] {
        let path = paths.site.join(file);
        if host.stat(&path)?.is_some() {
            return refuse(format!("there is a site here: '{}'\n{hint}", path.display()));
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("making directory '{}'", path.display()))
}

/// A restore that was killed when all was in place already, and only its own directory had to go: what has a second name there is a
/// disk of this machine, and must not be written to.
fn forget_disks_in_use(host: &dyn Host, fetched: &Path) -> Result<()> {
    for name in host.list(fetched)? {
        let path = fetched.join(name);
        let meta = fs::symlink_metadata(&path).with_context(|| format!("looking at '{}'", path.display()))?;
        if meta.nlink() > 1 {
            host.remove(&path)?;
        }
    }
    Ok(())
}

fn allocated(host: &dyn Host, path: &Path) -> u64 {
    host.stat(path).ok().flatten().map_or(0, |stat| stat.allocated)
}

/// Where a disk of that part would be here.
fn disk_here(paths: &Paths, part: &str) -> Option<PathBuf> {
    part.strip_suffix(".disk")?.parse().ok().map(|guest| paths.disk(&guest))
}

/// A disk of an earlier backup shares its blocks with the one that is made of it: only what has changed is written. Those
/// disks.
fn clone_what_is_here(
    host: &dyn Host,
    paths: &Paths,
    head: &Head,
    fetched: &Path,
    progress: &Progress,
) -> Result<Vec<PathBuf>> {
    let mut cloned = Vec::new();
    for part in &head.parts {
        let to = fetched.join(&part.file);
        let Some(here) = disk_here(paths, &part.file).filter(|_| !to.exists()) else { continue };
        if host.stat(&here)?.is_some_and(|stat| stat.len <= part.size_bytes) {
            host.clone_file(&here, &to, part.size_bytes, progress)?;
            cloned.push(here);
        }
    }
    Ok(cloned)
}

/// Files of this machine that may hold blocks of it.
fn seed_files(host: &dyn Host, paths: &Paths, head: &Head, cloned: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = head
        .parts
        .iter()
        .filter_map(|part| disk_here(paths, &part.file))
        .filter(|path| path.is_file())
        .collect();
    // A block that has moved is found there, but it is rare, and reading takes long.
    files.retain(|path| !cloned.contains(path));
    for (_, image) in store::list(host, paths)? {
        files.extend(image.ok().map(|golden| golden.disk));
    }
    Ok(files)
}

/// Reads all that was made, and holds it against the head.
fn check(host: &dyn Host, head: &Head, fetched: &Path, progress: &Progress) -> Result<Manifest> {
    for part in &head.parts {
        let path = fetched.join(&part.file);
        if store::blake3_of(&path, progress)? != part.blake3 {
            host.remove(&path)?;
            bail!(
                "'{}' came together wrong\nhint: try again; if that fails, the store is damaged",
                part.file
            );
        }
    }
    let bytes = host.read(&fetched.join(manifest::FILE))?.context("it does not say what it is made of")?;
    let manifest = Manifest::parse(&bytes)?;
    let same = manifest.site.as_str() == head.name.as_str()
        && manifest.taken_at_epoch_seconds == head.built_at_epoch_seconds;
    if !same {
        bail!("what it is made of and its head do not agree");
    }
    Ok(manifest)
}

/// Puts every file where it belongs, below the directory that is going to be published. What was fetched stays beside it.
fn lay_out(
    host: &dyn Host,
    paths: &Paths,
    manifest: &Manifest,
    request: &Request,
    fetched: &Path,
) -> Result<Plan> {
    let new = commit::work_dir(paths).join(commit::NEW);
    let (state, site) = (new.join(commit::STATE), new.join(commit::SITE));
    for dir in [&new, &state, &site] {
        make_dir(dir)?;
    }
    fs::set_permissions(&site, fs::Permissions::from_mode(manifest.site_mode & 0o777 | 0o700))?;
    let small = fetched.join(manifest::SMALL);
    let small = File::open(&small).with_context(|| format!("opening '{}'", small.display()))?;
    let moved = manifest.state_dir != paths.state || manifest.site_dir != paths.site;
    for entry in &manifest.entries {
        // It has paths of the other machine in it; `up` writes it anew.
        if moved && entry.tree == Tree::State && entry.path.ends_with("spec.json") {
            continue;
        }
        let to = if entry.tree == Tree::State { &state } else { &site }.join(&entry.path);
        place_entry(entry, &to, &small, fetched)
            .with_context(|| format!("making '{}' of the backup", entry.path.display()))?;
    }
    let mut publish = Vec::new();
    for name in host.list(&state)? {
        match name.as_str() {
            // Each as a whole, and others stay.
            "guests" | "images" | "kernels" => {
                let inside = host.list(&state.join(&name))?;
                publish.extend(inside.into_iter().map(|inner| Path::new(&name).join(inner)));
            }
            _ => publish.push(PathBuf::from(name)),
        }
    }
    publish.retain(|path| !stays(&paths.state, &state, path));
    let mut retire = Vec::new();
    if request.standby {
        let standby = Standby::of(manifest);
        for guest in &standby.guests {
            let desired = state.join("guests").join(guest).join("desired");
            host.write(&desired, format!("{}\n", Desired::Stopped).as_bytes(), 0o644)?;
        }
        let before = Standby::read(host, paths)?.map(|standby| standby.guests).unwrap_or_default();
        let gone = before.into_iter().filter(|guest| !standby.guests.contains(guest));
        retire.extend(gone.map(|guest| Path::new("guests").join(guest)));
        host.write(&state.join(standby::FILE), &serde_json::to_vec(&standby)?, 0o644)?;
        publish.push(standby::FILE.into());
    } else {
        // This machine is the site from now on.
        retire.push(standby::FILE.into());
    }
    Ok(Plan { site_dir: paths.site.clone(), publish, retire })
}

/// Whether what is here stays: guests that are here may use it, and it does for those that come.
fn stays(here: &Path, there: &Path, path: &Path) -> bool {
    match path.iter().next().and_then(|first| first.to_str()) {
        Some("images") => {
            let manifest = path.join(image::manifest::FILE);
            let read = |dir: &Path| fs::read(dir.join(&manifest)).ok();
            read(here).is_some_and(|bytes| read(there) == Some(bytes))
        }
        Some("kernels") => here.join(path).exists(),
        _ => false,
    }
}

fn place_entry(entry: &Entry, to: &Path, small: &File, fetched: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(entry.mode & 0o777);
    if let Some(dir) = to.parent() {
        make_dir(dir)?;
    }
    match &entry.what {
        What::Dir => {
            make_dir(to)?;
            fs::set_permissions(to, fs::Permissions::from_mode(entry.mode & 0o777 | 0o700))?;
        }
        What::Small { at, len } => {
            // The file's own length is a bound that was checked.
            if at.checked_add(*len).is_none_or(|end| small.metadata().is_ok_and(|meta| end > meta.len())) {
                bail!("it lies beyond the end");
            }
            let mut bytes = vec![0; usize::try_from(*len)?];
            small.read_exact_at(&mut bytes, *at)?;
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(to)?;
            file.write_all_at(&bytes, 0)?;
            file.set_permissions(mode)?;
        }
        What::Part { part } => {
            let name = Path::new(part).file_name().filter(|name| *name == part.as_str());
            let from = fetched.join(name.context("its part has no name")?);
            if fs::symlink_metadata(&from)?.nlink() > 1 {
                bail!("two files have the same part");
            }
            // A second name, so that one who is killed here finds it again.
            fs::hard_link(&from, to)?;
            fs::set_permissions(to, mode)?;
        }
    }
    Ok(())
}

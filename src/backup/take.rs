//! The moment: guests are held still, their disks cloned, and let go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::manifest::{self, FORMAT_VERSION, Manifest, Tree};
use super::small::{Gathered, Large};
use crate::backend::spec::{Engine, Spec};
use crate::config::site::Site;
use crate::console::record::RunRecord;
use crate::host::disks::CloneHow;
use crate::host::refused::Refused;
use crate::host::root::Root;
use crate::host::temporary::{self, Maker};
use crate::host::{Host, freeze};
use crate::identity::personalise;
use crate::image::store;
use crate::machine::site_files;
use crate::names::{Bytes, GuestName, ImageName};
use crate::paths::Paths;
use crate::progress::Progress;
use crate::service::{launch, still};

/// What a backup is to be of.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Guests; all that have a disk here if none is named.
    pub guests: Vec<GuestName>,
    /// Guests may be held for as long as a copy of their disk takes, where the filesystem cannot share blocks.
    pub long_pause: bool,
}

/// A site at one moment, in files of this machine. They go when it is dropped, or to `gridgate gc`.
pub struct Taken<'h> {
    host: &'h dyn Host,
    /// Where they are.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// The files, each with its length.
    pub files: Vec<(PathBuf, u64)>,
}

impl std::fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // What stays is found by its name.
        let _ = self.host.remove(&self.dir);
    }
}

/// Milliseconds are wanted; seconds are a disk that is overloaded, and more is something that hangs.
const PAUSE_LIMIT: Duration = Duration::from_secs(30);
/// A guessed lower bound for the pace of a copy, in bytes a second.
const SLOW: u64 = 10 << 20;

/// What a directory is for that is half made.
const STAGE: &str = "backup";

struct Running {
    spec: Spec,
    record: RunRecord,
}

/// Takes it. The caller holds the site's lock.
pub fn take<'h>(
    host: &'h dyn Host,
    paths: &Paths,
    site: &Site,
    request: &Request,
    progress: &Progress,
) -> Result<Taken<'h>> {
    let Chosen { guests, running, shares } = choose(host, paths, request)?;
    // Disks that share their blocks no more take up room.
    temporary::sweep(&paths.state, STAGE);
    let dir = paths.state.join(Maker::this().name(STAGE));
    host.make_dir(&dir, 0o700)?;
    let taken_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        site: site.name.clone(),
        taken_at_epoch_seconds: taken_at,
        taken_by: format!("gridgate {}", env!("CARGO_PKG_VERSION")),
        site_dir: paths.site.clone(),
        site_mode: fs::metadata(&paths.site).map_or(0o755, |meta| meta.permissions().mode() & 0o777),
        state_dir: paths.state.clone(),
        guests: Vec::new(),
        entries: Vec::new(),
    };
    let mut taken = Taken { host, dir, manifest, files: Vec::new() };
    let moment = Moment { host, paths, dir: &taken.dir, shares, progress };
    let mut found = moment.running(&running)?;
    found.extend(
        moment.stopped(guests.iter().filter(|guest| !running.iter().any(|r| r.spec.guest == **guest)))?,
    );
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let gathered = gather(host, paths, site, &guests, &taken.dir)?;
    taken.manifest.guests = found;
    taken.manifest.entries = gathered.entries;
    let small = taken.dir.join(manifest::SMALL);
    host.write(&small, &gathered.small, 0o600)?;
    let printed = taken.manifest.print()?;
    let file = taken.dir.join(manifest::FILE);
    host.write(&file, &printed, 0o600)?;
    taken.files = vec![(file, printed.len() as u64), (small, gathered.small.len() as u64)];
    taken.files.extend(gathered.parts);
    Ok(taken)
}

/// Whose disks are to be copied.
struct Chosen {
    guests: Vec<GuestName>,
    /// Those of them that run.
    running: Vec<Running>,
    shares: bool,
}

/// Looks who is meant, and refuses what would hold somebody for too long.
fn choose(host: &dyn Host, paths: &Paths, request: &Request) -> Result<Chosen> {
    let guests = guests(host, paths, request)?;
    let mut running = Vec::new();
    for guest in &guests {
        let alive = RunRecord::read(paths, guest)?.filter(RunRecord::is_alive);
        if let (Some(record), Some(spec)) = (alive, Spec::read(host, paths, guest)?) {
            running.push(Running { spec, record });
        }
    }
    // Those whose processors stand still are held last, and so for the shortest time.
    running.sort_by_key(|running| match running.spec.engine {
        Engine::Nspawn => 0,
        Engine::Qemu { .. } => 1,
        Engine::Uml { .. } => 2,
    });
    let shares = host.stat(&paths.guests())?.is_none() || freeze::shares_blocks(&paths.guests())?;
    if !shares && !running.is_empty() && !request.long_pause {
        return Err(long_pause(host, paths, &running)?.into());
    }
    for guest in &guests {
        personalise::settle(host, paths, guest)?;
    }
    Ok(Chosen { guests, running, shares })
}

/// A copy of one guest's disk as it is at one moment, in that directory; a guest that runs is held for that moment. The caller
/// holds the site's lock.
pub fn disk_of(
    host: &dyn Host,
    paths: &Paths,
    guest: &GuestName,
    long_pause: bool,
    dir: &Path,
    progress: &Progress,
) -> Result<PathBuf> {
    let request = Request { guests: vec![guest.clone()], long_pause };
    let Chosen { guests, running, shares } = choose(host, paths, &request)?;
    let moment = Moment { host, paths, dir, shares, progress };
    if moment.running(&running)?.is_empty() {
        moment.stopped(guests.iter())?;
    }
    Ok(dir.join(disk_part(guest)))
}

fn guests(host: &dyn Host, paths: &Paths, request: &Request) -> Result<Vec<GuestName>> {
    let mut all = Vec::new();
    for name in host.list(&paths.guests())? {
        if let Ok(guest) = name.parse::<GuestName>()
            && host.stat(&paths.disk(&guest))?.is_some()
        {
            all.push(guest);
        }
    }
    match request.guests.iter().find(|guest| !all.contains(guest)) {
        Some(guest) => bail!("guest '{guest}' has no disk here; hint: gridgate up {guest}"),
        None if request.guests.is_empty() => Ok(all),
        None => Ok(request.guests.clone()),
    }
}

fn long_pause(host: &dyn Host, paths: &Paths, running: &[Running]) -> Result<Refused> {
    let mut each = Vec::new();
    for Running { spec, .. } in running {
        let bytes = host.stat(&spec.disk)?.map_or(0, |stat| stat.allocated);
        each.push(format!("{} ({})", spec.guest, Bytes(bytes)));
    }
    let (dir, each) = (paths.guests(), each.join(", "));
    Ok(Refused(format!(
        "the filesystem of '{}' cannot share blocks, so that each guest that runs would be held for as long as its disk is copied: \
         {each}\nhint: have the state directory on XFS or btrfs, stop the guests before, or --allow-long-pause",
        dir.display()
    )))
}

/// The name of a guest's disk among the files of a backup.
fn disk_part(guest: &GuestName) -> String {
    format!("{guest}.disk")
}

struct Moment<'a> {
    host: &'a dyn Host,
    paths: &'a Paths,
    dir: &'a Path,
    shares: bool,
    progress: &'a Progress,
}

impl Moment<'_> {
    /// Where blocks are shared all guests are held at once, so that what they tell each other agrees.
    fn running(&self, running: &[Running]) -> Result<Vec<manifest::Guest>> {
        for Running { spec, record } in running {
            // The less is dirty, the shorter is the pause; what cannot be written now is written then.
            let early =
                still::write_out(self.paths, spec, record).and_then(|()| self.host.sync_file(&spec.disk));
            if let Err(error) = early {
                self.progress.detail(&format!("{}: it could not write out before: {error:#}", spec.guest));
            }
        }
        let each = if self.shares { running.len() } else { 1 };
        let mut done = Vec::new();
        for some in running.chunks(each.max(1)) {
            done.extend(self.at_once(some)?);
        }
        Ok(done)
    }

    fn at_once(&self, running: &[Running]) -> Result<Vec<manifest::Guest>> {
        let mut ready = Vec::new();
        for Running { spec, record } in running {
            let limit = match self.shares {
                true => PAUSE_LIMIT,
                false => {
                    let bytes = self.host.stat(&spec.disk)?.map_or(0, |stat| stat.allocated);
                    PAUSE_LIMIT + Duration::from_secs(bytes / SLOW)
                }
            };
            ready.push(still::Ready::to_hold(self.paths, spec, record, limit)?);
        }
        let held = ready.into_iter().map(still::Ready::hold).collect::<Result<Vec<_>>>()?;
        let clones = running.iter().map(|Running { spec, .. }| self.clone(&spec.guest, &spec.disk));
        let clones: Vec<Result<u64>> = clones.collect();
        // Everybody goes on before anything is said about anybody.
        let was: Vec<Result<still::Was>> = held.into_iter().map(still::Held::release).collect();
        let mut done = Vec::new();
        for ((Running { spec, .. }, was), disk_bytes) in running.iter().zip(was).zip(clones) {
            let (was, disk_bytes, guest) = (was?, disk_bytes?, &spec.guest);
            let ms = was.paused.as_secs_f64() * 1000.0;
            self.progress.say(&format!("{guest}: {} for {ms:.1} ms", was.way));
            done.push(manifest::Guest {
                name: guest.clone(),
                disk_bytes,
                held: Some(was.way),
                paused_us: u64::try_from(was.paused.as_micros()).ok(),
                clean: was.way.is_clean(),
            });
        }
        Ok(done)
    }

    /// Guests that do not run. Commands that start one wait for the site's lock, a service manager does not.
    fn stopped<'g>(&self, guests: impl Iterator<Item = &'g GuestName>) -> Result<Vec<manifest::Guest>> {
        let mut done = Vec::new();
        for guest in guests {
            let disk_bytes = self.clone(guest, &self.paths.disk(guest))?;
            if launch::is_held(self.paths, guest) {
                bail!("guest '{guest}' was started while its disk was copied; hint: try again");
            }
            let name = guest.clone();
            done.push(manifest::Guest { name, disk_bytes, held: None, paused_us: None, clean: true });
        }
        Ok(done)
    }

    fn clone(&self, guest: &GuestName, disk: &Path) -> Result<u64> {
        let what = || format!("copying guest '{guest}'");
        let size = self.host.stat(disk)?.with_context(what)?.len;
        let how = self.host.clone_file(disk, &self.dir.join(disk_part(guest)), size, self.progress);
        if let (CloneHow::Copied { bytes }, true) = (how.with_context(what)?, self.shares) {
            // A disk elsewhere, by a link.
            self.progress.detail(&format!("{guest}: {} were copied", Bytes(bytes)));
        }
        Ok(size)
    }
}

/// What belongs to one boot of one machine.
const OF_THE_MACHINE: [&str; 3] = ["last-run.json", "restarts.json", "launch.log"];

fn gather(host: &dyn Host, paths: &Paths, site: &Site, guests: &[GuestName], dir: &Path) -> Result<Gathered> {
    let mut all = Gathered::into_stage(dir);
    let copied = dir.join("site");
    host.make_dir(&copied, 0o700)?;
    site_files::copy(&Root::open(&copied)?, &paths.site)?;
    let site_files = copied.join(site_files::SITE.trim_start_matches('/'));
    for name in host.list(&site_files)? {
        let from = site_files.join(&name);
        let at = (Tree::Site, Path::new(&name));
        match host.stat(&from)?.is_some_and(|stat| stat.is_dir) {
            true => all.tree(host, at, &from, Large::Cloned, &|_| false)?,
            false => all.file(host, at, &from, Large::Cloned)?,
        }
    }
    let mut images: Vec<ImageName> = Vec::new();
    for guest in guests {
        let at = Path::new("guests").join(guest);
        let skip =
            |path: &Path| path == at.join("disk") || OF_THE_MACHINE.iter().any(|name| path == at.join(name));
        all.tree(host, (Tree::State, &at), &paths.guest(guest), Large::Cloned, &skip)?;
        all.part((Tree::State, &at.join("disk")), 0o600, dir.join(disk_part(guest)))?;
        images.extend(site.guest(guest).map(|guest| guest.image.clone()));
        if let Some(Engine::Qemu { kernel, .. }) = Spec::read(host, paths, guest)?.map(|spec| spec.engine) {
            let of = kernel.parent().filter(|dir| dir.parent() == Some(&paths.images()));
            images.extend(of.and_then(|dir| dir.file_name()?.to_str()?.parse::<ImageName>().ok()));
        }
    }
    images.sort();
    images.dedup();
    for image in images {
        // A guest that was cloned from it does not need it any more.
        if store::open(host, paths, &image).is_ok() {
            let at = Path::new("images").join(&image);
            all.tree(host, (Tree::State, &at), &paths.image(&image), Large::Linked, &|_| false)?;
        }
    }
    for (name, large) in [
        ("kernels", Large::Linked),
        ("keys", Large::Cloned),
        ("identities", Large::Cloned),
        ("sites", Large::Cloned),
    ] {
        all.tree(host, (Tree::State, Path::new(name)), &paths.state.join(name), large, &|_| false)?;
    }
    if host.stat(&paths.known_hosts())?.is_some() {
        all.file(host, (Tree::State, Path::new("known_hosts")), &paths.known_hosts(), Large::Cloned)?;
    }
    Ok(all)
}

//! The data partition: images, and every guest's disk as the guest.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use super::plan::uml_on_machine;
use crate::config::site::{Guest, Site};
use crate::host::Host;
use crate::host::programs::Program;
use crate::identity::assigned;
use crate::identity::known_hosts;
use crate::identity::personalise::{self, Scrubbing};
use crate::image::manifest;
use crate::image::store;
use crate::names::ImageName;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::service::desired::{self, Desired};

/// Fills the data partition, which is open at `to.state`. `kept` is where the centre keeps the site's identities. A guest that
/// has a disk there keeps it, and its identity; the centre then takes that over.
pub fn fill(
    host: &dyn Host,
    centre: &Paths,
    kept: &Paths,
    to: &Paths,
    site: &Site,
    progress: &Progress,
) -> Result<()> {
    let mut images: Vec<&ImageName> = site.guests.iter().map(|guest| &guest.image).collect();
    images.sort();
    images.dedup();
    for image in images {
        copy_image(host, centre, to, image, progress).with_context(|| format!("copying image '{image}'"))?;
    }
    copy_kernel(host, centre, to).context("copying the kernel for user-mode Linux")?;
    same_identities(host, kept, to, site)?;
    known_hosts::write(host, to, site)?;
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(site.guests.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(guest) = site.guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let has_failed = || failed.lock().map(|first| first.is_some()).unwrap_or(true);
                    if has_failed() {
                        return;
                    }
                    if let Err(error) = make(host, to, site, guest, progress)
                        && let Ok(mut first) = failed.lock()
                    {
                        first.get_or_insert(error);
                    }
                }
            });
        }
    });
    if let Ok(Some(error)) = failed.into_inner() {
        return Err(error);
    }
    // sshd of a guest may have wanted keys that the centre does not have yet.
    for guest in &site.guests {
        copy_secret(host, &to.identity(&guest.name), &kept.identity(&guest.name))?;
        // What is left to be done in the guest is told at the centre.
        if let Some(record) = host.read(&to.profile(&guest.name))? {
            host.write(&kept.profile(&guest.name), &record, 0o644)?;
        }
    }
    known_hosts::write(host, to, site)
}

fn make(host: &dyn Host, to: &Paths, site: &Site, guest: &Guest, progress: &Progress) -> Result<()> {
    if crate::progress::interrupted() {
        bail!("interrupted");
    }
    let name = &guest.name;
    let what = || format!("making guest '{name}'");
    if host.stat(&to.disk(name))?.is_none() {
        let golden = store::open(host, to, &guest.image)?;
        host.make_dir(&to.guest(name), 0o700)?;
        host.clone_file(&golden.disk, &to.disk(name), guest.disk_bytes.0, progress).with_context(what)?;
    }
    let done = personalise::disk(host, to, site, guest, &Scrubbing::default())?;
    for note in &done.notes {
        progress.say(&format!("{name}: note: {note}"));
    }
    personalise::settle(host, to, name).with_context(what)?;
    // Whoever has a machine made wants its guests to run; one that was stopped on purpose, on a disk that is kept, stays so.
    if guest.autostart && desired::asked(host, to, name).is_none() {
        desired::write(host, to, name, Desired::Running)?;
    }
    progress.say(&format!("guest {name}: {} ({})", guest.fqdn, guest.address));
    Ok(())
}

fn copy_image(
    host: &dyn Host,
    from: &Paths,
    to: &Paths,
    image: &ImageName,
    progress: &Progress,
) -> Result<()> {
    let golden = store::open(host, from, image)?;
    if store::open(host, to, image).is_ok_and(|there| there.manifest == golden.manifest) {
        return Ok(());
    }
    let dir = to.image(image);
    host.make_dir(&dir, 0o755)?;
    // Whoever finds an image without its manifest takes it for none.
    host.remove(&dir.join(manifest::FILE))?;
    let size = golden.manifest.disk.size_bytes;
    host.clone_file(&golden.disk, &dir.join(&golden.manifest.disk.file), size, progress)?;
    for (path, part) in [(&golden.kernel, &golden.manifest.kernel), (&golden.initrd, &golden.manifest.initrd)]
    {
        if let (Some(path), Some(part)) = (path, part) {
            // Readable for all, as kernels of a user's QEMU must be.
            host.write(&dir.join(&part.file), &content(host, path)?, 0o644)?;
        }
    }
    host.write(&dir.join(manifest::FILE), &golden.manifest.print()?, 0o644)
}

/// A kernel of gridgate's own, with the path of its libc changed to where it is on the machine.
fn copy_kernel(host: &dyn Host, from: &Paths, to: &Paths) -> Result<()> {
    let (Some(from), Some(dir)) =
        (from.uml_kernel().parent().map(Path::to_owned), to.uml_kernel().parent().map(Path::to_owned))
    else {
        return Ok(());
    };
    if host.stat(&from.join("linux"))?.is_none() {
        return Ok(());
    }
    host.make_dir(&dir, 0o755)?;
    for name in host.list(&from)? {
        let mode = if name.ends_with(".json") || name.starts_with("libc") { 0o644 } else { 0o755 };
        if host.stat(&from.join(&name))?.is_some_and(|stat| !stat.is_dir) && !name.starts_with('.') {
            host.write(&dir.join(&name), &content(host, &from.join(&name))?, mode)?;
        }
    }
    const LOADER: &str = "ld-linux-x86-64.so.2";
    if host.stat(&dir.join(LOADER))?.is_none() {
        return Ok(());
    }
    if host.find_program("patchelf").is_none() {
        bail!("its libc's path has to be changed, and 'patchelf' is missing; hint: apt install patchelf");
    }
    let there = uml_on_machine();
    let bind = Program::new("patchelf")
        .arg("--set-interpreter")
        .arg(there.join(LOADER))
        .arg("--set-rpath")
        .arg(&there);
    host.run(&bind.arg(dir.join("linux"))).map(drop)
}

/// What the centre has drawn goes to the machine; what is on a kept data partition already goes to the centre.
fn same_identities(host: &dyn Host, kept: &Paths, to: &Paths, site: &Site) -> Result<()> {
    let mut pairs = vec![(kept.site_key(), to.site_key())];
    for guest in &site.guests {
        assigned::load_or_draw(host, kept, &guest.name)?;
        pairs.push((kept.identity(&guest.name), to.identity(&guest.name)));
    }
    for (centre, machine) in pairs {
        match host.stat(&machine)?.is_some() {
            true => copy_secret(host, &machine, &centre)?,
            false => copy_secret(host, &centre, &machine)?,
        }
    }
    for paths in [kept, to] {
        let public = assigned::site_key(host, paths, site.name.as_str())?;
        let file = paths.site_key().with_extension("pub");
        host.write(&file, format!("{public}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

fn copy_secret(host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
    let Some(secret) = host.read(from)? else { return Ok(()) };
    if let Some(dir) = to.parent() {
        host.make_dir(dir, 0o700)?;
    }
    host.write(to, &secret, 0o600)
}

fn content(host: &dyn Host, path: &Path) -> Result<Vec<u8>> {
    host.read(path)?.with_context(|| format!("'{}' is gone", path.display()))
}

//! What the user that runs a guest is given: the guest's disk, a directory for the hypervisor's sockets, and the way there.
//!
//! Each guest has a user of its own. Under systemd it is made up when the unit starts (`DynamicUser=`); without, its number
//! comes from the names of site and guest. Everything else of a guest stays root's.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::backend::OWN;
use crate::backend::spec::{Engine, Spec};
use crate::host::files::Files;
use crate::host::{Live, users, view};
use crate::names::GuestName;
use crate::paths::Paths;

/// Users without a name, made from names. The numbers from here on are nobody's (systemd.io/UIDS-GIDS).
const FIRST_USER: u32 = 0x7000_0000;
const USERS: u32 = 0x0fff_ffff;

/// The number of a guest's user where no service manager makes one up: always the same on this host.
pub fn user(paths: &Paths, guest: &GuestName) -> u32 {
    let hash = blake3::hash(format!("{}/{guest}", paths.state.display()).as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    FIRST_USER + u32::from_be_bytes([a, b, c, d]) % USERS
}

/// Whether what runs the guest is to be a user of its own; nspawn makes a container, for which it has to be root.
pub fn has_user(spec: &Spec) -> bool {
    !matches!(spec.engine, Engine::Nspawn)
}

/// Takes away what was noted of an earlier run. The guest does not run: its lock says so.
pub fn clean(paths: &Paths, guest: &GuestName) -> Result<()> {
    Live.remove(&paths.stop_mark(guest))?;
    Live.remove(&paths.end_hint(guest))
}

/// Makes everything that one run of the guest leaves behind anew, and gives the user what it needs. What was there is not in
/// use: the guest does not run.
pub fn furnish(paths: &Paths, spec: &Spec, uid: u32) -> Result<()> {
    let (run, own) = (paths.run_guest(&spec.guest), own(paths, &spec.guest));
    Live.make_dir(&run, 0o755)?;
    Live.remove(&own)?;
    Live.make_dir(&own, 0o700)?;
    users::give(&own, uid, uid, 0o700)?;
    make_lock(paths, &spec.guest)?;
    // To lock it, it has to be opened; other guests' users must not.
    users::give(&paths.guest_lock(&spec.guest), 0, uid, 0o640)?;
    users::give(&paths.guest(&spec.guest), 0, uid, 0o710)?;
    users::give(&spec.disk, uid, uid, 0o600)
}

/// The file that whoever runs the guest locks. There already is fine; it is never replaced.
pub fn make_lock(paths: &Paths, guest: &GuestName) -> Result<()> {
    let path = paths.guest_lock(guest);
    Live.make_dir(&paths.run_guest(guest), 0o755)?;
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path);
    opened.map(drop).with_context(|| format!("making '{}'", path.display()))
}

/// All that a hypervisor has to reach by its path.
fn reached(spec: &Spec) -> Vec<PathBuf> {
    let mut paths = vec![spec.disk.clone()];
    match &spec.engine {
        // Its libraries, if it brings some, lie beside it, under the name that it was made with.
        Engine::Uml { kernel } => {
            let real = kernel.canonicalize().unwrap_or_else(|_| kernel.clone());
            let dirs = [kernel, &real].into_iter().filter_map(|path| path.parent());
            paths.extend(dirs.map(Path::to_owned));
            paths.dedup();
        }
        Engine::Qemu { kernel, initrd, .. } => paths.extend([kernel.clone(), initrd.clone()]),
        Engine::Nspawn => {}
    }
    paths
}

/// Whether the user can get to all that it needs; if not, an error with the next move.
pub fn check(spec: &Spec, uid: u32) -> Result<()> {
    for path in reached(spec) {
        if let Some(dir) = users::barrier(&path, uid)? {
            bail!(
                "the user that runs guest '{}' cannot get to '{}'; hint: chmod o+x '{}'",
                spec.guest,
                path.display(),
                dir.display()
            );
        }
    }
    Ok(())
}

/// This process becomes the user, who sees what it needs whatever stands in the way.
pub fn move_in(spec: &Spec, uid: u32) -> Result<()> {
    view::open_for(uid, &reached(spec))?;
    let kvm = match spec.engine {
        Engine::Qemu { kvm: true, .. } => rustix::fs::stat("/dev/kvm").ok().map(|stat| stat.st_gid),
        _ => None,
    };
    users::become_user(uid, kvm.as_slice())
}

/// Gives back to root what the user had, so that nobody who gets its number later has it. Gone already is fine.
pub fn clear(paths: &Paths, guest: &GuestName) -> Result<()> {
    Live.remove(&own(paths, guest))?;
    for (path, mode) in [(paths.disk(guest), 0o600), (paths.guest(guest), 0o700)] {
        if Live.stat(&path)?.is_some() {
            users::give(&path, 0, 0, mode)?;
        }
    }
    Ok(())
}

fn own(paths: &Paths, guest: &GuestName) -> PathBuf {
    paths.run_guest(guest).join(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_never_share_a_user_and_one_keeps_its_own() {
        let paths = Paths::new(Path::new("/e"), Path::new("/s"));
        let of = |guest: &str| user(&paths, &guest.parse().unwrap());
        assert_ne!(of("ce"), of("se"));
        assert_eq!(of("ce"), of("ce"));
        assert!(of("ce") >= FIRST_USER && of("ce") < 0x8000_0000);
    }
}

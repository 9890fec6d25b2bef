//! Where everything of a site is kept: one struct, so that no two modules build the same path differently.
//!
//! ```text
//! STATE/                         /var/lib/gridgate: survives a reboot
//!   lock                         held by every command that changes something
//!   images/NAME/                 golden image: disk.ext4 manifest.json [vmlinuz initrd.img]
//!   kernels/uml/                 a user-mode Linux of gridgate's own, where the system's does not run
//!   guests/NAME/                 disk spec.json identity.json desired last-exit.json keys/ console/
//!   known_hosts                  host keys of all guests, written before their first boot
//! RUN/                           /run/gridgate/ID: gone after a reboot
//!   holder.sock  netns           the console holder; the namespace of a rehearsed site
//!   guests/NAME/                 run.json ready.json qmp.sock uml/
//! ```

use std::path::{Path, PathBuf};

use crate::names::{GuestName, ImageName};

/// The directories of one site on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Where the site's files are (`--site`).
    pub site: PathBuf,
    /// What survives a reboot (`--state`).
    pub state: PathBuf,
    /// Sockets and records of running guests.
    pub run: PathBuf,
}

impl Paths {
    /// `state` should be absolute: the run directory's name is derived from it (FNV-1a, 32 bits), so that two sites
    /// on one host never meet, and socket paths stay below the 108 bytes that unix(7) allows.
    pub fn new(site: &Path, state: &Path) -> Self {
        let id = state
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Self {
            site: site.to_owned(),
            state: state.to_owned(),
            run: PathBuf::from(format!("/run/gridgate/{id:08x}")),
        }
    }

    /// The same eight digits that name the run directory; part of the alias that marks links as this site's.
    pub fn id(&self) -> String {
        self.run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Held (flock) by every command that changes something.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// All golden images.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// One golden image.
    pub fn image(&self, image: &ImageName) -> PathBuf {
        self.images().join(image)
    }

    /// A user-mode Linux kernel that gridgate brought itself.
    pub fn uml_kernel(&self) -> PathBuf {
        self.state.join("kernels/uml/linux")
    }

    /// All guests' lasting state.
    pub fn guests(&self) -> PathBuf {
        self.state.join("guests")
    }

    /// One guest's lasting state.
    pub fn guest(&self, guest: &GuestName) -> PathBuf {
        self.guests().join(guest)
    }

    /// A guest's own disk: a raw ext4 filesystem.
    pub fn disk(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("disk")
    }

    /// What the guest is started with, so that a start needs neither the site's files nor a decision.
    pub fn spec(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("spec.json")
    }

    /// Logs of the guest's console.
    pub fn console(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("console")
    }

    /// Host keys of every guest, for `ssh -o UserKnownHostsFile=`.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("known_hosts")
    }

    /// The holder's socket.
    pub fn holder_socket(&self) -> PathBuf {
        self.run.join("holder.sock")
    }

    /// The namespace of a rehearsed site, bound here.
    pub fn netns(&self) -> PathBuf {
        self.run.join("netns")
    }

    /// What belongs to one running guest.
    pub fn run_guest(&self, guest: &GuestName) -> PathBuf {
        self.run.join("guests").join(guest)
    }

    /// Which process runs the guest.
    pub fn run_record(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("run.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_never_share_a_run_directory() {
        let a = Paths::new(Path::new("/etc/gridgate"), Path::new("/var/lib/gridgate"));
        let b = Paths::new(Path::new("/etc/gridgate"), Path::new("/srv/other"));
        assert_ne!(a.run, b.run);
        assert_eq!(a.id().len(), 8);
    }
}

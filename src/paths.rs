//! Where everything of a site is kept: one struct, so that no two modules build the same path differently.
//!
//! ```text
//! STATE/                         /var/lib/gridgate: survives a reboot
//!   lock                         held by every command that changes something
//!   images/NAME/                 golden image: disk.ext4 manifest.json [vmlinuz initrd.img]
//!   kernels/uml/                 a user-mode Linux of gridgate's own, where the system's does not run
//!   guests/NAME/                 disk spec.json identity.json profile.json limits.json desired last-exit.json
//!                                keys/ console/
//!   events.jsonl events.old.jsonl  what happened, the newest last
//!   known_hosts                  host keys of all guests, written before their first boot
//!   keys/site_ed25519            the key that `gridgate ssh` logs in with
//! RUN/                           /run/gridgate/ID: gone after a reboot
//!   holder.sock .lock .log       the console holder
//!   holder.inflight              output that it has taken but not yet logged
//!   netns                        the namespace of a rehearsed site
//!   uplinks.json                 interfaces that were joined to bridges; beside ID: what forwarding was set to
//!   guests/NAME/                 run.json ready.json console.json lock, hv/ of the guest's own user
//! ```

use std::path::{Path, PathBuf};

use crate::names::{GuestName, ImageName};

/// The hypervisor's part of what belongs to a running guest: its sockets. It has a user of its own, who can do there what he
/// likes; all that is trusted lies beside it. The name is short because sockets' paths have to be (unix(7)).
pub const OWN: &str = "hv";

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

    /// What was drawn for the guest: machine-id, host keys. Private.
    pub fn identity(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("identity.json")
    }

    /// What the guest's disk was before it became the guest's, so that what is left of that can be looked for.
    pub fn old_identity(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("old.json")
    }

    /// Identities of machines that are no guests of the site, which were personalised by name.
    pub fn identities(&self) -> PathBuf {
        self.state.join("identities")
    }

    /// One of them, by its full name.
    pub fn machine_identity(&self, fqdn: &str) -> PathBuf {
        self.identities().join(format!("{fqdn}.json"))
    }

    /// How the guest's profile was compiled last.
    pub fn profile(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("profile.json")
    }

    /// Limits that `gridgate limit` was told, over those of the site's files.
    pub fn limits(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("limits.json")
    }

    /// What was asked for last: `running` or `stopped`.
    pub fn desired(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("desired")
    }

    /// What is remembered of a guest that died early.
    pub fn restarts(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("restarts.json")
    }

    /// How the guest was stopped last.
    pub fn last_stop(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("last-stop.json")
    }

    /// Logs of the guest's console.
    pub fn console(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("console")
    }

    /// What happened on the site; the older half beside it is `events.old.jsonl`.
    pub fn events(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }

    /// Host keys of every guest, for `ssh -o UserKnownHostsFile=`.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("known_hosts")
    }

    /// The site's own key pair: every guest lets it in, so that `gridgate ssh` works without one of the administrator's.
    pub fn site_key(&self) -> PathBuf {
        self.state.join("keys/site_ed25519")
    }

    /// Which interfaces of the host gridgate joined to its bridges, and how they were before.
    pub fn uplinks(&self) -> PathBuf {
        self.run.join("uplinks.json")
    }

    /// What the host's forwarding was set to before gridgate turned it on; all sites of a host share it.
    pub fn forwarding(&self) -> PathBuf {
        self.run.with_file_name("forwarding")
    }

    /// The holder's socket.
    pub fn holder_socket(&self) -> PathBuf {
        self.run.join("holder.sock")
    }

    /// Held (flock) by the holder as long as it lives.
    pub fn holder_lock(&self) -> PathBuf {
        self.run.join("holder.lock")
    }

    /// What a detached holder says.
    pub fn holder_log(&self) -> PathBuf {
        self.run.join("holder.log")
    }

    /// Guests' output that the holder has taken but not yet written to their logs.
    pub fn holder_inflight(&self) -> PathBuf {
        self.run.join("holder.inflight")
    }

    /// The namespace of a rehearsed site, bound here.
    pub fn netns(&self) -> PathBuf {
        self.run.join("netns")
    }

    /// What belongs to one running guest.
    pub fn run_guest(&self, guest: &GuestName) -> PathBuf {
        self.run.join("guests").join(guest)
    }

    /// Held (flock) by the process that runs the guest, as long as it lives.
    pub fn guest_lock(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("lock")
    }

    /// Which process runs the guest.
    pub fn run_record(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("run.json")
    }

    /// How far the running guest has come to being ready.
    pub fn ready_record(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("ready.json")
    }

    /// What the holder must know to take the guest up again after its own end.
    pub fn console_record(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("console.json")
    }

    /// Which process ran the guest last: unlike [`Paths::run_record`] it outlives a power cut.
    pub fn last_run(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("last-run.json")
    }

    /// Somebody holds the guest still.
    pub fn still_mark(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("still.json")
    }

    /// Somebody is stopping the guest, and how far he has come.
    pub fn stop_mark(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("stop.json")
    }

    /// What was heard of the guest's end before its process ended.
    pub fn end_hint(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("end.json")
    }

    /// Where the guest says itself how it is, as in sd_notify(3).
    pub fn notify_socket(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join("notify.sock")
    }

    /// Where QEMU says what happens to the guest.
    pub fn qmp_events(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join(OWN).join("qmp-events.sock")
    }

    /// The guest agent under QEMU.
    pub fn agent_socket(&self, guest: &GuestName) -> PathBuf {
        self.run_guest(guest).join(OWN).join("agent.sock")
    }

    /// What the guest's launcher and hypervisor said, where no service manager keeps it.
    pub fn launch_log(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("launch.log")
    }

    /// How the guest's last run ended.
    pub fn last_exit(&self, guest: &GuestName) -> PathBuf {
        self.guest(guest).join("last-exit.json")
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

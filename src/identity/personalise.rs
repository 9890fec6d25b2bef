//! Puts an identity into a filesystem and remembers what was put there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::site::{Guest, Site};
use crate::console::record::boot_id;
use crate::host::Host;
use crate::host::filesystem::Shape;
use crate::host::root::Change;
use crate::host::tree::Tree;
use crate::identity::audit::{Old, configured_addresses};
use crate::identity::edit::Edit;
use crate::identity::edits::{digest, edits};
use crate::identity::filesystem::Where;
use crate::identity::found::Found;
use crate::identity::known::{self, Class, Known};
use crate::identity::network::{self, Note};
use crate::identity::scrub::{self, Policy};
use crate::identity::selinux::Labelled;
use crate::identity::wanted::Identity;
use crate::identity::{assigned, filesystem, provided, registry, seal, ssh};
use crate::names::GuestName;
use crate::paths::Paths;
use crate::profile::record::{self, Compiled};
use crate::profile::{Document, scrub_paths};

/// What the host remembers of a disk that was personalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personalised {
    /// See [`digest`].
    pub digest: String,
    /// The boot of the host in which it was done.
    pub boot_id: String,
    /// Whether the whole disk is known to be on stable storage. Before that, a power cut may leave holes in it.
    pub settled: bool,
}

impl Personalised {
    /// Whether the host went down before the disk was on stable storage: then nobody knows what is in it.
    pub fn is_lost(&self) -> bool {
        !self.settled && boot_id().is_ok_and(|now| now != self.boot_id)
    }
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Personalisation {
    /// Paths inside the guest, in the order of the edits.
    pub changed: Vec<PathBuf>,
    /// What whoever asked for it should know.
    pub notes: Vec<Note>,
}

/// Makes the guest's disk the guest: its identity is drawn if it has none yet, the filesystem grows to the disk's size
/// and gets its UUID. The second time nothing changes. No guest may be running on the disk.
pub fn disk(
    host: &dyn Host,
    paths: &Paths,
    site: &Site,
    guest: &Guest,
    scrubbing: &Scrubbing,
) -> Result<Personalisation> {
    let what = || format!("personalising guest '{}'", guest.name);
    let assigned = assigned::load_or_draw(host, paths, &guest.name).with_context(what)?;
    registry::check(host, paths, guest.name.as_str(), &assigned).with_context(what)?;
    let site_key = assigned::site_key(host, paths, site.name.as_str()).with_context(what)?;
    let provided = provided::read(host, guest).with_context(what)?;
    let mut identity = Identity::of(site, guest, assigned, &site_key).with_provided(provided);
    let shape = Shape { uuid: Some(identity.assigned.filesystem_uuid), grow: true };
    let mut done = Personalisation::default();
    let document = record::wanted(site, guest).with_context(what)?;
    let scrubbing = &scrubbing.with_profile(&document).with_context(what)?;
    let mut compiled = Compiled::default();
    // If this is cut short, the record must not say that the disk is up to date.
    forget(host, paths, &guest.name).with_context(what)?;
    host.edit_disk(&paths.disk(&guest.name), shape, &mut |root, found| {
        let plan = Plan::make(root, &mut identity, Some(found.uuid), scrubbing)?;
        if plan.drawn {
            assigned::store(host, paths, &guest.name, &identity.assigned)?;
        }
        if let Some(old) = &plan.old {
            host.write(&paths.old_identity(&guest.name), &old.to_json()?, 0o600)?;
        }
        let labelled = Labelled::new(root)?;
        done = plan.apply(&labelled)?;
        done.changed.extend(compiled.replace_by(&labelled, &document)?);
        provided::hand_over(&identity, &labelled, &mut done)
    })
    .with_context(what)?;
    compiled.keep(host, paths, &guest.name).with_context(what)?;
    let record = Personalised { digest: digest(site, guest), boot_id: boot_id()?, settled: false };
    remember(host, paths, &guest.name, &record).with_context(what)?;
    Ok(done)
}

/// What of an old machine goes, where it is not as usual.
#[derive(Debug, Clone, Default)]
pub struct Scrubbing {
    /// Classes that stay, although they would go.
    pub keep: Vec<Class>,
    /// Classes that go, although they would stay.
    pub scrub: Vec<Class>,
    /// Scrub lists of profiles.
    pub extra: Vec<Known>,
}

impl Scrubbing {
    /// With the scrub list of the profile that the machine is to have.
    pub fn with_profile(&self, document: &Document) -> Result<Self> {
        let mut with = self.clone();
        let patterns: Vec<String> = scrub_paths(document).into_iter().map(|path| path.pattern).collect();
        with.extra.push(Known::of_profile(&document.profile, &patterns, known::Action::Clear)?);
        Ok(with)
    }

    /// What goes from a filesystem that is, or is not yet, the machine that it is to be.
    fn policy(&self, is_same: bool) -> Policy {
        let usual = if is_same { Policy::same_machine() } else { Policy::another_machine() };
        let kept = self.keep.iter().fold(usual, |policy, class| policy.keep(*class));
        self.scrub.iter().fold(kept, |policy, class| policy.scrub(*class))
    }
}

/// All that is to be done to a tree, before any of it is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order in which they are made.
    pub edits: Vec<Edit>,
    /// What whoever asked for it should know.
    pub notes: Vec<Note>,
    /// What the filesystem was, if it becomes another machine: to be kept, so that what is left of it can be looked for.
    pub old: Option<Old>,
    /// Whether the identity was given something new on the way that has to be kept before it is written anywhere.
    pub drawn: bool,
}

impl Plan {
    /// Looks at a tree and says what makes it that machine. `uuid` is what its filesystem has now; a tree that is not a
    /// filesystem of its own has none, and what names filesystems in it is left alone.
    pub fn make(
        tree: &dyn Tree,
        identity: &mut Identity,
        uuid: Option<[u8; 16]>,
        scrubbing: &Scrubbing,
    ) -> Result<Self> {
        let found = Found::look(tree)?;
        let keys = ssh::wanted_types(tree)?;
        let drawn = identity.assigned.complete(&keys, &identity.hostname)?;
        let mut assigns = edits(identity, &found, tree, &keys)?;
        let provided = provided::render(identity, tree)?;
        assigns.extend(provided.edits);
        let uuids = uuid.map(|old| (old, identity.assigned.filesystem_uuid));
        let renamed = filesystem::renamed(uuids, &identity.disk_ids);
        assigns.extend(filesystem::renames(tree, &renamed, Where::Root)?);
        let packed = filesystem::packed_renames(tree, &renamed, Where::Root)?;
        assigns.extend(packed.edits);
        let is_same = found.machine_id.as_deref() == Some(identity.assigned.machine_id.as_str());
        let policy = scrubbing.policy(is_same);
        if identity.interfaces.is_empty() && policy.scrubs_assigned(Class::Network) {
            assigns.extend(seal::loopback_alone(tree)?);
        }
        let policy = policy.sparing(assigns.iter().map(Edit::path).chain([Path::new(seal::INTERFACES)]));
        let mut edits = scrub::edits(tree, &policy, &scrubbing.extra)?;
        // What is going to be removed need not follow.
        let is_left = |edit: &Edit| edits.iter().all(|other| other.path() != edit.path());
        let of_lvm = filesystem::of_lvm(tree, &identity.disk_ids)?;
        let of_lvm: Vec<Edit> = of_lvm.into_iter().filter(is_left).collect();
        edits.extend(of_lvm);
        // By its machine-id a filesystem is known to be the machine, and nothing is scrubbed any more: it comes when all
        // else is done.
        let (last, first): (Vec<Edit>, Vec<Edit>) =
            assigns.into_iter().partition(|edit| edit.path() == Path::new("/etc/machine-id"));
        edits.extend(first);
        edits.extend(last);
        // A fresh clone of a sealed image was nobody.
        let old =
            if is_same { None } else { Some(Old::from_tree(tree)?).filter(|old| *old != Old::default()) };
        let mut notes = network::render(identity, &found.network).notes;
        if !is_same && identity.interfaces.is_empty() && !policy.scrubs_assigned(Class::Network) {
            notes.extend(configured_addresses(tree)?.first().map(address_stays));
        }
        notes.extend(provided.notes);
        notes.extend(packed.closed.iter().map(|closed| Note(closed.to_string())));
        Ok(Self { edits, notes, old, drawn })
    }

    /// Does it. What is so already is not touched.
    pub fn apply(&self, tree: &dyn Tree) -> Result<Personalisation> {
        let mut done = Personalisation { changed: Vec::new(), notes: self.notes.clone() };
        for edit in &self.edits {
            if edit.apply(tree)? == Change::Changed {
                done.changed.push(edit.path().to_owned());
            }
        }
        Ok(done)
    }
}

/// An identity that says nothing of the network leaves the old machine's: right for one that asks for its address, and a second
/// machine of one address otherwise.
fn address_stays(address: &IpAddr) -> Note {
    Note(format!(
        "no address was given, and it keeps {address} of the machine that it was\nhint: --address gives it one of its own, --scrub \
         network takes the old one away"
    ))
}

/// Brings the guest's disk to stable storage, if that was not done yet. Writing 300 MB out takes longer than making
/// them, so that it is left for a moment when nobody waits: the guest may be running already.
pub fn settle(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<()> {
    let Some(record) = recall(host, paths, guest)?.filter(|record| !record.settled) else { return Ok(()) };
    host.sync_file(&paths.disk(guest))?;
    remember(host, paths, guest, &Personalised { settled: true, ..record })
}

fn remember(host: &dyn Host, paths: &Paths, guest: &GuestName, record: &Personalised) -> Result<()> {
    host.write(&record_path(paths, guest), &serde_json::to_vec(record)?, 0o644)
}

/// What the host remembers of the guest's disk; `None` if it was never personalised, or not to the end.
pub fn recall(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<Option<Personalised>> {
    let path = record_path(paths, guest);
    let Some(bytes) = host.read(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).with_context(|| format!("reading '{}'", path.display()))
}

/// From now on the disk counts as not personalised.
pub fn forget(host: &dyn Host, paths: &Paths, guest: &GuestName) -> Result<()> {
    host.remove(&record_path(paths, guest))?;
    Compiled::forget(host, paths, guest)
}

fn record_path(paths: &Paths, guest: &GuestName) -> PathBuf {
    paths.guest(guest).join(Path::new("personalised.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn tree(root: &Root, identity: &mut Identity) -> Result<Personalisation> {
        Plan::make(root, identity, None, &Scrubbing::default())?.apply(root)
    }

    fn debian(dir: &Path) {
        for sub in
            ["etc/ssh", "etc/systemd/system/multi-user.target.wants", "lib/systemd/system", "root", "run"]
        {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        std::fs::write(dir.join("lib/systemd/system/systemd-networkd.service"), "").unwrap();
        std::fs::write(dir.join("etc/hostname"), "golden\n").unwrap();
        std::fs::write(dir.join("etc/machine-id"), "uninitialized\n").unwrap();
        std::fs::write(dir.join("etc/ssh/ssh_host_dsa_key"), "old").unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", dir.join("etc/resolv.conf")).unwrap();
    }

    #[test]
    fn a_tree_becomes_the_guest_and_the_second_time_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        debian(dir.path());
        let mut identity = identity(0);
        let root = Root::open(dir.path()).unwrap();
        let first = tree(&root, &mut identity).unwrap();
        assert!(first.changed.contains(&PathBuf::from("/etc/hostname")));
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "ce\n");
        assert_eq!(read("etc/resolv.conf"), "search example.org\nnameserver 10.77.0.2\n");
        assert_eq!(read("etc/machine-id").trim(), identity.assigned.machine_id);
        assert!(read("root/.ssh/authorized_keys").ends_with("ssh-ed25519 S site\nssh-ed25519 AAAA admin\n"));
        assert!(!dir.path().join("etc/ssh/ssh_host_dsa_key").exists());
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!(mode("etc/ssh/ssh_host_ed25519_key"), 0o600);
        assert_eq!(mode("root/.ssh"), 0o700);
        assert_eq!(tree(&root, &mut identity).unwrap().changed, Vec::<PathBuf>::new());
    }

    #[test]
    fn a_disk_is_lost_only_if_the_host_went_down_before_it_was_on_stable_storage() {
        let record =
            |boot_id: &str, settled| Personalised { digest: String::new(), boot_id: boot_id.into(), settled };
        assert!(record("an earlier one", false).is_lost());
        assert!(!record("an earlier one", true).is_lost());
        assert!(!record(&boot_id().unwrap(), false).is_lost());
    }

    #[test]
    fn a_tree_full_of_traps_is_personalised_without_touching_anything_outside() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("guest");
        debian(&dir);
        let outside = top.path().join("outside");
        std::fs::write(&outside, "host").unwrap();
        for trap in ["etc/hostname", "etc/machine-id", "etc/hosts"] {
            let _ = std::fs::remove_file(dir.join(trap));
        }
        symlink(&outside, dir.join("etc/hostname")).unwrap();
        symlink("/proc/self/root/etc/passwd", dir.join("etc/hosts")).unwrap();
        nix::unistd::mkfifo(&dir.join("etc/machine-id"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut identity = identity(0);
        tree(&Root::open(&dir).unwrap(), &mut identity).unwrap();
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(dir.join("etc/hostname")).unwrap(), "ce\n");
        assert!(std::fs::read_to_string("/etc/passwd").unwrap().starts_with("root:"));
    }
}

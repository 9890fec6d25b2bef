//! Personalising filesystems that were made to harm: whatever they hold, nothing outside of them is read or written, and the
//! command comes to an end with a result that is right or an error that says what is in the way.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should stop where it stands")]

#[path = "../support/described.rs"]
mod described;
mod disks;
#[path = "../support/loops.rs"]
mod loops;
mod races;
mod traps;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use described::loaded;
use gridgate::host::root::Root;
use gridgate::host::tree::Tree;
use gridgate::identity::assigned::Assigned;
use gridgate::identity::edit::Edit;
use gridgate::identity::personalise::{Personalisation, Plan, Scrubbing};
use gridgate::identity::wanted::Identity;

/// Far longer than any of this takes on a busy machine, and far shorter than without end.
const LIMIT: Duration = Duration::from_secs(300);

fn identity() -> Identity {
    let described = "name = 's'\ndomain = 'example.org'\ndns = ['192.0.2.2']\nntp = ['192.0.2.3']\n\
        [networks.lan]\nmode = 'isolated'\nsubnet = '192.0.2.0/24'\ngateway = '192.0.2.1'\n";
    let guest = "address = '192.0.2.7'\nmac = '52:54:00:00:00:07'\n";
    let site = loaded(&[("site.toml", described), ("guests/wn7.toml", guest)]);
    Identity::of(&site, &site.guests[0], Assigned::draw("wn7").unwrap(), "ssh-ed25519 AAAA admin")
}

/// A guest with every file that is changed only where there is one, beside a directory that is none of its business.
struct Scene {
    dir: tempfile::TempDir,
}

const VICTIM: &str = "what is outside";

impl Scene {
    fn new() -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        let old = [
            ("etc/hostname", "oldname\n"),
            ("etc/hosts", "192.0.2.9 oldname.old.org oldname\n"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/mailname", "oldname.old.org\n"),
            ("etc/machine-info", "PRETTY_HOSTNAME=old\n"),
            ("etc/issue", "oldname\n"),
            ("etc/postfix/main.cf", "myhostname = oldname.old.org\n"),
            ("etc/hostid", "abcd"),
            ("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:old\n"),
            ("etc/nvme/hostnqn", "old\n"),
            ("etc/nvme/hostid", "old\n"),
            ("etc/fstab", "UUID=00000000-0000-0000-0000-000000000000 / ext4 defaults 0 1\n"),
            ("etc/ssh/sshd_config", "# as it came\n"),
            ("etc/ssh/ssh_host_dsa_key", "old"),
            ("etc/network/interfaces", "auto lo\n"),
            ("sbin/ifup", ""),
            ("lib/systemd/system/systemd-networkd.service", ""),
            ("var/lib/dbus/machine-id", "old\n"),
            ("var/lib/systemd/random-seed", "old"),
            ("var/lib/dhcp/dhclient.eth0.leases", "old"),
            ("var/log/syslog", "oldname booted\n"),
            ("root/.ssh/authorized_keys", "old"),
            ("data/somebody", "somebody's"),
        ];
        for (path, content) in old {
            let path = scene.guest().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(scene.outside().join("dir")).unwrap();
        fs::write(scene.outside().join("victim"), VICTIM).unwrap();
        scene
    }

    fn guest(&self) -> PathBuf {
        self.dir.path().join("guest")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Whether what is outside is as it was: the same entries, the same content.
    fn outside_is_untouched(&self) -> bool {
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        names(self.dir.path()) == ["guest", "outside"]
            && names(&self.outside()) == ["dir", "victim"]
            && names(&self.outside().join("dir")).is_empty()
            && fs::read_to_string(self.outside().join("victim")).unwrap() == VICTIM
    }

    /// Every path that personalising writes here, without any trap.
    fn written(&self) -> Vec<PathBuf> {
        let root = Root::open(&self.guest()).unwrap();
        let plan = Plan::make(&root, &mut identity(), Some([0; 16]), &Scrubbing::default()).unwrap();
        let writes = |edit: &&Edit| matches!(edit, Edit::Write { .. });
        plan.edits.iter().filter(writes).map(|edit| edit.path().to_owned()).collect()
    }
}

/// Personalises, and fails if that comes to no end.
fn personalise(guest: &Path) -> anyhow::Result<Personalisation> {
    let (done, told) = mpsc::channel();
    let guest = guest.to_owned();
    std::thread::spawn(move || {
        let work = || -> anyhow::Result<Personalisation> {
            let root = Root::open(&guest)?;
            Plan::make(&root, &mut identity(), Some([0; 16]), &Scrubbing::default())?.apply(&root)
        };
        let _ = done.send(work());
    });
    told.recv_timeout(LIMIT).expect("it comes to an end")
}

/// What the guest reads at a path afterwards.
fn read(guest: &Path, path: &str) -> String {
    let root = Root::open(guest).unwrap();
    String::from_utf8(Tree::read(&root, Path::new(path)).unwrap().unwrap_or_default()).unwrap()
}

//! Numbers that tell one machine from another, and the randomness that it starts with.

use std::path::Path;

use anyhow::Result;

use crate::host::filesystem::uuid_text;
use crate::host::root::Entry;
use crate::host::tree::Tree;
use crate::identity::edit::Edit;
use crate::identity::found::{Found, text};
use crate::identity::keys;
use crate::identity::wanted::Identity;

/// Seeds that are credited or mixed into the kernel's pool at boot: systemd-random-seed(8), the init scripts of Debian and Red
/// Hat before it, and systemd-boot's on whichever partition it is mounted (systemd-boot(7)). With their usual length.
const SEEDS: [(&str, usize); 6] = [
    ("/var/lib/systemd/random-seed", 512),
    ("/var/lib/urandom/random-seed", 512),
    ("/var/lib/random-seed", 512),
    ("/boot/loader/random-seed", 32),
    ("/efi/loader/random-seed", 32),
    ("/boot/efi/loader/random-seed", 32),
];

/// Edits for all ids. What hangs on the machine-id is derived from it, so that it is the same each time.
pub fn edits(identity: &Identity, found: &Found, tree: &dyn Tree) -> Result<Vec<Edit>> {
    let id = identity.assigned.machine_id.as_str();
    let mut edits = vec![Edit::text("/etc/machine-id", format!("{id}\n"))];
    if found.own_dbus_id {
        edits.push(Edit::link("/var/lib/dbus/machine-id", "/etc/machine-id"));
    }
    let there =
        |path: &str| -> Result<bool> { Ok(matches!(tree.entry(Path::new(path))?, Some(Entry::File { .. }))) };
    // gethostid(3): four bytes; without the file the C library takes the address.
    if there("/etc/hostid")? {
        let four = derived(id, "hostid")[..4].to_vec();
        let path = "/etc/hostid".into();
        edits.push(Edit::Write {
            path,
            content: four,
            mode: crate::host::root::FileMode::KeepOr(0o644),
            owner: None,
            secret: false,
        });
    }
    if let Some(now) = text(tree, LVM_LOCAL)?.filter(|_| found.machine_id.as_deref() != Some(id)) {
        edits.push(Edit::text(LVM_LOCAL, without_lvm_host(&now)));
    }
    if let Some(now) = text(tree, INITIATOR)? {
        edits.push(Edit::secret(INITIATOR, initiator(&now, id).into_bytes()));
    }
    // nvme(1): the name is made of the id.
    let nvme = uuid_text(&as_version_4(derived(id, "nvme")));
    if there("/etc/nvme/hostnqn")? {
        edits.push(Edit::text("/etc/nvme/hostnqn", format!("nqn.2014-08.org.nvmexpress:uuid:{nvme}\n")));
    }
    if there("/etc/nvme/hostid")? {
        edits.push(Edit::text("/etc/nvme/hostid", format!("{nvme}\n")));
    }
    let is_this_machine_already = found.machine_id.as_deref() == Some(id);
    if !is_this_machine_already {
        for (path, len) in SEEDS {
            // systemd makes its own at the first boot, which is late for the keys that are made in it.
            if path == SEEDS[0].0 || there(path)? {
                edits.push(Edit::secret(path, keys::random::<512>()?[..len].to_vec()));
            }
        }
        // Credentials that were sealed with it are another machine's (systemd-creds(1)); the next one is made when needed.
        edits.push(Edit::remove("/var/lib/systemd/credential.secret"));
    }
    Ok(edits)
}

const LVM_LOCAL: &str = "/etc/lvm/lvmlocal.conf";

/// Without the numbers by which LVM tells hosts from each other that share a disk (lvmlockd(8), lvmsystemid(7)): two with one number
/// would write at the same time. Whoever shares disks gives each host its own.
fn without_lvm_host(now: &str) -> String {
    let names_host = |line: &&str| {
        let key = line.trim().split(['=', ' ', '\t']).next().unwrap_or_default();
        matches!(key.strip_prefix("local/").unwrap_or(key), "host_id" | "system_id")
    };
    now.split_inclusive('\n').filter(|line| !names_host(line)).collect()
}

const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";

/// The name with another last part; who named it stays (RFC 3720, section 3.2.6.3.1).
fn initiator(now: &str, machine_id: &str) -> String {
    let own: String = derived(machine_id, "iscsi").iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let mut named = false;
    let mut then = String::new();
    for line in now.lines() {
        match line.trim().strip_prefix("InitiatorName=") {
            Some(name) => {
                let authority =
                    name.rsplit_once(':').map_or("iqn.1993-08.org.debian:01", |(before, _)| before);
                then.push_str(&format!("InitiatorName={authority}:{own}\n"));
                named = true;
            }
            // open-iscsi's start script makes a name when it finds this.
            None if line.trim() == "GenerateName=yes" => return now.to_owned(),
            None => then.push_str(&format!("{line}\n")),
        }
    }
    if named { then } else { format!("InitiatorName=iqn.1993-08.org.debian:01:{own}\n") }
}

/// As sd_id128_get_machine_app_specific(3) has it: one machine-id gives any number of ids that do not tell it.
pub(super) fn derived(machine_id: &str, purpose: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&derived_long(machine_id, purpose)[..16]);
    id
}

/// As [`derived`], for ids that are longer.
pub(super) fn derived_long(machine_id: &str, purpose: &str) -> [u8; 32] {
    blake3::derive_key(&format!("gridgate 2026 identity {purpose}"), machine_id.as_bytes())
}

pub(super) fn as_version_4(mut id: [u8; 16]) -> [u8; 16] {
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Root;
    use crate::identity::edits::tests::identity;

    #[test]
    fn every_id_that_a_machine_has_is_another_one_afterwards_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        put("etc/hostid", "abcd");
        put("etc/iscsi/initiatorname.iscsi", "# mine\nInitiatorName=iqn.2001-04.com.example:old\n");
        put("etc/lvm/lvmlocal.conf", "local {\n\t# host_id = 0\n\thost_id = 7\n\tsystem_id=\"old\"\n}\n");
        put("etc/nvme/hostnqn", "old");
        put("etc/nvme/hostid", "old");
        put("boot/loader/random-seed", "old");
        put("var/lib/systemd/credential.secret", "old");
        let root = Root::open(dir.path()).unwrap();
        let identity = identity(0);
        let apply = || {
            let found = Found::look(&root).unwrap();
            let edits = edits(&identity, &found, &root).unwrap();
            edits
                .iter()
                .filter(|edit| edit.apply(&root).unwrap() == crate::host::root::Change::Changed)
                .count()
        };
        assert_eq!(apply(), 9);
        assert_eq!(apply(), 0);
        let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
        let text = |path: &str| String::from_utf8(read(path)).unwrap();
        assert_eq!(read("etc/hostid").len(), 4);
        let initiator = text("etc/iscsi/initiatorname.iscsi");
        assert!(initiator.starts_with("# mine\nInitiatorName=iqn.2001-04.com.example:"), "{initiator}");
        assert!(!initiator.contains("old"), "{initiator}");
        let uuid = text("etc/nvme/hostid");
        assert_eq!(text("etc/nvme/hostnqn"), format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}"));
        assert_eq!(text("etc/lvm/lvmlocal.conf"), "local {\n\t# host_id = 0\n}\n");
        assert_eq!(read("boot/loader/random-seed").len(), 32);
        assert!(!dir.path().join("var/lib/systemd/credential.secret").exists());
    }

    #[test]
    fn what_is_derived_for_one_purpose_tells_nothing_of_another() {
        assert_ne!(derived("a", "nvme"), derived("a", "iscsi"));
        assert_ne!(derived("a", "nvme"), derived("b", "nvme"));
    }
}

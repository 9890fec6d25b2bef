//! Who may read a backup, and whose is taken.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::made::machines;

#[test]
fn a_backup_goes_only_where_its_owner_alone_can_read_it() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let store = machines.store();
    fs::create_dir(&store).unwrap();
    fs::write(machines.path("store/index.html"), "hello").unwrap();
    let refused = machines.run("a", &["site", "backup", "--to", &store]).exits(4);
    refused.says("a backup holds every private key of the site");
    assert_eq!(fs::read_dir(&store).unwrap().count(), 1, "nothing was put there");
    machines.run("a", &["site", "backup", "--to", &store, "--insecure-shared-store"]).exits(0);

    let own = machines.path("own").display().to_string();
    machines.run("a", &["site", "backup", "--to", &own]).exits(0).says("it holds the site's private keys");
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
    // A second one, and a collection, leave it so.
    machines.run("a", &["site", "backup", "--to", &own]).exits(0);
    machines.run("a", &["image", "store", "gc", &own]).exits(0);
    for entry in walkdir::WalkDir::new(&own) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        assert!(meta.is_dir() || meta.mode() & 0o077 == 0, "{}", entry.path().display());
    }
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
    assert!(fs::read_to_string(machines.path("own/PRIVATE")).unwrap().contains("private keys"));
}

#[test]
fn a_backup_is_taken_from_those_who_may_sign_backups() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    let key = machines.path("key").display().to_string();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(format!("{key}.pub")).unwrap();
    let signers = |namespace: &str| {
        let path = machines.path(namespace);
        fs::write(&path, format!("ops namespaces=\"{namespace}\" {public}")).unwrap();
        path.display().to_string()
    };
    let (good, images) = (signers("gridgate-backup"), signers("gridgate-image"));
    let store = machines.store();
    let restore = |machine: &str, more: &[&str]| {
        machines.run(machine, &[&["--json", "site", "restore", &store], more].concat())
    };
    machines.back_up("a");
    let unknown = restore("b", &[]).exits(4);
    unknown.says("nobody is known here who may sign that").says("namespaces=\"gridgate-backup\"");
    restore("b", &["--allowed-signers", &good]).exits(4).says("it is not signed");
    machines.run("a", &["site", "backup", "--to", &store, "--key", &key]).exits(0);
    restore("b", &["--allowed-signers", &images]).exits(4).says("let key");
    assert!(!machines.state("b").join("guests").exists());
    let restored = restore("b", &["--allowed-signers", &good]).exits(0).json();
    assert_eq!(restored["signer"]["principal"], "ops");
    machines.is_like("a", "b");

    // What was signed is what is restored: one byte of the head, and one of a pack.
    let head = machines.path("store/backups/dcu/latest");
    let text = fs::read_to_string(&head).unwrap();
    // Whichever it has: a backup in the same second as the one before is the same one, signed once more.
    fs::write(&head, text.replacen("\"sequence\":", "\"sequence\":9", 1)).unwrap();
    restore("c", &["--allowed-signers", &good]).exits(4).says("has been changed since");
    fs::write(&head, text).unwrap();
    let pack = fs::read_dir(machines.path("store/packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    restore("c", &["--allowed-signers", &good]).exits(1);
    assert!(!machines.state("c").join("guests").exists());
}

#[test]
fn a_directory_that_somebody_opens_later_is_noticed() {
    let Some(machines) = machines() else { return };
    machines.make("a");
    machines.back_up("a");
    fs::set_permissions(machines.path("store"), PermissionsExt::from_mode(0o755)).unwrap();
    machines.run("a", &["site", "backup", "--to", &machines.store()]).exits(4);
}

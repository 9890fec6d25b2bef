//! Keys and certificates that a site has for its guests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use gridgate::config::problem::Problems;
use gridgate::config::provided::ProvidedKind;
use gridgate::config::site::Site;
use gridgate::config::{LoadOptions, load};
use tempfile::TempDir;

use crate::SITE;
use crate::described::shown;

/// A site with these guests' files and these key files, which only their owner may read.
fn directory(guests: &[(&str, &str)], keys: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("site.toml"), SITE).unwrap();
    for sub in ["guests", "keys"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for (file, content) in guests {
        fs::write(dir.path().join("guests").join(file), content).unwrap();
    }
    for (file, content) in keys {
        let path = dir.path().join("keys").join(file);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

fn site(dir: &TempDir) -> Result<Site, Problems> {
    load(dir.path(), &LoadOptions::default()).map(|loaded| loaded.site)
}

fn told(dir: &TempDir) -> Vec<String> {
    shown(&site(dir).expect_err("this site has problems"), dir.path())
}

const KEYS: &[(&str, &[u8])] =
    &[("munge.key", &[1; 32]), ("wn1.wg", b"one"), ("wn2.wg", b"two"), ("wn1.s.test.keytab", b"\x05\x02")];

#[test]
fn one_line_names_a_file_for_each_guest_of_a_group() {
    let wn = "count = 2\n[keys]\nmunge = \"keys/munge.key\"\nfiles = [\"/etc/wg.key keys/{name}.wg\"]\n";
    let dir = directory(&[("wn.toml", wn)], KEYS);
    let guests = site(&dir).unwrap().guests;
    let files: Vec<_> = guests.iter().map(|guest| guest.provided[1].file.clone()).collect();
    assert_eq!(files, [dir.path().join("keys/wn1.wg"), dir.path().join("keys/wn2.wg")]);
    assert_eq!(guests[0].provided[1].kind, ProvidedKind::File("/etc/wg.key".into()));
    assert_eq!(guests[0].provided[0], guests[1].provided[0]);
}

#[test]
fn a_file_of_shell_variables_says_the_same() {
    let wn1 = "MUNGE_KEY=keys/munge.key\nKEYTAB=keys/{fqdn}.keytab\nKEY_FILES='/etc/wg.key keys/{name}.wg'\n";
    let kinds: Vec<_> = site(&directory(&[("wn1.conf", wn1)], KEYS)).unwrap().guests[0]
        .provided
        .iter()
        .map(|provided| provided.kind.clone())
        .collect();
    let file = ProvidedKind::File("/etc/wg.key".into());
    assert_eq!(kinds, [ProvidedKind::Munge, ProvidedKind::Keytab, file]);
}

#[test]
fn what_is_printed_of_a_site_has_no_secret_in_it() {
    let wn1 = "[keys]\nfiles = [\"/etc/wg.key keys/{name}.wg\"]\n";
    let dir = directory(&[("wn1.toml", wn1)], &[("wn1.wg", b"very-secret")]);
    let site = site(&dir).unwrap();
    let printed = format!("{site:?} {}", serde_json::to_string(&site).unwrap());
    assert!(printed.contains("wn1.wg") && !printed.contains("very-secret"), "{printed}");
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let dir = directory(&[("ce.toml", "[keys]\nmunge = \"keys/munge.key\"\n")], KEYS);
    fs::set_permissions(dir.path().join("keys/munge.key"), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        told(&dir),
        ["guests/ce.toml:2:9: 'keys/munge.key' is a secret that others on this host may read"]
    );
}

#[test]
fn each_mistake_is_told_where_it_was_made() {
    for (keys, expected) in [
        ("munge = \"keys/none\"", "2:9: there is no file 'keys/none' for guest 'ce'"),
        ("munge = \"keys/wn1.wg\"", "2:9: 'keys/wn1.wg' has 3 bytes, and munge takes 32 to 1024"),
        ("keytab = \"keys/munge.key\"", "2:10: 'keys/munge.key' is no keytab"),
        ("host_key = \"keys/munge.key\"", "2:12: 'keys/munge.key' has no private key in PEM form in it"),
        (
            "munge = \"keys/{host}\"",
            "2:9: munge 'keys/{host}' has braces around something else than name or fqdn",
        ),
        (
            "files = [\"/etc/../x keys/munge.key\"]",
            "2:10: files '/etc/../x keys/munge.key' does not begin with the whole path of a file in the guest, \
             as '/etc/../x' is not",
        ),
    ] {
        let dir = directory(&[("ce.toml", &format!("[keys]\n{keys}\n"))], KEYS);
        assert_eq!(told(&dir), [format!("guests/ce.toml:{expected}")], "{keys}");
    }
}

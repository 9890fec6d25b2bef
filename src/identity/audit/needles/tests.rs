//! Which forms are looked for, and what they are told from.

use super::*;
use crate::identity::audit::search::{Finder, Where};

fn old() -> Old {
    Old {
        names: ["ce01.old.org", "ce01", "ui"].map(str::to_owned).into(),
        domain: Some("old.org".to_owned()),
        addresses: ["10.77.0.1", "2001:db9::5"].map(|a| a.parse().unwrap()).into(),
        macs: [[0x52, 0x54, 0x00, 0xab, 0xcd, 0x1f]].into(),
        machine_ids: ["0123456789abcdef0123456789abcdef".to_owned()].into(),
        uuids: ["11223344-5566-7788-99aa-bbccddeeff00".to_owned()].into(),
        labels: ["iqn.1993-08.org.debian:01:abc".to_owned()].into(),
        keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOVnDVjOsotmpNyLmS0QHFCDjcTQV1nEcrZyE6WSprRZ root@ce01"
            .to_owned()]
        .into(),
        ..Old::default()
    }
}

/// What is found in a piece of data, as a file of the system's state.
fn found(data: impl AsRef<[u8]>) -> Vec<Sort> {
    found_at(data.as_ref(), Where { packaged: false, log: false, newer: false }, Data::File)
}

fn found_at(data: &[u8], at: Where, kind: Data) -> Vec<Sort> {
    let old = old();
    let needles = Needles::of(&old, &Now::default());
    let mut sorts = Vec::new();
    Finder::new(&needles, &old).unwrap().value(data, at, kind, &mut |_, needle| sorts.push(needle.sort));
    sorts
}

#[test]
fn an_address_is_not_part_of_a_longer_one() {
    for text in ["10.77.0.10", "110.77.0.1", "10.77.0.1.5", "3.10.77.0.1", "2001:db9::55", "a:2001:db9::5"] {
        assert_eq!(found(text), [], "{text}");
    }
    for text in [
        "10.77.0.1",
        "from 10.77.0.1.",
        "10.77.0.1/24",
        "(10.77.0.1:80)",
        "1.0.77.10.in-addr.arpa",
        "2001:DB9::5",
    ] {
        assert_eq!(found(text), [Sort::Address], "{text}");
    }
    assert_eq!(found("2001:0db9:0000:0000:0000:0000:0000:0005"), [Sort::Address]);
    assert_eq!(found(b"\x87\x04\x0a\x4d\x00\x01"), [Sort::Address]);
}

#[test]
fn a_name_is_not_part_of_another_word() {
    for text in ["xce01.old.organic", "ce011", "my-ce01", "ui", "build", "ce01_x"] {
        assert_eq!(found(text), [], "{text}");
    }
    for text in
        ["CE01.OLD.org", "https://ce01.old.org:8443/", "host/ce01.old.org@REALM", "/CN=ce01.old.org\n"]
    {
        assert_eq!(found(text), [Sort::Name], "{text}");
    }
    assert_eq!(found("kernel: ce01 up"), [Sort::ShortName]);
    assert_eq!(found("se.old.org"), [Sort::Domain]);
}

#[test]
fn a_name_too_short_to_mean_something_is_found_where_it_can_be_nothing_else() {
    let log = Where { packaged: false, log: true, newer: false };
    assert_eq!(found("ssh-rsa AAAA root@ui\n"), [Sort::ShortName]);
    assert_eq!(found("_HOSTNAME=ui\0"), [Sort::ShortName]);
    assert_eq!(found_at(b"Nov 21 06:00:00 ui sshd[1]: x", log, Data::File), [Sort::ShortName]);
    assert_eq!(found("Nov 21 06:00:00 ui sshd[1]: x"), []);
    assert_eq!(found_at(b"the ui team", log, Data::File), []);
    let needles = Needles::of(&old(), &Now::default());
    assert!(needles.left_out.iter().any(|left| left.what == "ui" && left.why.starts_with("too short")));
}

#[test]
fn a_hardware_address_is_found_however_it_is_spelled() {
    for text in [
        "52:54:00:ab:cd:1f",
        "52:54:00:AB:CD:1F",
        "52-54-00-ab-cd-1f",
        "5254.00ab.cd1f",
        "enx525400abcd1f",
        "00:03:00:01:52:54:00:ab:cd:1f",
        "fe80::5054:ff:feab:cd1f",
    ] {
        assert_eq!(found(text), [Sort::Mac], "{text}");
    }
    assert_eq!(found(b"\0\x52\x54\x00\xab\xcd\x1f\0"), [Sort::Mac]);
    assert_eq!(found("a525400abcd1f"), []);
}

#[test]
fn ids_are_found_as_digits_with_dashes_escaped_and_as_bytes_in_both_orders() {
    for text in [
        "0123456789abcdef0123456789abcdef",
        "0123456789ABCDEF0123456789ABCDEF",
        "01234567-89ab-cdef-0123-456789abcdef",
    ] {
        assert_eq!(found(text), [Sort::MachineId], "{text}");
    }
    assert_eq!(found(b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"), [Sort::MachineId]);
    for text in [
        "UUID=11223344-5566-7788-99AA-bbccddeeff00",
        "112233445566778899aabbccddeeff00",
        "uuid-11223344\\x2d5566\\x2d7788\\x2d99aa\\x2dbbccddeeff00",
    ] {
        assert_eq!(found(text), [Sort::Uuid], "{text}");
    }
    assert_eq!(found(b"\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00"), [Sort::Uuid]);
    assert_eq!(found(b"\x44\x33\x22\x11\x66\x55\x88\x77\x99\xaa\xbb\xcc\xdd\xee\xff\x00"), [Sort::Uuid]);
    assert_eq!(found("f0123456789abcdef0123456789abcdef"), []);
    assert_eq!(found("InitiatorName=iqn.1993-08.org.debian:01:abc\n"), [Sort::Label]);
}

#[test]
fn a_key_is_found_as_text_as_bytes_and_by_its_fingerprints() {
    use md5::{Digest, Md5};
    let base64 = "AAAAC3NzaC1lZDI1NTE5AAAAIOVnDVjOsotmpNyLmS0QHFCDjcTQV1nEcrZyE6WSprRZ";
    let line = format!("ssh-ed25519 {base64}");
    let blob = pem_decode(base64);
    let sha256 = crate::identity::keys::fingerprint(&line).unwrap();
    let md5: Vec<String> = Md5::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found(&line), [Sort::Key]);
    assert_eq!(found(&blob), [Sort::Key]);
    assert_eq!(found(format!("Accepted key {sha256}")), [Sort::Key]);
    assert_eq!(found(format!("MD5:{}", md5.join(":"))), [Sort::Key]);
    assert_eq!(found(line.to_lowercase()), []);
}

fn pem_decode(base64: &str) -> Vec<u8> {
    crate::identity::audit::pem::decode(base64.as_bytes())
}

#[test]
fn strings_in_certificates_stand_beside_bytes_that_look_like_letters() {
    let at = Where { packaged: false, log: false, newer: false };
    // A name of 12 bytes behind its length, and another element right behind it.
    assert_eq!(found_at(b"\x82\x0cce01.old.org0", at, Data::Der), [Sort::Name]);
    assert_eq!(found_at(b"DNS:ce01.old.org0\x81", at, Data::Der), [Sort::Name]);
    assert_eq!(found_at(b"xce01.old.orgx", at, Data::Der), []);
}

#[test]
fn what_the_new_machine_has_too_is_not_looked_for_and_that_is_said() {
    let mut own = old();
    own.names.remove("ce01.old.org");
    let now = Now { own, ..Now::default() };
    let needles = Needles::of(&old(), &now);
    assert!(needles.all.iter().all(|needle| needle.sort == Sort::Name), "{:?}", needles.all);
    assert!(needles.left_out.iter().any(|left| left.what == "ce01"));
}

#[test]
fn words_and_examples_are_not_looked_for_in_what_packages_bring() {
    let packaged = Where { packaged: true, log: false, newer: false };
    assert_eq!(found_at(b"ce01 se.old.org", packaged, Data::File), []);
    assert_eq!(found_at(b"ce01.old.org", packaged, Data::File), [Sort::Name]);
}

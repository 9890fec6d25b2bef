//! What machines said that they were, in the files of several systems.

use super::read::{addresses, macs, uuids};
use super::*;
use crate::host::root::Root;
use proptest::prelude::*;

#[test]
fn its_own_addresses_are_told_from_those_of_others() {
    for (text, expected) in [
        (
            "iface eth0 inet static\n address 10.1.2.3/24\n gateway 10.1.2.1\n dns-nameservers 10.1.2.2\n",
            "10.1.2.3",
        ),
        ("[Network]\nAddress=10.1.2.3/24\nGateway=10.1.2.1\nDNS=10.1.2.2\n", "10.1.2.3"),
        ("IPADDR=\"10.1.2.3\"\nNETMASK=255.255.255.0\nHWADDR=52:54:00:00:00:01\n", "10.1.2.3"),
        ("[ipv4]\naddress1=10.1.2.3/24,10.1.2.1\ndns=10.1.2.2;\n", "10.1.2.3"),
        ("addresses: [10.1.2.3/24]\ngateway4: 10.1.2.1\n", "10.1.2.3"),
        ("addresses:\n  - 10.1.2.3/24\nroutes:\n  - to: 10.9.0.1\n", "10.1.2.3"),
        ("  fixed-address 10.1.2.3;\n  option routers 10.1.2.1;\n", "10.1.2.3"),
        ("Address=2001:db8::3/64\n", "2001:db8::3"),
        ("address 127.0.0.1\naddress 0.0.0.0\naddress fe80::1\n", ""),
    ] {
        let found: Vec<String> = addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }
}

#[test]
fn a_filesystem_says_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, content: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    put("etc/hostname", "ce01\n");
    put("etc/hosts", "127.0.0.1 localhost\n10.1.2.3 ce01.old.org ce01\n10.1.2.4 se01.old.org\n");
    put("etc/machine-id", "0123456789ABCDEF0123456789abcdef\n");
    put("etc/fstab", "UUID=11111111-2222-3333-4444-55555555555A / ext4 defaults 0 1\n");
    put("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA root@ce01\n");
    put("etc/sysconfig/network-scripts/ifcfg-eth0", "HWADDR=52:54:00:AA:bb:01\nIPADDR=10.1.2.5\n");
    put("etc/iscsi/initiatorname.iscsi", "# x\nInitiatorName=iqn.1993-08.org.debian:01:abc\n");
    put("etc/munge/munge.key", "a secret");
    let old = Old::from_tree(&Root::open(dir.path()).unwrap()).unwrap();
    assert_eq!(old.names, ["ce01", "ce01.old.org"].map(str::to_owned).into());
    assert_eq!(old.domain.as_deref(), Some("old.org"));
    assert_eq!(old.addresses, ["10.1.2.3", "10.1.2.5"].map(|a| a.parse().unwrap()).into());
    assert_eq!(old.macs, [[0x52, 0x54, 0, 0xaa, 0xbb, 1]].into());
    assert_eq!(old.machine_ids, ["0123456789abcdef0123456789abcdef".to_owned()].into());
    assert_eq!(old.uuids, ["11111111-2222-3333-4444-55555555555a".to_owned()].into());
    assert_eq!(old.labels, ["iqn.1993-08.org.debian:01:abc".to_owned()].into());
    assert_eq!(old.keys, ["ssh-ed25519 AAAA root@ce01".to_owned()].into());
    assert_eq!(old.secrets, [blake3::hash(b"a secret").to_hex().to_string()].into());
    let json = old.to_json().unwrap();
    assert!(!String::from_utf8_lossy(&json).contains("a secret"));
    assert_eq!(Old::from_json(&json).unwrap(), old);
}

#[test]
fn an_identity_of_another_format_or_with_unknown_fields_is_refused() {
    assert!(Old::from_json(br#"{"version":1,"names":["ce.old.org"]}"#).is_ok());
    for wrong in
        [&br#"{"version":2}"#[..], br#"{}"#, br#"{"version":1,"name":"x"}"#, br#"{"version":1,"macs":["x"]}"#]
    {
        assert!(Old::from_json(wrong).is_err());
    }
}

proptest! {
    #[test]
    fn any_text_is_read(text in "[ -~\n\t]{0,200}") {
        addresses(&text);
        macs(&text);
        uuids(&text);
    }

    #[test]
    fn any_bytes_are_an_identity_or_refused(bytes in any::<Vec<u8>>()) {
        let _ = Old::from_json(&bytes);
    }
}

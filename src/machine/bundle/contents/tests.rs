use proptest::prelude::*;

use super::*;
use crate::archive::entry::{Content, Time};
use crate::archive::manifest::{Head, Own, OwnName};
use crate::archive::text::hex;

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let modified = Time { seconds: 0, nanoseconds: 0 };
    let path = path.as_bytes().to_vec();
    Entry { path, kind, mode, uid: 0, gid: 0, modified, attributes: Vec::new(), flags: 0 }
}

fn file() -> Kind {
    Kind::File(Content { len: 0, blake3: *blake3::hash(b"").as_bytes(), data: Vec::new() })
}

fn bundle(more: Vec<Entry>) -> Manifest {
    let mut entries = vec![entry("", Kind::Directory, 0o755)];
    for dir in ["images", "images/x", "program", "sites", "sites/dcu"] {
        entries.push(entry(dir, Kind::Directory, 0o755));
    }
    entries.push(entry("images/x/disk.ext4", file(), 0o644));
    entries.push(entry("sites/dcu/site.toml", file(), 0o644));
    entries.extend(more);
    let own = Own { name: OwnName::Bundle, len: 1, blake3: hex(blake3::hash(b"x").as_bytes()) };
    let head = Head { own: vec![own], ..crate::archive::manifest::tests::head() };
    Manifest::new(head, entries).unwrap()
}

fn contents() -> Contents {
    Contents {
        format_version: FORMAT_VERSION,
        program: ProgramVersion { version: "1".to_owned(), architecture: "x86_64".to_owned() },
        sites: vec![PackedSite {
            name: "dcu".parse().unwrap(),
            fqdn: "gw".to_owned(),
            image: "x".parse().unwrap(),
            guests: Vec::new(),
            left_out: Vec::new(),
            has_identities: false,
        }],
        images: vec![PackedImage {
            name: "x".parse().unwrap(),
            size_bytes: 0,
            blake3: String::new(),
            built_at_epoch_seconds: 0,
            packages: 0,
        }],
        has_uml_kernel: false,
    }
}

#[test]
fn what_a_bundle_says_is_read_again_and_has_to_be_what_it_has() {
    let manifest = bundle(Vec::new());
    check(&manifest).unwrap();
    let contents = contents();
    assert_eq!(Contents::parse(&contents.print().unwrap()).unwrap(), contents);
    contents.check(&manifest).unwrap();
    let mut other = contents.clone();
    other.sites[0].name = "ucc".parse().unwrap();
    assert!(other.check(&manifest).unwrap_err().to_string().contains("other sites"));
    let mut other = contents.clone();
    other.sites[0].image = "y".parse().unwrap();
    assert!(other.check(&manifest).unwrap_err().to_string().contains("image 'y', which it lacks"));
    let mut other = contents;
    other.sites[0].left_out = vec!["../../shadow".to_owned()];
    assert!(other.check(&manifest).unwrap_err().to_string().contains("no path of it"));
}

#[test]
fn another_version_is_told_apart_before_its_fields_are_looked_at() {
    let error = Contents::parse(br#"{"format_version": 2, "moon": true}"#).unwrap_err().to_string();
    assert_eq!(error, "reading the bundle's 'bundle.json': it has format 2, this program knows 1");
}

#[test]
fn an_archive_of_anything_else_is_no_bundle() {
    let mut manifest = bundle(Vec::new());
    manifest.head.own.clear();
    assert!(check(&manifest).unwrap_err().to_string().contains("no bundle; hint: 'gridgate image restore'"));
    manifest = bundle(Vec::new());
    manifest.entries.retain(|entry| !entry.path.starts_with(b"sites/"));
    assert!(check(&manifest).unwrap_err().to_string().contains("it has 0 sites"));
}

#[test]
fn what_no_bundle_has_is_refused() {
    let link = || Kind::SymbolicLink(b"/etc".to_vec());
    let dir = || Kind::Directory;
    let long = |len| Kind::File(Content { len, blake3: *blake3::hash(b"").as_bytes(), data: Vec::new() });
    let owned = Entry { uid: 7, ..entry("program/x", file(), 0o644) };
    let flagged = Entry { flags: 0x10, ..entry("program/x", file(), 0o644) };
    for bad in [
        entry("sites/dcu/guests", link(), 0o755),
        entry("images/y", link(), 0o755),
        entry("program/null", Kind::CharacterDevice(1, 3), 0o644),
        entry("program/fifo", Kind::Fifo, 0o644),
        entry("program/hard", Kind::HardLink(b"images/x/disk.ext4".to_vec()), 0),
        entry("program/su", file(), 0o4755),
        entry("program/open", file(), 0o666),
        entry("etc", dir(), 0o755),
        entry("images/x/deep", dir(), 0o755),
        entry("images/x/.hidden", file(), 0o644),
        entry("sites/UPPER", dir(), 0o755),
        entry("sites/dcu/.ssh", dir(), 0o755),
        entry("kernels", file(), 0o644),
        entry("images/x/manifest.json", long(1 << 40), 0o644),
        entry("images/x/vmlinuz", long(1 << 40), 0o644),
        entry("sites/dcu/huge", long((16 << 20) + 1), 0o644),
        entry("program/huge", long(1 << 31), 0o644),
        owned,
        flagged,
    ] {
        let path = bad.path.clone();
        assert!(check(&bundle(vec![bad])).is_err(), "{}", path.escape_ascii());
    }
    check(&bundle(vec![entry("program/link", link(), 0o755)])).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text in "\\PC{0,200}") {
        let _ = Contents::parse(&bytes);
        let _ = Contents::parse(text.as_bytes());
    }

    #[test]
    fn any_change_of_what_it_says_is_read_or_refused(at in 0usize..400, with in "\\PC{0,3}") {
        let mut text = String::from_utf8(contents().print().unwrap()).unwrap();
        let at = at.min(text.len() - 1);
        text.replace_range(at..at + 1, &with);
        if let Ok(read) = Contents::parse(text.as_bytes()) {
            let _ = read.check(&bundle(Vec::new()));
        }
    }

    #[test]
    fn whatever_path_is_let_through_stays_inside(path in "(images|sites|identities|program|kernels)(/[a-z.]{0,3}){0,4}", link: bool) {
        let kind = if link { Kind::SymbolicLink(b"/".to_vec()) } else { file() };
        if one(&entry(&path, kind, 0o644)).is_ok() {
            prop_assert!(is_inside(Path::new(&path)), "{}", path);
            prop_assert!(!link || path.starts_with("program/"));
        }
    }
}

//! What a manifest says comes back, and what it must not say is refused.

use super::*;
use crate::archive::entry::{Content, Time};
use proptest::prelude::*;

/// A head whose sums are filled in by [`Manifest::new`].
pub(crate) fn head() -> Head {
    Head {
        format_version: FORMAT_VERSION,
        name: "x".to_owned(),
        packed_by: "a test".to_owned(),
        filesystem: None,
        entries: 0,
        content_bytes: 0,
        data_bytes: 0,
        minimum_bytes: 0,
        audit: Audit { clean: true, private_keys: Vec::new(), identity: Vec::new() },
        own: Vec::new(),
    }
}

pub(crate) fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 70_000,
        modified: Time { seconds: -1, nanoseconds: 999_999_999 },
        attributes: Vec::new(),
        flags: 0,
    }
}

pub(crate) fn link(path: &[u8], target: &[u8]) -> Entry {
    let modified = Time { seconds: 0, nanoseconds: 0 };
    Entry { mode: 0, gid: 0, modified, ..entry(path, Kind::HardLink(target.to_vec())) }
}

pub(crate) fn file(path: &[u8], content: &[u8]) -> Entry {
    let data = if content.is_empty() { Vec::new() } else { vec![(0, content.len() as u64)] };
    let content = Content { len: content.len() as u64, blake3: blake3::hash(content).into(), data };
    entry(path, Kind::File(content))
}

/// One of each kind.
pub(crate) fn entries() -> Vec<Entry> {
    let mut marked = file(b"d/f", b"hello");
    marked.flags = 0x10;
    marked.attributes = vec![
        (b"security.capability".to_vec(), b"\x01\0\0\x02\xff".to_vec()),
        (b"user.note".to_vec(), b"text".to_vec()),
    ];
    let sparse = Content { len: 1 << 40, blake3: [7; 32], data: vec![(4096, 4096), (1 << 39, 1)] };
    vec![
        entry(b"", Kind::Directory),
        entry(b"d", Kind::Directory),
        entry(b"d/\xff\n", Kind::SymbolicLink(b"/\xfe".to_vec())),
        entry(b"null", Kind::CharacterDevice(1, 3)),
        entry(b"disk", Kind::BlockDevice(259, 1_000_000)),
        entry(b"fifo", Kind::Fifo),
        entry(b"socket", Kind::Socket),
        marked,
        entry(b"sparse", Kind::File(sparse)),
        file(b"empty", b""),
        link(b"d/g", b"d/f"),
    ]
}

fn refused(entries: Vec<Entry>) -> String {
    format!("{:#}", Manifest::new(head(), entries).unwrap_err())
}

#[test]
fn every_kind_of_thing_comes_back() {
    let manifest = Manifest::new(head(), entries()).unwrap();
    let printed = manifest.print().unwrap();
    assert_eq!(Manifest::parse(&printed, &Limits::default()).unwrap(), manifest);
    assert_eq!((manifest.head.content_bytes, manifest.head.data_bytes), ((1 << 40) + 5, 4096 + 1 + 5));
}

#[test]
fn whatever_leads_out_or_means_two_things_is_refused() {
    let top = || entry(b"", Kind::Directory);
    let cases: Vec<(Vec<Entry>, &str)> = vec![
        (vec![], "the top directory is missing"),
        (vec![top(), file(b"../a", b"")], "not one inside"),
        (vec![top(), file(b"/etc/passwd", b"")], "not one inside"),
        (vec![top(), file(b"a//b", b"")], "not one inside"),
        (vec![top(), file(b"./a", b"")], "not one inside"),
        (vec![top(), file(b"a\0b", b"")], "its path is none"),
        (vec![top(), file(&[b'a'; 256], b"")], "a name of 256 bytes"),
        (vec![top(), file(b"a", b""), file(b"a", b"")], "'a' is there twice"),
        (vec![top(), top()], "'' is there twice"),
        (vec![top(), file(b"a/b", b"")], "no directory that it is in"),
        (
            vec![top(), entry(b"a", Kind::SymbolicLink(b"/etc".to_vec())), file(b"a/b", b"")],
            "no directory that it is in",
        ),
        (vec![top(), file(b"a", b""), file(b"a/b", b"")], "no directory that it is in"),
        (vec![top(), link(b"a", b"b")], "no file that comes before it"),
        (vec![top(), link(b"a", b"../../etc/passwd")], "no file that comes before it"),
        (vec![top(), link(b"a", b"")], "no file that comes before it"),
        (vec![top(), file(b"a", b""), link(b"b", b"a"), link(b"c", b"b")], "no file that comes before it"),
        (vec![top(), entry(b"a", Kind::SymbolicLink(vec![]))], "its target is none"),
        (vec![top(), entry(b"a", Kind::SymbolicLink(vec![b'a'; 5000]))], "its target is none"),
        (vec![top(), entry(b"a", Kind::CharacterDevice(1 << 12, 0))], "its number is none"),
        (vec![top(), entry(b".gridgate", Kind::Directory)], "the archive's own files"),
    ];
    for (entries, why) in cases {
        let told = refused(entries);
        assert!(told.contains(why), "{told} is not about: {why}");
    }
}

#[test]
fn pieces_of_a_file_lie_inside_it_and_in_order() {
    for data in [vec![(0, 0)], vec![(0, 11)], vec![(u64::MAX, 2)], vec![(4, 2), (0, 2)], vec![(0, 4), (4, 2)]]
    {
        let content = Content { len: 10, blake3: [0; 32], data };
        let told = refused(vec![entry(b"", Kind::Directory), entry(b"a", Kind::File(content))]);
        assert!(told.contains("its pieces"), "{told}");
    }
}

#[test]
fn attributes_that_no_filesystem_holds_are_refused() {
    let names: [&[u8]; 5] = [b"user.", b"system.data", b"evil", b"user.a\0b", b"security.selinux"];
    for (number, name) in names.iter().enumerate() {
        let mut marked = file(b"a", b"");
        marked.attributes = vec![(name.to_vec(), vec![])];
        let made = Manifest::new(head(), vec![entry(b"", Kind::Directory), marked]);
        assert_eq!(made.is_ok(), number == 4, "{:?}", name.escape_ascii().to_string());
    }
}

#[test]
fn a_manifest_of_another_version_or_length_is_refused() {
    let printed = Manifest::new(head(), entries()).unwrap().print().unwrap();
    let text = String::from_utf8(printed.clone()).unwrap();
    let told =
        |text: &str, limits: Limits| format!("{:#}", Manifest::parse(text.as_bytes(), &limits).unwrap_err());
    let usual = Limits::default();
    let other = text.replacen("\"format_version\":1", "\"format_version\":2,\"new\":{}", 1);
    assert_eq!(told(&other, usual), "reading the archive's manifest: it has format 2, this program knows 1");
    assert!(told(&text[..text.len() - 1], usual).ends_with("its last line does not end"));
    let fewer: String = text.lines().take(5).map(|line| format!("{line}\n")).collect();
    assert!(told(&fewer, usual).ends_with("other sums than its entries have"));
    assert!(told(&format!("{text}{{}}\n"), usual).contains("there are more entries"));
    assert!(told(&text, Limits { manifest_bytes: 100, ..usual }).contains("more than 100"));
    assert!(told(&text, Limits { entries: 3, ..usual }).contains("more than 3"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Manifest::parse(&bytes, &Limits::default());
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_as_what_it_says(at in 0usize..10_000, to: u8) {
        let mut printed = Manifest::new(head(), entries()).unwrap().print().unwrap();
        let at = at % printed.len();
        printed[at] = to;
        if let Ok(read) = Manifest::parse(&printed, &Limits::default()) {
            let again = read.print().unwrap();
            prop_assert_eq!(Manifest::parse(&again, &Limits::default()).unwrap(), read);
        }
    }
}

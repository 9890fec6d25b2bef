use proptest::prelude::*;

use super::*;
use crate::archive::header as written;
use crate::archive::manifest::tests::{entry, file};

fn read_bytes(bytes: &[u8]) -> Result<Tar> {
    let kept = tempfile::tempfile().unwrap();
    read(&mut &bytes[..], kept, Limits::default(), &mut |_| Ok(()))
}

/// What the packer of this program writes.
fn packed(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, data) in entries {
        bytes.extend(written::of(entry, entry));
        bytes.extend(*data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + written::END, 0);
    bytes
}

fn all(tar: &Tar) -> Vec<(Surveyed, Vec<u8>)> {
    let mut found = Vec::new();
    tar.survey(&mut |surveyed| {
        found.push((surveyed, Vec::new()));
        Ok(())
    })
    .unwrap();
    for (Surveyed { entry, .. }, data) in &mut found {
        if let Kind::File(content) = &entry.kind {
            let each = &mut |piece: &[u8]| {
                data.extend(piece);
                Ok(())
            };
            tar.data(entry, content, each).unwrap();
        }
    }
    found
}

fn error(bytes: &[u8]) -> String {
    format!("{:#}", read_bytes(bytes).unwrap_err())
}

#[test]
fn what_the_packer_writes_is_read_with_all_that_it_holds() {
    let mut odd = entry(b"odd\xff\nname", Kind::CharacterDevice(259, 1_000_000));
    odd.uid = 4_000_000_000;
    odd.gid = 70_000;
    odd.modified = Time { seconds: -2, nanoseconds: 500_000_000 };
    odd.attributes = vec![(b"user.a=b%c".to_vec(), b"\0\n".to_vec())];
    let mut holes = file(b"holes", b"abcd");
    if let Kind::File(content) = &mut holes.kind {
        (content.len, content.data) = (5 << 30, vec![(4096, 1), (8192, 3)]);
    }
    let list =
        acl::bytes(b"user::rw-,user:7:r--,group::r--,mask::r--,other::---", &Accounts::default()).unwrap();
    holes.mode = 0o640;
    holes.attributes = vec![(b"system.posix_acl_access".to_vec(), list)];
    let long = [&[b'n'; 255][..], b"/", &[b'm'; 255]].concat();
    let entries = [
        (entry(b"", Kind::Directory), &b""[..]),
        (odd, b""),
        (holes, b"abcd"),
        (entry(&[b'n'; 255], Kind::Directory), b""),
        (entry(&long, Kind::SymbolicLink(vec![b'x'; 300])), b""),
    ];
    let tar = read_bytes(&packed(&entries)).unwrap();
    let mut wanted: Vec<_> = entries.iter().map(|(entry, data)| (entry.clone(), data.to_vec())).collect();
    wanted.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    for (entry, _) in &mut wanted {
        if let Kind::File(content) = &mut entry.kind {
            content.blake3 = [0; 32];
        }
    }
    let found: Vec<_> = all(&tar).into_iter().map(|(surveyed, data)| (surveyed.entry, data)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn a_tar_that_was_cut_short_is_refused_wherever_it_was() {
    let whole = packed(&[(entry(b"", Kind::Directory), b""), (file(b"f", b"data"), b"data")]);
    for len in (0..whole.len() - written::END).step_by(128) {
        assert!(error(&whole[..len]).contains("cut short"), "{len}");
    }
    // One block of zeros is enough, as for others.
    assert!(read_bytes(&whole[..whole.len() - BLOCK]).is_ok());
    let more = [&whole[..], &whole[..]].concat();
    assert!(error(&more).contains("more behind its end"));
}

#[test]
fn members_that_lead_out_are_refused_by_name() {
    let link = entry(b"lib", Kind::SymbolicLink(b"/etc".to_vec()));
    for (path, why) in [(&b"../x"[..], "climbs out"), (b"lib/x", "which is no directory")] {
        let bytes = packed(&[(link.clone(), b""), (entry(path, Kind::Fifo), b"")]);
        let error = error(&bytes);
        assert!(error.contains(why) && error.contains(&path.escape_ascii().to_string()), "{error}");
    }
    let out = entry(b"x", Kind::HardLink(b"../../etc/passwd".to_vec()));
    assert!(error(&packed(&[(out, b"")])).contains("climbs out"));
    let none = entry(b"x", Kind::HardLink(b"y".to_vec()));
    assert!(error(&packed(&[(none, b"")])).contains("is not before it"));
}

#[test]
fn a_directory_that_nobody_tells_of_is_there_and_a_later_member_replaces_an_earlier_one() {
    let tar =
        read_bytes(&packed(&[(file(b"a/b", b"old"), b"old"), (file(b"a/b", b"new!"), b"new!")])).unwrap();
    let found = all(&tar);
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].0.entry.kind, Kind::Directory);
    assert_eq!(found[2].1, b"new!");
}

#[test]
fn where_there_is_no_more_room_it_ends_there() {
    let bytes = packed(&[(file(b"f", b"data"), b"data")]);
    let kept = tempfile::tempfile().unwrap();
    let full = &mut |_| bail!("no room");
    assert!(read(&mut &bytes[..], kept, Limits::default(), full).is_err());
}

#[test]
fn an_archive_of_this_program_is_for_another_command() {
    let mut bytes = written::own("manifest.jsonl", 0);
    bytes.resize(bytes.len() + written::END, 0);
    assert!(error(&bytes).contains("image restore"));
}

proptest! {
    #[test]
    fn any_damage_is_read_or_refused(at in 0usize..4096, with: Vec<u8>) {
        let mut holes = file(b"holes", b"abcd");
        if let Kind::File(content) = &mut holes.kind {
            (content.len, content.data) = (1 << 20, vec![(4096, 1), (8192, 3)]);
        }
        let mut bytes = packed(&[(holes, b"abcd"), (file(&[b'n'; 120], b"data"), b"data")]);
        for (offset, byte) in with.iter().enumerate() {
            if let Some(place) = bytes.get_mut(at + offset) {
                *place = *byte;
            }
        }
        if let Ok(tar) = read_bytes(&bytes) {
            all(&tar);
        }
    }
}

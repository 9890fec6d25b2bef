use std::path::PathBuf;

use super::*;
use crate::archive::compare::{Known, compare};
use crate::archive::entry::Time;
use crate::host::Live;
use crate::host::filesystem::Filesystems;
use crate::host::newfs::tests::unique_uuid;
use crate::host::newfs::{Finish, NewFilesystem, Work};
use crate::host::superblock::FilesystemKind;
use crate::host::volume::Volume;

pub(in crate::archive) fn entry(path: &[u8], kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: Time { seconds: 1_600_000_000, nanoseconds: 123_456_789 },
        attributes: Vec::new(),
        flags: 0,
    }
}

pub(in crate::archive) fn file(path: &[u8], len: u64, pieces: &[(u64, &[u8])]) -> Entry {
    let mut hasher = blake3::Hasher::new();
    for (_, piece) in pieces {
        hasher.update(piece);
    }
    let data = pieces.iter().map(|(offset, piece)| (*offset, piece.len() as u64)).collect();
    entry(path, Kind::File(Content { len, blake3: *hasher.finalize().as_bytes(), data }))
}

/// Access list for user 1234, as the kernel has it (acl(5), linux/posix_acl_xattr.h).
fn access_list() -> Vec<u8> {
    let mut list = vec![2, 0, 0, 0];
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 7, 1234), (4, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 4, u32::MAX)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(perm.to_le_bytes()).chain(id.to_le_bytes()));
    }
    list
}

/// Pieces of files, by number.
type Contents = Vec<(usize, Vec<(u64, Vec<u8>)>)>;
/// Where, how, and what is said of it.
type Change<'a> = (&'a [u8], &'a dyn Fn(&mut Entry), &'a str);

/// Everything that a filesystem can hold, with the content of its files by number.
fn everything() -> (Vec<Entry>, Contents) {
    let dir = |path: &[u8], mode| Entry { mode, ..entry(path, Kind::Directory) };
    let acl = |name: &str| (format!("system.posix_acl_{name}").into_bytes(), access_list());
    let long: Vec<u8> = (0..30).map(|_| "n".repeat(200)).collect::<Vec<_>>().join("/").into_bytes();
    let capability = vec![0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut entries = vec![dir(b"", 0o751)];
    entries.push(Entry {
        attributes: vec![acl("access"), acl("default")],
        mode: 0o2674,
        ..dir(b"shared", 0)
    });
    entries.push(Entry { flags: 0x10, ..dir(b"locked", 0o555) });
    entries.push(dir(b"empty", 0o1777));
    entries.push(dir(b"closed", 0));
    for (at, _) in long.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        entries.push(dir(&long[..at], 0o700));
    }
    entries.push(dir(&long, 0o700));
    let mut put = |entry: Entry| entries.push(entry);
    put(Entry { mode: 0o4755, uid: 1, gid: 2, ..file(b"closed/set-id", 3, &[(0, b"abc")]) });
    put(Entry {
        mode: 0o674,
        attributes: vec![
            (b"security.capability".to_vec(), capability),
            acl("access"),
            (b"trusted.t".to_vec(), vec![0, 255]),
            (b"user.u".to_vec(), Vec::new()),
        ],
        ..file(b"shared/dressed", 2, &[(0, b"xy")])
    });
    put(Entry { flags: 0x10 | 0x80, ..file(b"locked/fixed", 1, &[(0, b"i")]) });
    put(Entry { flags: 0x20 | 0x40, ..file(b"log", 1, &[(0, b"a")]) });
    put(Entry { uid: 70_000, gid: u32::MAX - 1, ..file(b"\xff\n name\\", 1, &[(0, b"x")]) });
    put(Entry { modified: Time { seconds: -86_400, nanoseconds: 999_999_999 }, ..file(b"old", 0, &[]) });
    put(file(b"hole", 10 << 30, &[(1 << 20, &[7; 4096]), (9 << 30, &[8; 100])]));
    put(file(b"all-hole", 1 << 20, &[]));
    put(file(&[&long[..], b"/deep"].concat(), 4, &[(0, b"deep")]));
    put(Entry {
        uid: 5,
        attributes: vec![(b"trusted.l".to_vec(), b"v".to_vec())],
        ..entry(b"link", Kind::SymbolicLink(b"/etc/passwd".to_vec()))
    });
    put(entry(b"null", Kind::CharacterDevice(1, 3)));
    put(entry(b"disk", Kind::BlockDevice(259, 70_000)));
    put(Entry { mode: 0o600, ..entry(b"fifo", Kind::Fifo) });
    put(entry(b"socket", Kind::Socket));
    put(entry(b"empty/again", Kind::HardLink(b"locked/fixed".to_vec())));
    put(entry(b"link-again", Kind::HardLink(b"link".to_vec())));
    put(entry(b"null-again", Kind::HardLink(b"null".to_vec())));
    let mut contents = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let pieces: Vec<(u64, Vec<u8>)> = match &entry.path[..] {
            b"closed/set-id" => vec![(0, b"abc".to_vec())],
            b"shared/dressed" => vec![(0, b"xy".to_vec())],
            b"locked/fixed" => vec![(0, b"i".to_vec())],
            b"log" => vec![(0, b"a".to_vec())],
            b"\xff\n name\\" => vec![(0, b"x".to_vec())],
            b"hole" => vec![(1 << 20, vec![7; 4096]), (9 << 30, vec![8; 100])],
            path if path.ends_with(b"/deep") => vec![(0, b"deep".to_vec())],
            _ => continue,
        };
        contents.push((number, pieces));
    }
    for entry in &mut entries {
        if matches!(entry.kind, Kind::SymbolicLink(_)) {
            entry.mode = 0o777;
        }
    }
    (entries, contents)
}

fn new_disk(dir: &Path, kind: FilesystemKind) -> Option<(PathBuf, NewFilesystem)> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: loop devices need root");
        return None;
    }
    let new = NewFilesystem {
        kind,
        label: String::new(),
        uuid: unique_uuid(),
        reserved_percent: 0,
        inodes: 0,
        tight: false,
        features: Vec::new(),
    };
    if new.check(&Live).is_err() {
        eprintln!("skipped: nothing here makes {}", kind.name());
        return None;
    }
    let disk = dir.join("disk");
    std::fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    Some((disk, new))
}

const KINDS: [FilesystemKind; 3] = [FilesystemKind::Ext4, FilesystemKind::Xfs, FilesystemKind::Btrfs];

#[test]
fn everything_that_a_filesystem_holds_is_made_as_it_was_told() {
    let (entries, contents) = everything();
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let Some((disk, new)) = new_disk(dir.path(), kind) else { continue };
        let mut short = Short::default();
        let mut work = Work {
            fill: &mut |root| {
                let fill = Fill::begin(root, &entries)?;
                for (number, pieces) in &contents {
                    let file = fill.file(*number)?;
                    for (offset, piece) in pieces {
                        file.write(piece, *offset)?;
                    }
                    file.end()?;
                }
                short = fill.finish()?;
                Ok(())
            },
            check: None,
        };
        Live.make_volume(&Volume::whole(&disk), &new, Finish::InPlace, &mut work).unwrap();
        let unkept: Vec<&[u8]> = short.unkept.iter().map(|number| &entries[*number].path[..]).collect();
        assert!(unkept.is_empty(), "{}: {unkept:?}", kind.name());
        assert!(short.lost.is_empty());
        let mut differences = Vec::new();
        Live.look_at_volume(&Volume::whole(&disk), &mut |root, _| {
            differences = compare(root, &entries, &Known::default(), &|_| ())?;
            Ok(())
        })
        .unwrap();
        assert!(differences.is_empty(), "{}: {differences:?}", kind.name());
        assert!(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&disk).unwrap()) * 512 < 300 << 20);
    }
}

/// Long pieces go another way than short ones, if their place and memory are made for it.
#[test]
fn long_pieces_are_where_they_belong_wherever_they_begin_and_end() {
    let mut noise = vec![0; (2 << 20) + 8192];
    blake3::Hasher::new_derive_key("pieces").finalize_xof().fill(&mut noise);
    let page = noise.as_ptr().align_offset(4096);
    let long = 1 << 20;
    // Where a piece begins in memory, where in the file, and how long it is.
    let files: [&[(usize, u64, usize)]; 6] = [
        &[(page, 0, long)],
        &[(page + 512, 0, long + 1), (page, long as u64 + 1, long)],
        &[(page + 1, 0, long)],
        &[(page, 4096, long), (page, 4096 + 2 * long as u64, long + 4095)],
        &[(page, 512, long)],
        &[(page, 0, long), (page + long, long as u64, 700)],
    ];
    let pieces = |file: &[(usize, u64, usize)]| -> Vec<(u64, Vec<u8>)> {
        file.iter().map(|(from, offset, len)| (*offset, noise[*from..from + len].to_vec())).collect()
    };
    let mut entries = vec![entry(b"", Kind::Directory)];
    for (number, places) in files.iter().enumerate() {
        let pieces = pieces(places);
        let len = pieces.last().map_or(0, |(offset, piece)| offset + piece.len() as u64);
        let pieces: Vec<(u64, &[u8])> = pieces.iter().map(|(offset, piece)| (*offset, &piece[..])).collect();
        entries.push(file(number.to_string().as_bytes(), len, &pieces));
    }
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let Some((disk, new)) = new_disk(dir.path(), kind) else { continue };
        let mut differences = None;
        let mut check = |root: &Root| {
            differences = Some(compare(root, &entries, &Known::default(), &|_| ())?);
            Ok(())
        };
        let mut work = Work {
            fill: &mut |root| {
                let fill = Fill::begin(root, &entries)?;
                for (number, places) in files.iter().enumerate() {
                    let file = fill.file(number + 1)?;
                    for (from, offset, len) in *places {
                        file.write(&noise[*from..from + len], *offset)?;
                    }
                    file.end()?;
                }
                fill.finish().map(drop)
            },
            check: Some(&mut check),
        };
        Live.make_volume(&Volume::whole(&disk), &new, Finish::InPlace, &mut work).unwrap();
        assert_eq!(differences, Some(Vec::new()), "{}", kind.name());
    }
}

#[test]
fn each_change_of_a_filesystem_is_found() {
    let (entries, _) = everything();
    let dir = tempfile::tempdir().unwrap();
    let Some((disk, new)) = new_disk(dir.path(), FilesystemKind::Ext4) else { return };
    let few: Vec<Entry> = entries
        .into_iter()
        .filter(|entry| matches!(&entry.path[..], b"" | b"empty" | b"link" | b"null" | b"old" | b"all-hole"))
        .collect();
    let mut work = Work { fill: &mut |root| Fill::begin(root, &few)?.finish().map(drop), check: None };
    Live.make_volume(&Volume::whole(&disk), &new, Finish::InPlace, &mut work).unwrap();
    let mut changed = few.clone();
    let changes: [Change<'_>; 9] = [
        (b"empty", &|entry| entry.mode = 0o1776, "mode is 1777 instead of 1776"),
        (b"empty", &|entry| entry.uid = 9, "belongs to 0:0 instead of 9:0"),
        (b"empty", &|entry| entry.flags = 0x40, "flags are 0x0 instead of 0x40"),
        (
            b"old",
            &|entry| entry.modified.nanoseconds = 5,
            "time is -86400.999999999 instead of -86400.000000005",
        ),
        (
            b"old",
            &|entry| entry.attributes = vec![(b"user.x".to_vec(), vec![1])],
            "attribute 'user.x' is another",
        ),
        (b"all-hole", &|entry| *entry = file(b"all-hole", 1 << 20, &[(5, b"x")]), "content is another"),
        (
            b"all-hole",
            &|entry| *entry = file(b"all-hole", 1 << 21, &[]),
            "has 1048576 bytes instead of 2097152",
        ),
        (
            b"link",
            &|entry| entry.kind = Kind::SymbolicLink(b"/x".to_vec()),
            "leads to '/etc/passwd' instead of '/x'",
        ),
        (b"null", &|entry| entry.kind = Kind::CharacterDevice(1, 5), "is device 1:3 instead of 1:5"),
    ];
    Live.look_at_volume(&Volume::whole(&disk), &mut |root, _| {
        for (at, change, why) in &changes {
            changed.clone_from(&few);
            change(changed.iter_mut().find(|entry| entry.path == *at).unwrap());
            let found = compare(root, &changed, &Known::default(), &|_| ())?;
            assert_eq!(found.len(), 1, "{why}: {found:?}");
            assert!(found[0].path == *at && found[0].what.contains(why), "{why}: {found:?}");
        }
        let fewer = compare(root, &few[..2], &Known::default(), &|_| ())?;
        assert!(
            fewer.iter().all(|found| found.what.contains("should not be")) && fewer.len() == few.len() - 2
        );
        changed.clone_from(&few);
        changed.push(entry(b"gone", Kind::Fifo));
        assert_eq!(
            compare(root, &changed, &Known::default(), &|_| ())?[0].to_string(),
            "/gone: it is missing"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_file_that_is_given_up_is_not_there_nor_are_its_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let entries = [
        Entry { mode: 0o755, uid: uid(), gid: gid(), ..entry(b"", Kind::Directory) },
        Entry { uid: uid(), gid: gid(), ..file(b"a", 2, &[(0, b"aa")]) },
        Entry { uid: uid(), gid: gid(), ..file(b"b", 2, &[(0, b"bb")]) },
        entry(b"c", Kind::HardLink(b"a".to_vec())),
        Entry { uid: uid(), gid: gid(), ..file(b"d", 2, &[(0, b"dd")]) },
    ];
    let fill = Fill::begin(&root, &entries).unwrap();
    let half = fill.file(1).unwrap();
    half.write(b"a", 0).unwrap();
    half.lose().unwrap();
    let whole = fill.file(2).unwrap();
    whole.write(b"bb", 0).unwrap();
    whole.end().unwrap();
    fill.lose(4);
    assert_eq!(fill.finish().unwrap().lost, [1, 3, 4]);
    assert_eq!(root.list(Path::new("/")).unwrap(), [PathBuf::from("b")]);
    let known = Known { lost: [1, 3, 4].into(), ..Known::default() };
    assert_eq!(compare(&root, &entries, &known, &|_| ()).unwrap(), []);
}

#[test]
fn no_entry_leads_out_of_the_filesystem() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::write(outer.path().join("victim"), "mine").unwrap();
    let own = |entry: Entry| Entry { uid: uid(), gid: gid(), ..entry };
    let bad: [Entry; 8] = [
        file(b"../victim", 1, &[(0, b"x")]),
        file(b"/victim", 1, &[(0, b"x")]),
        file(b"out/victim", 1, &[(0, b"x")]),
        entry(b"out/new", Kind::Directory),
        entry(b"out/victim2", Kind::Fifo),
        entry(b"..", Kind::Directory),
        entry(b"mine", Kind::HardLink(b"out/victim".to_vec())),
        file(b"out", 1, &[(0, b"x")]),
    ];
    for bad in bad {
        std::fs::create_dir(&inner).unwrap();
        let root = Root::open(&inner).unwrap();
        let entries = [
            own(Entry { mode: 0o755, ..entry(b"", Kind::Directory) }),
            own(entry(b"out", Kind::SymbolicLink(b"..".to_vec()))),
            own(bad.clone()),
        ];
        let filled = Fill::begin(&root, &entries).and_then(|fill| {
            if matches!(bad.kind, Kind::File(_)) {
                fill.file(2)?.write(b"x", 0)?;
            }
            fill.finish()
        });
        assert!(filled.is_err(), "{bad:?}");
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2, "{bad:?}");
        assert_eq!(std::fs::read(outer.path().join("victim")).unwrap(), b"mine");
        std::fs::remove_dir_all(&inner).unwrap();
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}

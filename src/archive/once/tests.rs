//! Archives packed in one reading, against the same in two.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::archive::limits::Limits;
use crate::archive::pack::PrivateKeys;
use crate::archive::reader::{Damage, Reader};
use crate::archive::stream::Piece;
use crate::host::root::Root;

const KEY: &str =
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n";

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    for number in 0..300u32 {
        put(&format!("{number}.txt"), format!("{number} ").repeat(number as usize * 40).as_bytes());
    }
    // Two that are the same, and one of their length that is not.
    let (same, other) = (vec![7; 50_000], [vec![7; 49_999], vec![8]].concat());
    for (name, content) in [("b.one", &same), ("a.two", &other), ("z.three", &same), ("empty", &vec![])] {
        put(name, content);
    }
    let holes = File::create(dir.path().join("holes")).unwrap();
    holes.write_all_at(b"in the middle", 1 << 20).unwrap();
    holes.set_len(2 << 20).unwrap();
    symlink("b.one", dir.path().join("link")).unwrap();
    fs::hard_link(dir.path().join("b.one"), dir.path().join("name")).unwrap();
    dir
}

fn about(keys: Keys) -> About {
    About { name: "tree".to_owned(), filesystem: None, own: Vec::new(), keys }
}

fn once(tree: &Path, to: &Path, about: &About, sign: Option<Sign<'_>>) -> Result<(Manifest, Written)> {
    let file = File::options().read(true).write(true).create_new(true).open(to)?;
    let (root, progress) = (Root::open(tree)?, Progress::silent());
    super::pack(&root, about, sign, Packing::Fast, &Place::new(file), &progress)
}

fn twice(tree: &Path, signatures: Option<&[u8]>) -> (Manifest, Vec<u8>) {
    let (root, about, progress) = (Root::open(tree).unwrap(), about(Keys::Refuse), Progress::silent());
    let manifest = pack::survey(&root, &about, &progress).unwrap();
    let packed = pack::pack(&root, &about, &manifest, signatures, Packing::Fast, Vec::new(), &progress);
    let (bytes, _) = packed.unwrap();
    (manifest, bytes)
}

/// How many files come out of it; all of it is checked on the way.
fn files(archive: &Path) -> usize {
    let reader = Reader::open(Box::new(File::open(archive).unwrap()), Limits::default()).unwrap();
    let mut files = 0;
    let each = &mut |piece: Piece<'_>| {
        files += usize::from(matches!(piece, Piece::End { .. }));
        Ok(())
    };
    reader.each(Damage::Refuse, each).unwrap();
    files
}

#[test]
fn one_reading_gives_what_two_give_and_hardly_more_bytes() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    let archive = dir.path().join("once");
    let (manifest, written) = once(tree.path(), &archive, &about(Keys::Refuse), None).unwrap();
    let (expected, bytes) = twice(tree.path(), None);
    assert!(manifest == expected);
    assert_eq!(files(&archive), manifest.files().count());
    let len = fs::metadata(&archive).unwrap().len();
    assert_eq!(written.bytes, len);
    assert!(len >= bytes.len() as u64 && len < bytes.len() as u64 + 2048, "{len}, and not {}", bytes.len());
}

#[test]
fn one_reading_gives_the_same_bytes_each_time() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    let pack = |name: &str| {
        let archive = dir.path().join(name);
        once(tree.path(), &archive, &about(Keys::Refuse), None).unwrap();
        fs::read(archive).unwrap()
    };
    assert_eq!(pack("one"), pack("two"));
}

#[test]
fn signatures_stand_in_the_room_that_was_left_for_them() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    let archive = dir.path().join("signed");
    let sign: Sign<'_> = &|manifest| Ok(blake3::hash(manifest).to_hex().to_string());
    let (manifest, _) = once(tree.path(), &archive, &about(Keys::Refuse), Some(sign)).unwrap();
    let reader = Reader::open(Box::new(File::open(&archive).unwrap()), Limits::default()).unwrap();
    let signature = blake3::hash(&manifest.print().unwrap()).to_hex().to_string();
    assert_eq!(reader.signatures, Some(signature.into_bytes()));
    assert_eq!(files(&archive), manifest.files().count());
}

#[test]
fn a_front_that_does_not_fit_is_packed_in_two_readings() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    let archive = dir.path().join("long");
    let mut noise = vec![0; SIGNATURES * 4];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let long: String = noise.iter().map(|byte| char::from(b'0' + byte % 64)).collect();
    let sign: Sign<'_> = &|_| Ok(long.clone());
    once(tree.path(), &archive, &about(Keys::Refuse), Some(sign)).unwrap();
    assert!(fs::read(&archive).unwrap() == twice(tree.path(), Some(long.as_bytes())).1);
}

#[test]
fn all_private_keys_are_told_of_though_it_ends_at_the_first() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    for name in ["first", "second"] {
        fs::write(tree.path().join(name), KEY).unwrap();
    }
    let refused = once(tree.path(), &dir.path().join("refused"), &about(Keys::Refuse), None).unwrap_err();
    let keys = refused.downcast_ref::<PrivateKeys>().unwrap();
    assert_eq!(keys.files, ["/first", "/second"]);
}

#[test]
fn private_keys_that_are_wanted_stand_in_the_manifest() {
    let (tree, dir) = (tree(), tempfile::tempdir().unwrap());
    fs::write(tree.path().join("first"), KEY).unwrap();
    let (manifest, _) = once(tree.path(), &dir.path().join("kept"), &about(Keys::Pack), None).unwrap();
    assert_eq!(manifest.head.audit.private_keys.len(), 1);
    assert!(!manifest.head.audit.clean);
}

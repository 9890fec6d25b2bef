//! What mke2fs makes of a tree, in every form that there is, held against the tree; and what nobody has made but an enemy.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::indirect::TRIPLE;
use super::*;

const FORMS: [&[&str]; 10] = [
    &["-t", "ext2", "-b", "1024", "-I", "128"],
    &["-t", "ext2", "-b", "4096", "-I", "256", "-O", "^filetype,^dir_index"],
    &["-t", "ext3", "-b", "1024", "-I", "256", "-O", "^dir_index"],
    &["-t", "ext3", "-b", "4096", "-I", "128"],
    &["-t", "ext4", "-O", "^extents,^64bit,metadata_csum", "-b", "1024"],
    &["-t", "ext4", "-O", "^metadata_csum", "-b", "2048"],
    &["-t", "ext4", "-O", "inline_data", "-b", "1024", "-I", "256"],
    &["-t", "ext4", "-O", "inline_data,^metadata_csum", "-b", "4096", "-I", "512"],
    &["-t", "ext4", "-O", "inline_data,^extents,^64bit", "-b", "1024", "-I", "256"],
    &["-t", "ext4", "-O", "inline_data,large_dir,metadata_csum_seed", "-b", "4096", "-I", "1024"],
];
/// In blocks of 1 KiB: among the first, and in lists of one level, two and three. In blocks of 4 KiB the last is alone there.
const PLACES: [u64; 7] = [0, 5 << 10, 100 << 10, 1 << 20, 70 << 20, 300 << 20, (5 << 30) - 700];

fn run(name: &str, words: &[&str], disk: &Path) -> i32 {
    let mut command = Command::new(name);
    let ran = command.args(words).arg(disk).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.unwrap().code().unwrap()
}

/// Lengths on both sides of what an inode has room for, names, links and holes.
fn tree(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    for dir in ["none", "few", "some", "many"] {
        std::fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n * 7 + n / 251) as u8 | 1).collect();
    for len in [0, 1, 59, 60, 61, 100, 130, 400, 800, 1024, 5000, 13_000] {
        std::fs::write(tree.join(format!("few-{len}")), &bytes[..len]).unwrap();
    }
    std::fs::set_permissions(tree.join("few-1"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    for len in [1, 59, 60, 61, 100, 150, 500, 1000] {
        symlink("x".repeat(len), tree.join(format!("link-{len}"))).unwrap();
    }
    for (dir, count) in [("few", 2), ("some", 6), ("many", 2500)] {
        for n in 0..count {
            std::fs::write(tree.join(format!("{dir}/name-{n:04}")), "").unwrap();
        }
    }
    let holes = File::create(tree.join("holes")).unwrap();
    for place in PLACES {
        holes.write_all_at(&bytes[..3000], place).unwrap();
    }
    tree
}

fn disk(dir: &Path, tree: &Path, form: &[&str]) -> PathBuf {
    let disk = dir.join("disk");
    File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let words = [&["-q", "-d", tree.to_str().unwrap()][..], form].concat();
    assert_eq!(run("mke2fs", &words, &disk), 0, "{form:?}");
    // Makes indexes where the form has them.
    assert!(run("e2fsck", &["-fyD"], &disk) <= 1, "{form:?}");
    disk
}

fn named(filesystem: &Ext4, dir: &Inode, name: &str) -> Inode {
    let found = filesystem.names(dir).unwrap().into_iter().find(|(found, _)| found == name.as_bytes());
    filesystem.inode(found.unwrap().1).unwrap()
}

fn at_top(filesystem: &Ext4, name: &str) -> Inode {
    named(filesystem, &filesystem.inode(TOP).unwrap(), name)
}

/// Each byte that a file has is there, and what it has no data for is zeros there.
fn assert_same_data(filesystem: &Ext4, inode: &Inode, path: &Path) {
    let file = File::open(path).unwrap();
    assert_eq!(inode.len, file.metadata().unwrap().len(), "{}", path.display());
    let data = filesystem.data(inode).unwrap();
    let mut at = 0;
    for (from, len) in filesystem.pieces(&data, inode.len) {
        let (mut here, mut there) = (vec![0; len as usize], vec![1; len as usize]);
        filesystem.read_at(&data, &mut here, from).unwrap();
        file.read_exact_at(&mut there, from).unwrap();
        assert!(here == there, "{} at {from}", path.display());
        assert_no_data(&file, at, from, path);
        at = from + len;
    }
    assert_no_data(&file, at, inode.len, path);
}

fn assert_no_data(file: &File, mut at: u64, end: u64, path: &Path) {
    use rustix::fs::{SeekFrom, seek};
    while at < end {
        // What the tree's filesystem holds in its larger blocks may be zeros, too.
        let Ok(from) = seek(file, SeekFrom::Data(at)) else { return };
        let till = seek(file, SeekFrom::Hole(from)).unwrap().min(end);
        let mut bytes = vec![1; till.saturating_sub(from) as usize];
        file.read_exact_at(&mut bytes, from).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{} has data at {from}", path.display());
        at = till.max(from + 1);
    }
}

fn assert_same(filesystem: &Ext4, inode: &Inode, path: &Path) {
    let is = std::fs::symlink_metadata(path).unwrap();
    assert_eq!(inode.mode & 0o7777, is.permissions().mode() & 0o7777, "{}", path.display());
    assert_eq!(inode.attributes, [], "{}", path.display());
    if is.is_symlink() {
        let target = inode.target(filesystem).unwrap();
        assert_eq!(target, std::fs::read_link(path).unwrap().as_os_str().as_bytes(), "{}", path.display());
    } else if is.is_file() {
        assert_same_data(filesystem, inode, path);
        if is.len() < 1 << 20 {
            assert!(filesystem.content(inode).unwrap() == std::fs::read(path).unwrap(), "{}", path.display());
        }
    } else {
        let there = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: BTreeSet<Vec<u8>> = there.map(|name| name.as_bytes().to_vec()).collect();
        for (name, number) in filesystem.names(inode).unwrap() {
            if name == b"lost+found" {
                continue;
            }
            assert!(names.remove(&name), "{}", name.escape_ascii());
            let name = path.join(std::ffi::OsStr::from_bytes(&name));
            assert_same(filesystem, &filesystem.inode(number).unwrap(), &name);
        }
        assert_eq!(names, BTreeSet::new(), "{}", path.display());
    }
}

#[test]
fn every_form_of_filesystem_gives_what_the_tree_has_that_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    for form in FORMS {
        let disk = disk(dir.path(), &tree, form);
        let filesystem = Ext4::open(&disk).unwrap();
        println!("{form:?}");
        assert_same(&filesystem, &filesystem.inode(TOP).unwrap(), &tree);
        let holes = at_top(&filesystem, "holes");
        if !holes.has_extents {
            assert_ne!(Fields(&holes.block).u32(TRIPLE), 0, "{form:?}");
        }
        if form.iter().any(|word| word.contains("inline_data")) {
            for name in ["few-61", "link-61", "few", "few-60", "few-1", "none"] {
                assert!(at_top(&filesystem, name).inline.is_some(), "{form:?}: {name}");
            }
        }
    }
}

#[test]
fn a_filesystem_of_the_first_revision_is_read_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    // A file of more than 2 GiB is not for it.
    std::fs::remove_file(tree.join("holes")).unwrap();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(run("mke2fs", &["-q", "-t", "ext2", "-r", "0", "-d", tree.to_str().unwrap()], &disk), 0);
    let mut revision = [9];
    File::open(&disk).unwrap().read_exact_at(&mut revision, 1024 + 0x4c).unwrap();
    assert_eq!(revision, [0]);
    let filesystem = Ext4::open(&disk).unwrap();
    assert_same(&filesystem, &filesystem.inode(TOP).unwrap(), &tree);
}

#[test]
fn names_that_an_inode_had_no_room_left_for_in_its_first_part_are_in_its_second() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("names/first")).unwrap();
    let disk = disk(dir.path(), &tree, &["-t", "ext4", "-O", "inline_data", "-I", "256"]);
    // The kernel fills it so; libext2fs makes a block of it at once.
    let number = at_top(&Ext4::open(&disk).unwrap(), "names").number;
    let entry = [&number.to_le_bytes()[..], &[40, 0, 6, 2], b"second", &[0; 26]].concat();
    let value = dir.path().join("value");
    std::fs::write(&value, entry).unwrap();
    let set = format!("ea_set -f {} names system.data", value.display());
    assert_eq!(run("debugfs", &["-w", "-R", &set], &disk), 0);
    let filesystem = Ext4::open(&disk).unwrap();
    let mut names = filesystem.names(&at_top(&filesystem, "names")).unwrap();
    names.sort();
    let names: Vec<_> = names.iter().map(|(name, _)| name.escape_ascii().to_string()).collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn an_inode_that_says_that_its_data_is_in_itself_and_has_none_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("large"), [7; 5000]).unwrap();
    std::fs::write(tree.join("small"), [7; 50]).unwrap();
    let form = ["-t", "ext4", "-O", "inline_data,^metadata_csum"];
    for (name, flags) in [("large", "0x10000000"), ("small", "0x10080000"), ("small", "0")] {
        let disk = disk(dir.path(), &tree, &form);
        assert_eq!(run("debugfs", &["-w", "-R", &format!("sif {name} flags {flags}")], &disk), 0);
        let filesystem = Ext4::open(&disk).unwrap();
        let top = filesystem.inode(TOP).unwrap();
        let mut names = filesystem.names(&top).unwrap().into_iter();
        let (_, number) = names.find(|(found, _)| found == name.as_bytes()).unwrap();
        let error = format!("{:#}", filesystem.inode(number).unwrap_err());
        assert!(error.contains("what it has of its data in itself is damaged"), "{name} {flags}: {error}");
    }
}

/// A file whose lists have three levels, what stands where they begin, and the filesystem's block length.
fn with_lists(dir: &Path) -> (PathBuf, [u32; 3], u64) {
    let disk = disk(dir, &tree(dir), FORMS[0]);
    let filesystem = Ext4::open(&disk).unwrap();
    let holes = at_top(&filesystem, "holes");
    let at = |back: usize| Fields(&holes.block).u32(TRIPLE - back * 4);
    (disk, [at(2), at(1), at(0)], filesystem.block)
}

fn refused(disk: &Path) -> String {
    let filesystem = Ext4::open(disk).unwrap();
    format!("{:#}", filesystem.data(&at_top(&filesystem, "holes")).unwrap_err())
}

#[test]
fn lists_of_blocks_that_go_in_circles_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, [single, double, triple], block) = with_lists(dir.path());
    let whole = std::fs::read(&disk).unwrap();
    for (node, below) in [(double, double), (triple, double), (triple, triple), (double, single)] {
        let mut bytes = whole.clone();
        let at = (u64::from(node) * block) as usize;
        bytes[at..at + block as usize]
            .chunks_mut(4)
            .for_each(|entry| entry.copy_from_slice(&below.to_le_bytes()));
        std::fs::write(&disk, bytes).unwrap();
        assert_eq!(refused(&disk), "its lists of blocks go in circles", "{node} {below}");
    }
}

#[test]
fn a_list_that_names_blocks_outside_the_filesystem_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, lists, block) = with_lists(dir.path());
    let whole = std::fs::read(&disk).unwrap();
    for node in lists {
        let mut bytes = whole.clone();
        let at = (u64::from(node) * block) as usize;
        bytes[at..at + 4].copy_from_slice(&65_536u32.to_le_bytes());
        std::fs::write(&disk, bytes).unwrap();
        assert_eq!(refused(&disk), "block 65536 is not in the filesystem", "{node}");
    }
}

#[test]
fn a_file_that_claims_to_be_as_long_as_it_likes_has_the_blocks_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), &tree(dir.path()), FORMS[3]);
    let claim = |len: u64| run("debugfs", &["-w", "-R", &format!("sif holes size {len}")], &disk);
    let extents = || {
        let filesystem = Ext4::open(&disk).unwrap();
        filesystem.extents(&at_top(&filesystem, "holes"))
    };
    let before = extents().unwrap();
    claim(4 << 40);
    assert_eq!(extents().unwrap(), before);
    claim(5 << 40);
    assert_eq!(refused(&disk), "it is longer than its lists of blocks can be");
}

/// One small filesystem of each form, with directories, links, and a file whose list has two levels.
fn small(form: usize) -> Vec<u8> {
    const FORMS: [&[&str]; 3] = [
        // With checksums most of it would be refused for them.
        &["-t", "ext4", "-O", "^has_journal,^metadata_csum"],
        &["-t", "ext2", "-I", "128"],
        &["-t", "ext4", "-O", "inline_data,^has_journal,^metadata_csum"],
    ];
    static MADE: [std::sync::OnceLock<Vec<u8>>; 3] = [const { std::sync::OnceLock::new() }; 3];
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/small"), [b'x'; 90]).unwrap();
        std::fs::write(tree.join("large"), [b'x'; 300 << 10]).unwrap();
        symlink("x".repeat(100), tree.join("link")).unwrap();
        let words = [&["-q", "-b", "1024", "-d", tree.to_str().unwrap()][..], FORMS[form]].concat();
        assert_eq!(run("mke2fs", &words, &disk), 0);
        std::fs::read(&disk).unwrap()
    };
    MADE[form].get_or_init(make).clone()
}

proptest! {
    #[test]
    fn any_block_is_read_or_refused(block in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = names_in(&block, &mut |_| ControlFlow::Continue(()));
    }

    /// Whatever a filesystem's bytes are, looking at all of it ends.
    #[test]
    fn any_filesystem_is_read_or_refused(
        form in 0usize..3,
        changes in proptest::collection::vec((0usize..400_000, any::<u8>()), 0..60),
        // Where its superblock, groups, inodes and first directories are.
        dense in proptest::collection::vec((0usize..60_000, any::<u8>()), 0..60),
    ) {
        let mut disk = small(form);
        for (at, byte) in changes.into_iter().chain(dense) {
            let len = disk.len();
            disk[at % len] = byte;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, disk).unwrap();
        if let Ok(found) = Ext4::open(&path) {
            for number in 0..40 {
                if let Ok(inode) = found.inode(number) {
                    let _ = (found.names(&inode), inode.target(&found), found.data(&inode));
                    if inode.len < 1 << 20 {
                        let _ = found.content(&inode);
                    }
                }
            }
        }
    }
}

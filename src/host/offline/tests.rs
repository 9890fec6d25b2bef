use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::host::Live;
use crate::host::filesystem::Filesystems;
use crate::host::root::{Change, Entry, FileMode, Root};

/// A filesystem with what is awkward in it: links as leaves and as directories, a file with attributes and owner, a deep
/// directory. Making it takes no root; owners and attributes are set by debugfs.
fn disk(dir: &Path, name: &str) -> PathBuf {
    let tree = dir.join(format!("{name}.tree"));
    std::fs::create_dir_all(tree.join("etc/deep/er")).unwrap();
    std::fs::create_dir_all(tree.join("real")).unwrap();
    std::fs::write(tree.join("etc/owned"), "old").unwrap();
    std::fs::set_permissions(tree.join("etc/owned"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::write(tree.join("etc/deep/er/file"), "x").unwrap();
    symlink("/nowhere/at/all", tree.join("etc/leaf")).unwrap();
    symlink("../real", tree.join("etc/linked")).unwrap();
    let disk = dir.join(name);
    std::fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let make =
        Program::new("mke2fs").args(["-q", "-t", "ext4", "-O", "metadata_csum_seed", "-U", UUID, "-d"]);
    Live.run(&make.arg(tree.as_os_str()).arg(disk.as_os_str())).unwrap();
    let set =
        "sif /etc/owned uid 70000\nsif /etc/owned gid 8\nea_set /etc/owned user.note hello\nsif / uid 0\n";
    Live.run(&Program::new("debugfs").args(["-w", "-f", "-"]).arg(disk.as_os_str()).input(set)).unwrap();
    disk
}

const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn edits(tree: &dyn Tree) -> Result<()> {
    let write = |path: &str, content: &str, mode| tree.write(Path::new(path), content.as_bytes(), mode);
    write("/etc/owned", "new", FileMode::KeepOr(0o644))?;
    write("/etc/leaf", "a file now", FileMode::Exactly(0o600))?;
    write("/etc/linked/inside", "through a linked directory", FileMode::KeepOr(0o644))?;
    write("/new/dir/file", "", FileMode::KeepOr(0o755))?;
    tree.link(Path::new("/etc/localtime"), Path::new("/usr/share/zoneinfo/UTC"))?;
    tree.remove_tree(Path::new("/etc/deep"))?;
    tree.make_dir(Path::new("/root/.ssh"), 0o700)?;
    tree.own(Path::new("/root/.ssh"), 1000, 1001, 0o710)?;
    tree.own(Path::new("/real"), 70000, 3, 0o1777)?;
    Ok(())
}

/// Every path with type, mode, owner, content or target; times and numbers of inodes differ from engine to engine.
fn all(tree: &dyn Tree, at: &Path, found: &mut Vec<String>) {
    for name in tree.list(at).unwrap() {
        let path = at.join(name);
        if path == Path::new("/lost+found") {
            continue;
        }
        let entry = tree.entry(&path).unwrap().unwrap();
        let content = match &entry {
            Entry::File { .. } => String::from_utf8(tree.read(&path).unwrap().unwrap()).unwrap(),
            _ => String::new(),
        };
        let owner = tree.owner(&path).unwrap().unwrap();
        found.push(format!("{} {owner:?} {entry:?} {content}", path.display()));
        if entry == Entry::Dir {
            all(tree, &path, found);
        }
    }
}

fn listing(disk: &Path) -> Vec<String> {
    let mut found = Vec::new();
    look(disk, &mut |tree, _| {
        all(tree, Path::new("/"), &mut found);
        Ok(())
    })
    .unwrap();
    found
}

fn debugfs(disk: &Path, command: &str) -> String {
    Live.run(&Program::new("debugfs").arg("-R").arg(command).arg(disk.as_os_str())).unwrap().text()
}

fn is_sound(disk: &Path) -> bool {
    Live.run_any(&Program::new("e2fsck").arg("-fn").arg(disk.as_os_str())).unwrap().status == 0
}

#[test]
fn what_was_asked_for_is_there_and_the_second_time_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "disk");
    let shape = Shape { uuid: Some([7; 16]), grow: false };
    edit(&Live, &disk, shape, &mut |tree, uuid| {
        assert_eq!(uuid_text(&uuid), UUID);
        edits(tree)
    })
    .unwrap();
    assert!(is_sound(&disk));
    assert_eq!(superblock::expect(&disk, 0).unwrap().uuid, [7; 16]);
    assert_eq!(debugfs(&disk, "cat /etc/owned"), "new");
    assert!(debugfs(&disk, "stat /etc/owned").contains("User: 70000   Group:     8"));
    assert!(debugfs(&disk, "ea_get /etc/owned user.note").contains("hello"));
    assert_eq!(debugfs(&disk, "cat /real/inside"), "through a linked directory");
    let before = (std::fs::read(&disk).unwrap(), std::fs::metadata(&disk).unwrap().mtime_nsec());
    edit(&Live, &disk, shape, &mut |tree, _| edits(tree)).unwrap();
    assert!(before == (std::fs::read(&disk).unwrap(), std::fs::metadata(&disk).unwrap().mtime_nsec()));
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn both_engines_leave_the_same_files() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: the other engine needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mounted, offline) = (disk(dir.path(), "mounted"), disk(dir.path(), "offline"));
    Live.edit_disk(&mounted, Shape::default(), &mut |root: &Root, _| edits(root)).unwrap();
    edit(&Live, &offline, Shape::default(), &mut |tree, _| edits(tree)).unwrap();
    assert_eq!(listing(&mounted), listing(&offline));
    for command in ["ea_get /etc/owned user.note", "cat /etc/owned"] {
        assert_eq!(debugfs(&mounted, command), debugfs(&offline, command));
    }
    let owner = |disk: &Path| {
        let stat = debugfs(disk, "stat /etc/owned");
        stat.lines().find(|line| line.contains("User:")).unwrap().split("Size").next().unwrap().to_owned()
    };
    assert_eq!(owner(&mounted), owner(&offline));
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_filesystem_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "disk");
    let before = listing(&disk);
    let error = edit(&Live, &disk, Shape::default(), &mut |tree, _| {
        edits(tree)?;
        let large = vec![7; 12 << 20];
        for name in ["/a", "/b"] {
            assert_eq!(tree.write(Path::new(name), &large, FileMode::KeepOr(0o644))?, Change::Changed);
        }
        Ok(())
    });
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("is not as asked for"), "{error}");
    assert_eq!(listing(&disk), before);
    assert!(is_sound(&disk));
}

#[test]
fn a_run_that_was_killed_half_way_is_undone_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "disk");
    let before = listing(&disk);
    let undo = undo_file(&disk);
    let half = "rm /etc/owned\n";
    let debugfs = Program::new("debugfs").args(["-w", "-z"]).arg(undo.as_os_str());
    Live.run(&debugfs.args(["-f", "-"]).arg(disk.as_os_str()).input(half)).unwrap();
    assert_ne!(listing(&disk), before);
    edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(listing(&disk), before);
    assert!(!undo.exists());
}

#[test]
fn a_damaged_filesystem_is_an_error_or_is_read_and_never_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(disk(dir.path(), "disk")).unwrap();
    let damaged = dir.path().join("damaged");
    // Superblock, group descriptors, inodes and directories are in the first part; every 97th byte of it in turn.
    for at in (1024..400 << 10).step_by(9973) {
        let mut bytes = whole.clone();
        for byte in &mut bytes[at..at + 64] {
            *byte ^= 0x5a;
        }
        std::fs::write(&damaged, &bytes).unwrap();
        let _ = look(&damaged, &mut |tree, _| {
            let _ = (
                tree.list(Path::new("/etc")),
                tree.read(Path::new("/etc/owned")),
                tree.entry(Path::new("/etc/linked/x")),
            );
            Ok(())
        });
    }
}

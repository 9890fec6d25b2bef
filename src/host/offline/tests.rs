use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::host::Live;
use crate::host::filesystem::Filesystems;
use crate::host::root::{Change, Entry, FileMode, Root};

/// What mke2fs is told, for filesystems of all ages.
const FORMS: [&[&str]; 6] = [
    &["-t", "ext4", "-O", "metadata_csum_seed"],
    &["-t", "ext3", "-I", "128"],
    &["-t", "ext2", "-I", "128", "-b", "1024"],
    &["-t", "ext2", "-r", "0"],
    &["-t", "ext4", "-O", "inline_data", "-I", "256"],
    &["-t", "ext4", "-O", "inline_data,metadata_csum_seed", "-I", "512", "-b", "1024"],
];

fn disk(dir: &Path, name: &str) -> PathBuf {
    disk_of(FORMS[0], dir, name)
}

/// A filesystem with what is awkward in it: links as leaves and as directories, a file with attributes and owner, a deep
/// directory. Making it takes no root; owners and attributes are set by debugfs.
fn disk_of(form: &[&str], dir: &Path, name: &str) -> PathBuf {
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
    let make = Program::new("mke2fs").args(form.iter().copied()).args(["-q", "-U", UUID, "-d"]);
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
    // On both sides of what fits into an inode, as data and as names.
    for n in 0..12 {
        write(&format!("/real/{n}-of-several"), &"x".repeat(n * 20), FileMode::KeepOr(0o644))?;
        write(&format!("/few-{}/{n}", n / 3), &"y".repeat(59 + n % 3), FileMode::KeepOr(0o644))?;
        tree.link(Path::new(&format!("/real/link-{n}")), Path::new(&"z".repeat(n * 20 + 1)))?;
    }
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

/// What debugfs shows of a file; it shows all the room of one that is in its inode.
fn content(disk: &Path, path: &str) -> String {
    debugfs(disk, &format!("cat {path}")).trim_end_matches('\0').to_owned()
}

#[test]
fn what_was_asked_for_is_there_and_the_second_time_nothing_is_written() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk_of(form, dir.path(), "disk");
        let note = debugfs(&disk, "ea_get /etc/owned user.note");
        // The first revision has no attributes until the kernel says so.
        assert!(note.contains("hello") || form.contains(&"-r"), "{form:?}");
        let shape = Shape { uuid: Some([7; 16]), grow: false };
        edit(&Live, &disk, shape, &mut |tree, uuid| {
            assert_eq!(uuid_text(&uuid), UUID);
            edits(tree)
        })
        .unwrap_or_else(|error| panic!("{form:?}: {error:#}"));
        assert!(is_sound(&disk), "{form:?}");
        assert_eq!(superblock::expect(&disk, 0).unwrap().uuid, [7; 16]);
        assert_eq!(content(&disk, "/etc/owned"), "new", "{form:?}");
        assert!(debugfs(&disk, "stat /etc/owned").contains("User: 70000   Group:     8"), "{form:?}");
        assert_eq!(debugfs(&disk, "ea_get /etc/owned user.note"), note, "{form:?}");
        assert_eq!(content(&disk, "/real/inside"), "through a linked directory", "{form:?}");
        let before = (std::fs::read(&disk).unwrap(), std::fs::metadata(&disk).unwrap().mtime_nsec());
        edit(&Live, &disk, shape, &mut |tree, _| edits(tree)).unwrap();
        let after = (std::fs::read(&disk).unwrap(), std::fs::metadata(&disk).unwrap().mtime_nsec());
        assert!(before == after, "{form:?}");
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[test]
fn both_engines_leave_the_same_files() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: the other engine needs root");
        return;
    }
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let (mounted, offline) = (disk_of(form, dir.path(), "mounted"), disk_of(form, dir.path(), "offline"));
        Live.edit_disk(&mounted, Shape::default(), &mut |root: &Root, _| edits(root)).unwrap();
        edit(&Live, &offline, Shape::default(), &mut |tree, _| edits(tree)).unwrap();
        assert_eq!(listing(&mounted), listing(&offline), "{form:?}");
        assert_eq!(through_the_kernel(&mounted), through_the_kernel(&offline), "{form:?}");
        assert!(is_sound(&mounted) && is_sound(&offline), "{form:?}");
        let attribute = |disk: &Path| debugfs(disk, "ea_get /etc/owned user.note");
        assert_eq!(attribute(&mounted), attribute(&offline), "{form:?}");
        assert_eq!(content(&mounted, "/etc/owned"), content(&offline, "/etc/owned"), "{form:?}");
        let owner = |disk: &Path| {
            let stat = debugfs(disk, "stat /etc/owned");
            let line = stat.lines().find(|line| line.contains("User:")).unwrap();
            line.split("Size").next().unwrap().to_owned()
        };
        assert_eq!(owner(&mounted), owner(&offline), "{form:?}");
    }
}

/// What the kernel has to say of either.
fn through_the_kernel(disk: &Path) -> Vec<String> {
    let mut found = Vec::new();
    Live.edit_disk(disk, Shape::default(), &mut |root: &Root, _| {
        all(root, Path::new("/"), &mut found);
        Ok(())
    })
    .unwrap();
    found
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
    let undo = undo::file(&Volume::whole(&disk)).unwrap();
    let half = "rm /etc/owned\n";
    let debugfs = Program::new("debugfs").args(["-w", "-z"]).arg(undo.as_os_str());
    Live.run(&debugfs.args(["-f", "-"]).arg(disk.as_os_str()).input(half)).unwrap();
    assert_ne!(listing(&disk), before);
    let copy = dir.path().join("copy");
    std::fs::copy(&disk, &copy).unwrap();
    let undo_of_copy = undo::file(&Volume::whole(&copy)).unwrap();
    std::fs::copy(&undo, &undo_of_copy).unwrap();
    edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(listing(&disk), before);
    assert!(!undo.exists());
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: the other engine needs root");
    }
    Live.edit_disk(&copy, Shape::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(listing(&copy), before);
    assert!(!undo_of_copy.exists());
}

#[test]
fn what_a_killed_run_left_is_not_undone_where_the_filesystem_was_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "disk");
    let undo = undo::file(&Volume::whole(&disk)).unwrap();
    let debugfs = Program::new("debugfs").args(["-w", "-z"]).arg(undo.as_os_str());
    Live.run(&debugfs.args(["-f", "-"]).arg(disk.as_os_str()).input("rm /etc/owned\n")).unwrap();
    // A guest ran on it, an hour later by its clock.
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let open = std::fs::OpenOptions::new().write(true).open(&undo).unwrap();
    open.set_modified(an_hour_ago).unwrap();
    let since = listing(&disk);
    let error = edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).unwrap_err();
    assert!(format!("{error:#}").contains("it was written since\nhint: 'e2fsck -f'"), "{error:#}");
    assert_eq!((listing(&disk), undo.exists()), (since, true));

    // Mounted a second later is enough, whatever was written.
    let now = std::time::SystemTime::now();
    open.set_modified(now).unwrap();
    let seconds = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32;
    let mounted = |at: u32| {
        let debugfs = Program::new("debugfs").args(["-w", "-R", &format!("ssv mtime @{at}")]);
        Live.run(&debugfs.arg(disk.as_os_str())).unwrap();
    };
    mounted(seconds + 1);
    assert!(edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).is_err());
    assert!(undo.exists());
    mounted(seconds);
    edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).unwrap();
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

#[test]
fn a_journal_that_was_not_replayed_is_replayed_first_whatever_form_the_filesystem_has() {
    for form in [FORMS[0], FORMS[1], FORMS[4]] {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk_of(form, dir.path(), "disk");
        let (block, script) = (dir.path().join("block"), dir.path().join("script"));
        std::fs::write(&block, &std::fs::read(&disk).unwrap()[500 << 10..501 << 10]).unwrap();
        let commands = format!("journal_open\njournal_write -b 500 {}\njournal_close\n", block.display());
        std::fs::write(&script, commands).unwrap();
        let debugfs = Program::new("debugfs").arg("-w").arg("-f").arg(script.as_os_str());
        Live.run(&debugfs.arg(disk.as_os_str())).unwrap();
        assert!(superblock::expect(&disk, 0).unwrap().needs_recovery, "{form:?}");
        // Nobody here reads journals of the old kind, which debugfs writes.
        let error = format!("{:#}", look(&disk, &mut |_, _| Ok(())).unwrap_err());
        assert!(error.contains("in its journal only") && error.contains("hint: 'e2fsck -E"), "{error}");
        edit(&Live, &disk, Shape::default(), &mut |tree, _| edits(tree)).unwrap();
        assert!(is_sound(&disk) && !superblock::expect(&disk, 0).unwrap().needs_recovery, "{form:?}");
        assert_eq!(content(&disk, "/etc/owned"), "new", "{form:?}");
    }
}

#[test]
fn a_directory_with_more_names_than_are_kept_is_edited_all_the_same() {
    const COUNT: usize = 20_050;
    let dir = tempfile::tempdir().unwrap();
    let many = dir.path().join("tree/many");
    std::fs::create_dir_all(&many).unwrap();
    for n in 0..COUNT {
        std::fs::write(many.join(format!("name-{n}")), "").unwrap();
    }
    // One that nobody but our own reader reads.
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    let make = Program::new("mke2fs").args(FORMS[4].iter().copied()).args(["-q", "-N", "30000", "-d"]);
    Live.run(&make.arg(dir.path().join("tree").as_os_str()).arg(disk.as_os_str())).unwrap();
    let last = format!("/many/name-{}", COUNT - 1);
    edit(&Live, &disk, Shape::default(), &mut |tree, _| {
        let write = |path: &str| tree.write(Path::new(path), b"new", FileMode::KeepOr(0o644));
        assert_eq!((write("/many/new")?, write(&last)?), (Change::Changed, Change::Changed));
        assert_eq!(tree.remove(Path::new("/many/name-7"))?, Change::Changed);
        assert_eq!(tree.remove(Path::new("/many/no-name"))?, Change::Same);
        Ok(())
    })
    .unwrap();
    assert!(is_sound(&disk));
    look(&disk, &mut |tree, _| {
        assert_eq!(tree.list(Path::new("/many")).unwrap().len(), COUNT);
        assert_eq!(tree.read(Path::new(&last)).unwrap().unwrap(), b"new");
        assert_eq!(tree.entry(Path::new("/many/name-7")).unwrap(), None);
        Ok(())
    })
    .unwrap();
}

#[test]
fn attributes_in_a_block_that_files_share_go_with_what_is_removed_and_stay_with_the_others() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: only the kernel makes files share a block of attributes, and that needs root");
        return;
    }
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk_of(form, dir.path(), "disk");
        let long = "v".repeat(700);
        Live.edit_disk(&disk, Shape::default(), &mut |root: &Root, _| {
            let top = format!("/proc/{}/fd/{}", std::process::id(), root.as_fd().as_raw_fd());
            for name in ["a", "b", "c", "deep"] {
                let path = Path::new(&top).join("etc").join(name);
                if name != "deep" {
                    std::fs::write(&path, "old").unwrap();
                }
                for (name, value) in [("user.a", &long), ("user.b", &"w".to_owned())] {
                    let flags = rustix::fs::XattrFlags::empty();
                    rustix::fs::setxattr(&path, name, value.as_bytes(), flags).unwrap();
                }
            }
            Ok(())
        })
        .unwrap();
        let shared = debugfs(&disk, "stat /etc/b");
        let shared = shared.lines().find(|line| line.contains("File ACL:")).unwrap().to_owned();
        assert!(debugfs(&disk, "stat /etc/c").contains(&shared), "{form:?}");
        edit(&Live, &disk, Shape::default(), &mut |tree, _| {
            tree.write(Path::new("/etc/a"), b"new", FileMode::KeepOr(0o644))?;
            tree.remove(Path::new("/etc/b"))?;
            tree.remove_tree(Path::new("/etc/deep"))?;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{form:?}: {error:#}"));
        assert!(is_sound(&disk), "{form:?}");
        for path in ["/etc/a", "/etc/c"] {
            let told = debugfs(&disk, &format!("ea_get {path} user.a"));
            assert!(told.contains(&long), "{form:?} {path}: {told}");
            assert!(debugfs(&disk, &format!("ea_get {path} user.b")).contains("\"w\""), "{form:?} {path}");
        }
        assert_eq!(content(&disk, "/etc/a"), "new", "{form:?}");
    }
}

#[test]
fn a_run_that_was_killed_when_e2fsck_had_mended_what_debugfs_left_is_undone_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk_of(FORMS[1], dir.path(), "disk");
    let before = listing(&disk);
    let undo = undo::file(&Volume::whole(&disk)).unwrap();
    let debugfs = Program::new("debugfs").args(["-w", "-z"]).arg(undo.as_os_str());
    Live.run(&debugfs.args(["-f", "-"]).arg(disk.as_os_str()).input("rm /etc/owned\n")).unwrap();
    assert!(!is_sound(&disk));
    check(&Live, &disk, &undo, "-fy").unwrap();
    assert!(is_sound(&disk) && listing(&disk) != before);
    edit(&Live, &disk, Shape::default(), &mut |_, _| Ok(())).unwrap();
    assert_eq!((listing(&disk), undo.exists()), (before, false));
    assert!(is_sound(&disk));
}

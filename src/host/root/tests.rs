//! Traps in a guest's filesystem, each in turn.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn tree() -> (tempfile::TempDir, Root, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let inside = top.path().join("root");
    std::fs::create_dir_all(inside.join("etc")).unwrap();
    std::fs::write(top.path().join("outside"), "host").unwrap();
    let root = Root::open(&inside).unwrap();
    (top, root, inside)
}

#[test]
fn an_absolute_link_is_followed_inside_the_root_and_never_out_of_it() {
    let (top, root, dir) = tree();
    symlink(top.path().join("outside"), dir.join("etc/a")).unwrap();
    symlink("../../../../../../../../etc/passwd", dir.join("etc/b")).unwrap();
    std::fs::write(dir.join("etc/real"), "guest").unwrap();
    symlink("/etc/real", dir.join("etc/c")).unwrap();
    assert_eq!(root.read(Path::new("/etc/a")).unwrap(), None);
    assert_eq!(root.read(Path::new("/etc/b")).unwrap(), None);
    assert_eq!(root.read(Path::new("/etc/c")).unwrap().as_deref(), Some(&b"guest"[..]));
}

#[test]
fn writing_replaces_a_link_instead_of_writing_through_it() {
    let (top, root, dir) = tree();
    symlink(top.path().join("outside"), dir.join("etc/hostname")).unwrap();
    root.write(Path::new("/etc/hostname"), b"ce\n", FileMode::KeepOr(0o644)).unwrap();
    assert_eq!(std::fs::read_to_string(top.path().join("outside")).unwrap(), "host");
    assert_eq!(std::fs::read_to_string(dir.join("etc/hostname")).unwrap(), "ce\n");
    assert!(!dir.join("etc/hostname").is_symlink());
}

#[test]
fn a_linked_directory_leads_nowhere_but_into_the_root() {
    let (top, root, dir) = tree();
    std::fs::create_dir(top.path().join("hostdir")).unwrap();
    symlink(top.path().join("hostdir"), dir.join("etc/ssh")).unwrap();
    let written = root.write(Path::new("/etc/ssh/key"), b"secret", FileMode::Exactly(0o600));
    assert!(written.is_err());
    assert!(!top.path().join("hostdir/key").exists());
}

#[test]
fn a_fifo_or_device_is_refused_without_waiting() {
    let (_top, root, dir) = tree();
    nix::unistd::mkfifo(&dir.join("etc/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = format!("{:#}", root.read(Path::new("/etc/fifo")).unwrap_err());
    assert!(error.ends_with("it is not a regular file"), "{error}");
    assert_eq!(root.entry(Path::new("etc/fifo")).unwrap(), Some(Entry::Special));
    root.write(Path::new("/etc/fifo"), b"x", FileMode::KeepOr(0o644)).unwrap();
    assert_eq!(std::fs::read(dir.join("etc/fifo")).unwrap(), b"x");
}

#[test]
fn a_huge_file_is_refused() {
    let (_top, root, dir) = tree();
    let file = std::fs::File::create(dir.join("etc/huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(root.read(Path::new("/etc/huge")).is_err());
    root.write(Path::new("/etc/huge"), b"small", FileMode::KeepOr(0o644)).unwrap();
    assert_eq!(std::fs::read(dir.join("etc/huge")).unwrap(), b"small");
}

#[test]
fn writing_twice_changes_nothing_the_second_time_not_even_times() {
    let (_top, root, dir) = tree();
    let path = Path::new("/etc/new/deep/file");
    assert_eq!(root.write(path, b"x", FileMode::Exactly(0o640)).unwrap(), Change::Changed);
    root.set_times(path, 1_000_000).unwrap();
    assert_eq!(root.write(path, b"x", FileMode::Exactly(0o640)).unwrap(), Change::Same);
    let meta = std::fs::metadata(dir.join("etc/new/deep/file")).unwrap();
    assert_eq!((meta.mtime(), meta.mode() & 0o7777), (1_000_000, 0o640));
    assert_eq!(root.write(path, b"x", FileMode::Exactly(0o600)).unwrap(), Change::Changed);
}

#[test]
fn a_replaced_file_hands_on_its_mode_and_attributes() {
    let (_top, root, dir) = tree();
    let file = dir.join("etc/kept");
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
    let empty = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&file, "user.note", b"kept", empty).is_err() {
        eprintln!("skipped: no user attributes on this filesystem");
        return;
    }
    root.write(Path::new("/etc/kept"), b"new", FileMode::KeepOr(0o600)).unwrap();
    let mut value = [0u8; 16];
    let size = rustix::fs::getxattr(&file, "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..size], b"kept");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o4711);
}

#[test]
fn a_directory_in_the_way_is_refused() {
    let (_top, root, dir) = tree();
    std::fs::create_dir(dir.join("etc/hostname")).unwrap();
    assert!(root.write(Path::new("/etc/hostname"), b"x", FileMode::KeepOr(0o644)).is_err());
    assert!(root.link(Path::new("/etc/hostname"), Path::new("x")).is_err());
    assert!(root.remove(Path::new("/etc/hostname")).is_err());
}

#[test]
fn a_link_to_itself_is_an_error_and_not_a_loop() {
    let (_top, root, dir) = tree();
    symlink("loop", dir.join("etc/loop")).unwrap();
    assert!(root.read(Path::new("/etc/loop")).is_err());
    assert_eq!(root.write(Path::new("/etc/loop"), b"x", FileMode::KeepOr(0o644)).unwrap(), Change::Changed);
}

#[test]
fn a_directory_goes_with_all_that_is_in_it_and_what_links_lead_to_stays() {
    let (top, root, dir) = tree();
    let outside = top.path().join("hostdir");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "host").unwrap();
    std::fs::create_dir_all(dir.join("var/spool/deep")).unwrap();
    symlink(&outside, dir.join("var/spool/deep/a")).unwrap();
    symlink("..", dir.join("var/spool/deep/loop")).unwrap();
    symlink("/etc", dir.join("var/link")).unwrap();
    std::fs::write(dir.join("var/spool/deep/\u{fc}\nline"), "x").unwrap();
    nix::unistd::mkfifo(&dir.join("var/spool/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(root.remove_tree(Path::new("/var/spool")).unwrap(), Change::Changed);
    assert_eq!(root.remove_tree(Path::new("/var/spool")).unwrap(), Change::Same);
    assert_eq!(root.clear(Path::new("/var/link")).unwrap(), Change::Same);
    assert_eq!(root.remove_tree(Path::new("/var/link")).unwrap(), Change::Changed);
    assert!(!dir.join("var/spool").exists() && dir.join("etc").exists());
    assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "host");
}

#[test]
fn a_cleared_directory_stays_itself() {
    let (_top, root, dir) = tree();
    let cache = dir.join("cache");
    std::fs::create_dir_all(cache.join("a/b")).unwrap();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o2750)).unwrap();
    let before = std::fs::metadata(&cache).unwrap().ino();
    assert_eq!(root.clear(Path::new("/cache")).unwrap(), Change::Changed);
    assert_eq!(root.clear(Path::new("/cache")).unwrap(), Change::Same);
    let after = std::fs::metadata(&cache).unwrap();
    assert_eq!((after.ino(), after.mode() & 0o7777), (before, 0o2750));
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn directories_nested_by_the_thousand_are_removed() {
    let (_top, root, dir) = tree();
    let mut at = rustix::fs::open(&dir, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..600 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        std::fs::write(format!("/proc/self/fd/{}/file", at.as_raw_fd()), "x").unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    assert_eq!(root.remove_tree(Path::new("/d")).unwrap(), Change::Changed);
    assert!(!dir.join("d").exists());
}

#[test]
fn what_is_marked_immutable_is_named_with_the_way_to_change_that() {
    let (_top, root, dir) = tree();
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("a/b/fixed"), "x").unwrap();
    let file = std::fs::File::open(dir.join("a/b/fixed")).unwrap();
    let before = rustix::fs::ioctl_getflags(&file).unwrap_or(rustix::fs::IFlags::empty());
    if rustix::fs::ioctl_setflags(&file, before | rustix::fs::IFlags::IMMUTABLE).is_err() {
        return eprintln!("skipped: files cannot be marked immutable here");
    }
    let error = format!("{:#}", root.remove_tree(Path::new("/a")).unwrap_err());
    let alone = format!("{:#}", root.remove(Path::new("/a/b/fixed")).unwrap_err());
    rustix::fs::ioctl_setflags(&file, before).unwrap();
    let why = "'fixed' is marked immutable or append-only; hint: chattr -i -a takes the mark away";
    assert!(error.ends_with(&format!("emptying './b': {why}")), "{error}");
    assert!(alone.ends_with(why), "{alone}");
}

#[test]
fn names_are_given_one_by_one_until_there_are_enough() {
    let (_top, root, dir) = tree();
    for name in 0..50 {
        std::fs::write(dir.join(format!("etc/{name}")), "").unwrap();
    }
    let mut seen = 0;
    root.names(Path::new("/etc"), &mut |_, kind| {
        assert_eq!(kind, Kind::File);
        seen += 1;
        seen < 7
    })
    .unwrap();
    assert_eq!(seen, 7);
}

//! Filesystems that were made to lead an audit astray.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, Instant};

use super::{audited, lines, old, put};

#[test]
fn links_loops_and_special_files_are_passed_by() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(outside.path(), "host", "ce01.old.org");
    let at = |path: &str| dir.path().join(path);
    put(dir.path(), "etc/real", "x");
    symlink(outside.path(), at("out")).unwrap();
    symlink("..", at("etc/up")).unwrap();
    symlink("loop", at("etc/loop")).unwrap();
    symlink("/dev/zero", at("etc/zero")).unwrap();
    nix::unistd::mkfifo(&at("etc/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("etc/socket")).unwrap();
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if mknod(&at("etc/device"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).is_err() {
        eprintln!("skipped: the device, which only root can make");
    }
    let report = audited(dir.path(), &old());
    assert_eq!((lines(&report), report.looked_at.files), (Vec::new(), 1));
}

#[test]
fn names_that_are_no_text_are_searched_and_shown_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("srv")).unwrap();
    fs::write(dir.path().join("srv").join(OsStr::from_bytes(b"\xff\nce")), "ce01.old.org").unwrap();
    assert_eq!(
        lines(&audited(dir.path(), &old())),
        ["/srv/\\xff\\nce:1: the old machine's name 'ce01.old.org'"]
    );
}

#[test]
fn a_file_of_ten_gigabytes_with_nothing_in_them_takes_no_time_and_what_is_at_its_end_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("lastlog")).unwrap();
    file.set_len(10 << 30).unwrap();
    file.write_all_at(b"ce01.old.org", (10 << 30) - 5000).unwrap();
    let started = Instant::now();
    let report = audited(dir.path(), &old());
    assert!(started.elapsed() < Duration::from_secs(300), "{:?}", started.elapsed());
    assert!(report.looked_at.bytes < 1 << 20, "{}", report.looked_at.bytes);
    assert_eq!(report.findings[0].place.as_ref().unwrap().offset, (10 << 30) - 5000);
}

#[test]
fn a_file_with_two_names_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "a", "ce01.old.org");
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let report = audited(dir.path(), &old());
    assert_eq!((report.looked_at.files, report.findings.len()), (1, 1));
}

#[test]
fn directories_nested_deeper_than_a_path_can_say_are_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
            .unwrap();
    }
    let report = audited(dir.path(), &old());
    assert_eq!(report.unseen.len(), 1);
    assert_eq!(report.unseen[0].why, "nested deeper than the kernel names");
    gridgate::host::root::Root::open(dir.path())
        .unwrap()
        .clear(std::path::Path::new(&format!("/{name}")))
        .unwrap();
}

#[test]
fn many_small_directories_are_all_searched() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        put(dir.path(), &format!("srv/{n}/f"), if n % 1000 == 7 { "ce01.old.org" } else { "x" });
    }
    let report = audited(dir.path(), &old());
    assert_eq!((report.looked_at.files, report.findings.len()), (3000, 3));
}

#[test]
fn what_was_damaged_or_lies_about_itself_is_searched_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "srv/a.gz", b"\x1f\x8b\x08\x00broken");
    put(
        dir.path(),
        "srv/b.db",
        [b"SQLite format 3\0\x10\0".as_slice(), &[0x0d; 9000], b" ce01.old.org "].concat(),
    );
    put(dir.path(), "srv/c.pem", "-----BEGIN X-----\n".repeat(40_000) + "ce01.old.org");
    put(dir.path(), "srv/d.xz", b"\xfd7zXZ\0 ce01.old.org ");
    let started = Instant::now();
    let report = audited(dir.path(), &old());
    assert!(started.elapsed() < Duration::from_secs(300), "{:?}", started.elapsed());
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(found, ["/srv/b.db", "/srv/c.pem", "/srv/d.xz"]);
    let unseen: Vec<&str> = report.unseen.iter().map(|unseen| unseen.path.as_str()).collect();
    assert_eq!(unseen, ["/srv/a.gz", "/srv/d.xz"]);
}

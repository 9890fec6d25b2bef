//! One trap at a time, at every path that is written.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{Scene, personalise, read};

/// Puts something else in place of what is at the path, in the guest's directory.
fn clear(guest: &Path, path: &Path) -> PathBuf {
    let at = guest.join(path.strip_prefix("/").unwrap());
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&at);
    at
}

/// Runs the trap at every path; what comes of it has to be right, or the error one of those told.
fn at_every_path(trap: impl Fn(&Scene, &Path) -> bool, errors: &[&str]) {
    let paths = Scene::new().written();
    assert!(paths.len() >= 16, "{paths:?}");
    for path in paths {
        let scene = Scene::new();
        if !trap(&scene, &path) {
            continue;
        }
        let done = personalise(&scene.guest());
        let what = format!("{}: {done:?}", path.display());
        assert!(scene.outside_is_untouched(), "{what}");
        match done {
            Ok(_) => {
                // Whatever was in the way, what follows is complete.
                assert_eq!(read(&scene.guest(), "/etc/hostname"), "wn7\n", "{what}");
                assert_eq!(read(&scene.guest(), "/etc/machine-id").len(), 33, "{what}");
                assert_eq!(
                    fs::read_to_string(scene.guest().join("data/somebody")).unwrap(),
                    "somebody's",
                    "{what}"
                );
                let again = personalise(&scene.guest());
                assert!(again.is_ok(), "{what}, then {again:?}");
            }
            Err(error) => {
                let error = format!("{error:#}");
                let told = errors.iter().any(|known| error.contains(known));
                // The path that is in the way, or the directory that is, is named.
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let parent = path.parent().unwrap().display().to_string();
                assert!(told && (error.contains(&name) || error.contains(&parent)), "{what}");
            }
        }
    }
}

#[test]
fn a_link_that_leads_out_by_an_absolute_path_is_replaced() {
    at_every_path(
        |scene, path| symlink(scene.outside().join("victim"), clear(&scene.guest(), path)).is_ok(),
        &[],
    );
}

#[test]
fn a_link_that_climbs_out_is_replaced() {
    at_every_path(
        |scene, path| symlink("../../../../../../../../outside/victim", clear(&scene.guest(), path)).is_ok(),
        &[],
    );
}

#[test]
fn a_link_to_itself_is_replaced() {
    at_every_path(
        |scene, path| {
            let at = clear(&scene.guest(), path);
            symlink(at.file_name().unwrap(), &at).is_ok()
        },
        &[],
    );
}

#[test]
fn a_link_into_proc_is_replaced() {
    at_every_path(
        |scene, path| symlink("/proc/self/root/etc/passwd", clear(&scene.guest(), path)).is_ok(),
        &[],
    );
}

#[test]
fn a_directory_that_is_a_link_leads_into_the_guest_or_is_an_error_and_never_out() {
    for target in ["/outside/dir", "../../../../../../outside/dir"] {
        at_every_path(
            |scene, path| {
                let dir = scene.guest().join(path.parent().unwrap().strip_prefix("/").unwrap());
                let absolute = scene.outside().join("dir");
                let target = if target.starts_with('/') { absolute.as_path() } else { Path::new(target) };
                // The guest's own root is no entry that could be a link.
                if dir == scene.guest() || !dir.exists() {
                    return false;
                }
                fs::rename(&dir, dir.with_extension("was")).is_ok() && symlink(target, &dir).is_ok()
            },
            &["link", "Link", "no such file", "No such file", "Not a directory", "in the way"],
        );
    }
}

#[test]
fn a_pipe_a_socket_or_a_device_is_replaced_and_never_opened() {
    at_every_path(
        |scene, path| nix::unistd::mkfifo(&clear(&scene.guest(), path), Mode::S_IRWXU).is_ok(),
        &["not a regular file"],
    );
    at_every_path(
        |scene, path| UnixListener::bind(clear(&scene.guest(), path)).is_ok(),
        &["not a regular file"],
    );
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root makes devices");
        return;
    }
    // A tape that does not answer would be waited for; this one is nobody's.
    let device = |scene: &Scene, path: &Path| {
        mknod(&clear(&scene.guest(), path), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(240, 250)).is_ok()
    };
    at_every_path(device, &["not a regular file"]);
}

#[test]
fn a_directory_in_the_place_of_a_file_is_an_error_that_names_it() {
    at_every_path(
        |scene, path| fs::create_dir(clear(&scene.guest(), path)).is_ok(),
        &["a directory is in the way", "not a regular file"],
    );
}

#[test]
fn another_name_of_somebodys_file_is_replaced_and_the_file_stays() {
    at_every_path(
        |scene, path| fs::hard_link(scene.guest().join("data/somebody"), clear(&scene.guest(), path)).is_ok(),
        &[],
    );
}

#[test]
fn a_file_of_ten_gigabytes_is_replaced_or_refused_without_being_read() {
    at_every_path(
        |scene, path| {
            let file = fs::File::create(clear(&scene.guest(), path)).unwrap();
            file.set_len(10 << 30).is_ok() && file.write_all_at(b"x", 5 << 30).is_ok()
        },
        &["more than is ever read from a guest"],
    );
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    at_every_path(
        |scene, path| fs::write(clear(&scene.guest(), path), [0xff, 0, 0xfe, b'\n', 0x80]).is_ok(),
        &[],
    );
}

#[test]
fn names_that_are_no_text_or_hold_line_ends_do_no_harm_beside() {
    use std::os::unix::ffi::OsStrExt;
    at_every_path(
        |scene, path| {
            let at = clear(&scene.guest(), path);
            let dir = at.parent().unwrap();
            [b"a\nb.conf".as_slice(), b"\xff\xfe.conf", b" ", b"-rf", b"x.network\n"]
                .iter()
                .all(|name| fs::write(dir.join(std::ffi::OsStr::from_bytes(name)), "x").is_ok())
        },
        &[],
    );
}

#[test]
fn a_guest_without_anything_in_it_becomes_the_machine() {
    let scene = Scene::new();
    fs::remove_dir_all(scene.guest()).unwrap();
    fs::create_dir(scene.guest()).unwrap();
    personalise(&scene.guest()).unwrap();
    assert_eq!(read(&scene.guest(), "/etc/hostname"), "wn7\n");
    assert!(scene.outside_is_untouched());
}

#[test]
fn a_directory_with_very_many_names_is_looked_at_in_bounded_time() {
    let scene = Scene::new();
    let fill = |dir: &str| {
        let dir = scene.guest().join(dir);
        fs::create_dir_all(&dir).unwrap();
        for at in 0..20_000 {
            fs::File::create(dir.join(format!("name-{at}"))).unwrap();
        }
    };
    fill("etc/ssh");
    fill("var/lib/dhcp");
    personalise(&scene.guest()).unwrap();
    assert_eq!(read(&scene.guest(), "/etc/hostname"), "wn7\n");
    // Each file of this one would have to be read.
    fill("etc/network/interfaces.d");
    let error = format!("{:#}", personalise(&scene.guest()).unwrap_err());
    assert!(
        error.contains("'/etc/network/interfaces.d'") && error.contains("more than 2000 entries"),
        "{error}"
    );
}

//! Trees with everything that a filesystem holds.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// What a tree is made of; one number, one tree.
pub(crate) fn make(at: &Path, seed: u64) {
    let mut numbers = seed;
    let mut next = move |below: u64| {
        numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (numbers >> 33) % below
    };
    fs::create_dir(at).unwrap();
    let mut dirs = vec![at.to_owned()];
    for number in 0..12 {
        let dir = dirs[next(dirs.len() as u64) as usize].join(format!("dir {number}"));
        fs::create_dir(&dir).unwrap();
        dirs.push(dir);
    }
    let mut files = Vec::new();
    for number in 0..60u64 {
        let dir = &dirs[next(dirs.len() as u64) as usize];
        let name = match number % 7 {
            0 => vec![0xff, b'\n', b'0' + (number % 10) as u8, b'\\'],
            1 => format!("{}{number}", "long".repeat(50)).into_bytes(),
            _ => format!("file-{number}.{}", next(5)).into_bytes(),
        };
        let path = dir.join(std::ffi::OsStr::from_bytes(&name));
        if path.exists() {
            continue;
        }
        match next(10) {
            0 => symlink(format!("../nowhere/{}", "x".repeat(next(200) as usize + 1)), &path).unwrap(),
            1 => mknod(&path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap(),
            2 => mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(next(200), next(70_000))).unwrap(),
            3 => mknod(&path, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).unwrap(),
            _ => {
                let file = File::create(&path).unwrap();
                let len = next(200_000);
                let bytes: Vec<u8> = (0..len).map(|n| (n * (number + 3) / 7) as u8).collect();
                file.write_all_at(&bytes, 0).unwrap();
                if next(4) == 0 {
                    file.write_all_at(b"beyond a hole", 1 << 28).unwrap();
                    file.set_len(1 << 30).unwrap();
                }
                files.push(path.clone());
            }
        }
        chown_link(&path, next(100_000) as u32, next(5) as u32);
        times(&path, next(1 << 33) as i64 - (1 << 32), next(1_000_000_000) as i64);
    }
    for path in &files {
        if next(3) == 0 {
            let again = dirs[next(dirs.len() as u64) as usize].join(format!("again-{}", next(1 << 30)));
            fs::hard_link(path, again).unwrap();
        }
        match next(6) {
            0 => fs::set_permissions(path, fs::Permissions::from_mode(0o6751)).unwrap(),
            1 => xattr(path, "user.note", "hello"),
            2 => xattr(path, "trusted.secret", "0x00ff"),
            3 => xattr(path, "security.capability", "0x0100000200040000000000000000000000000000"),
            4 => tool("setfacl", &["-m", "u:1234:rw,g:99:r"], path),
            _ => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
        }
    }
    tool("setfacl", &["-d", "-m", "u:7:rwx"], &dirs[1]);
    tool("chattr", &["+A"], &dirs[2]);
    tool("chattr", &["+d"], &files[0]);
    for dir in dirs.iter().rev() {
        times(dir, next(1 << 31) as i64, next(1_000_000_000) as i64);
    }
}

fn chown_link(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
}

fn times(path: &Path, seconds: i64, nanoseconds: i64) {
    let moment = TimeSpec::new(seconds, nanoseconds);
    let at = nix::fcntl::AT_FDCWD;
    utimensat(at, path, &moment, &moment, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn xattr(path: &Path, name: &str, value: &str) {
    tool("setfattr", &["-n", name, "-v", value], path);
}

/// Where a program is missing the tree has less.
fn tool(program: &str, args: &[&str], path: &Path) {
    match Command::new(program).args(args).arg(path).output() {
        Ok(ran) => assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr)),
        Err(_) => eprintln!("skipped: no {program} here"),
    }
}

use std::process::{Command, Stdio};

use super::*;
use crate::host::Live;
use crate::host::loopdev::LoopDevice;
use crate::host::volume::Volume;

/// A disk of its own, made of a file.
fn device(dir: &Path, read_only: bool) -> Option<LoopDevice> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: loop devices need root");
        return None;
    }
    let disk = dir.join("disk");
    File::create(&disk).unwrap().set_len(32 << 20).unwrap();
    Some(LoopDevice::attach(&Volume::whole(&disk), read_only).unwrap())
}

fn why(claimed: Result<Claim>) -> String {
    claimed.unwrap_err().downcast_ref::<Refused>().unwrap().to_string()
}

#[test]
fn a_device_that_nobody_uses_is_claimed_and_then_no_other_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = device(dir.path(), false) else { return };
    assert_eq!(Target::at(device.path()).unwrap(), Target::Device { len: 32 << 20 });
    let claimed = claim(device.path()).unwrap();
    assert!(why(claim(device.path())).contains("for itself"));
    drop(claimed);
    claim(device.path()).unwrap();
}

#[test]
fn a_device_in_use_is_refused_and_the_message_says_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = device(dir.path(), false) else { return };
    let at = dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let path = device.path();

    let mut reader =
        Command::new("sleep").arg("60").stdin(Stdio::from(File::open(path).unwrap())).spawn().unwrap();
    let text = why(claim(path));
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(text.contains(&format!("process {} (sleep) has it open", reader.id())), "{text}");

    let above = LoopDevice::attach(&Volume::whole(path), false).unwrap();
    let text = why(claim(path));
    assert!(text.contains(&format!("it is behind the loop device {}", above.path().display())), "{text}");
    above.wait_until_unused().unwrap();
    drop(above);

    assert!(Command::new("mke2fs").arg("-q").arg(path).status().unwrap().success());
    assert!(Command::new("mount").arg(path).arg(&at).status().unwrap().success());
    let text = why(claim(path));
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    assert!(text.contains(&format!("it is mounted on '{}'", at.display())), "{text}");
}

#[test]
fn a_device_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = device(dir.path(), true) else { return };
    assert!(why(claim(device.path())).contains("is read-only"));
}

#[test]
fn what_is_on_a_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    assert_eq!(content(&Live, &disk).unwrap(), None);
    Live.run(&Program::new("mke2fs").args(["-q", "-L", "home"]).arg(disk.as_os_str())).unwrap();
    assert_eq!(content(&Live, &disk).unwrap().as_deref(), Some("a filesystem or the like (ext2, 'home')"));
}

#[test]
fn only_files_directories_and_disks_are_targets() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Target::at(&dir.path().join("new")).unwrap(), Target::Nothing);
    assert_eq!(Target::at(dir.path()).unwrap(), Target::Directory { empty: true });
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    assert_eq!(Target::at(dir.path()).unwrap(), Target::Directory { empty: false });
    for (path, why) in
        [(dir.path().join("link"), "leads nowhere"), (PathBuf::from("/dev/null"), "neither a file")]
    {
        let error = Target::at(&path).unwrap_err();
        assert!(error.downcast_ref::<Refused>().unwrap().0.contains(why), "{error}");
    }
}

#[test]
fn a_file_behind_a_loop_device_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = device(dir.path(), false) else { return };
    let disk = dir.path().join("disk");
    assert!(unused_file(&disk).unwrap_err().to_string().contains("it is behind the loop device"));
    drop(device);
}

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::host::Live;
use crate::host::filesystem::Filesystems;
use crate::host::root::FileMode;
use crate::host::superblock;

const KINDS: [FilesystemKind; 3] = [FilesystemKind::Ext4, FilesystemKind::Xfs, FilesystemKind::Btrfs];

/// The kernel knows a btrfs that is mounted by its UUID, and mkfs.btrfs makes no second one with it: no two tests have the same.
pub(crate) fn unique_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty()).unwrap();
    uuid
}

fn new(kind: FilesystemKind) -> NewFilesystem {
    NewFilesystem {
        kind,
        label: "site".to_owned(),
        uuid: unique_uuid(),
        reserved_percent: 1,
        inodes: 0,
        tight: false,
        features: vec!["metadata_csum_seed".to_owned()],
    }
}

/// A disk full of what an earlier life left on it.
fn used_disk(dir: &Path, len: u64) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: loop devices need root");
        return None;
    }
    let disk = dir.join("disk");
    let mut file = File::create(&disk).unwrap();
    let dirt: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..len >> 20 {
        file.write_all(&dirt).unwrap();
    }
    Some(disk)
}

fn here(kind: FilesystemKind) -> bool {
    let there = new(kind).check(&Live).is_ok();
    if !there {
        eprintln!("skipped: nothing here makes {}", kind.name());
    }
    there
}

fn blkid_sees(disk: &Path) -> bool {
    Command::new("/usr/sbin/blkid").arg("-p").arg(disk).output().unwrap().status.success()
}

fn fill(root: &Root) -> Result<()> {
    for n in 0..40 {
        root.write(Path::new(&format!("/d{n}/file")), &vec![n; 70_000], FileMode::Exactly(0o640))?;
    }
    Ok(())
}

fn whole(root: &Root) -> Result<()> {
    for n in 0..40 {
        let found = root.read(Path::new(&format!("/d{n}/file")))?;
        ensure!(found == Some(vec![n; 70_000]), "file {n} is another");
    }
    Ok(())
}

fn sound(kind: FilesystemKind, disk: &Path) {
    let (program, args): (_, &[&str]) = match kind {
        FilesystemKind::Ext4 => ("e2fsck", &["-fn"]),
        FilesystemKind::Xfs => ("xfs_repair", &["-n"]),
        FilesystemKind::Btrfs => ("btrfs", &["check", "--readonly"]),
    };
    let ran = Live.run_any(&Program::new(program).args(args).arg(disk)).unwrap();
    assert_eq!(ran.status, 0, "{}{}", ran.text(), String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn on_a_used_disk_there_is_no_filesystem_until_all_is_in_it_and_then_it_is_sound() {
    for (kind, mib) in KINDS.into_iter().map(|kind| (kind, 400)).chain([(FilesystemKind::Ext4, 100)]) {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = used_disk(dir.path(), mib << 20) else { return };
        if !here(kind) {
            continue;
        }
        let unseen = |when: &str| {
            assert!(!blkid_sees(&disk), "{} {when}", kind.name());
            assert!(superblock::probe(&disk, 0).unwrap().is_none(), "{} {when}", kind.name());
        };
        let mut work = Work {
            fill: &mut |root| {
                unseen("before it is filled");
                fill(root)?;
                rustix::fs::sync();
                unseen("when it is filled");
                Ok(())
            },
            check: Some(&mut |root| {
                unseen("while it is read back");
                whole(root)
            }),
        };
        let new = new(kind);
        Live.make_volume(&Volume::whole(&disk), &new, Finish::SuperblockLast, &mut work).unwrap();
        let found = superblock::expect(&disk, 0).unwrap();
        assert_eq!((found.kind, found.uuid, found.needs_recovery), (kind, new.uuid, false));
        assert!(blkid_sees(&disk));
        sound(kind, &disk);
        Live.look_at_volume(&Volume::whole(&disk), &mut |root, _| whole(root)).unwrap();
        assert_eq!(std::fs::metadata(&disk).unwrap().len(), mib << 20);
    }
    assert!(leftovers().is_empty());
}

#[test]
fn a_part_of_a_disk_becomes_a_filesystem_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = used_disk(dir.path(), 200 << 20) else { return };
    let before = std::fs::read(&disk).unwrap();
    for finish in [Finish::SuperblockLast, Finish::InPlace] {
        let volume = Volume { file: disk.clone(), offset: 8 << 20, len: Some(160 << 20) };
        let mut work = Work { fill: &mut fill, check: Some(&mut whole) };
        Live.make_volume(&volume, &new(FilesystemKind::Ext4), finish, &mut work).unwrap();
        let after = std::fs::read(&disk).unwrap();
        assert!(before[..8 << 20] == after[..8 << 20] && before[168 << 20..] == after[168 << 20..]);
        std::fs::write(dir.path().join("part"), &after[8 << 20..168 << 20]).unwrap();
        sound(FilesystemKind::Ext4, &dir.path().join("part"));
    }
}

#[test]
fn what_fails_half_way_leaves_no_filesystem_and_nothing_attached() {
    for kind in KINDS.into_iter().filter(|kind| here(*kind)) {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = used_disk(dir.path(), 320 << 20) else { return };
        let mut fails: [Work<'_>; 2] = [
            Work { fill: &mut |root| fill(root).and_then(|()| bail!("on purpose")), check: None },
            Work { fill: &mut fill, check: Some(&mut |_| bail!("on purpose")) },
        ];
        for work in &mut fails {
            let made = Live.make_volume(&Volume::whole(&disk), &new(kind), Finish::SuperblockLast, work);
            assert_eq!(format!("{:#}", made.unwrap_err()), "on purpose");
            assert!(!blkid_sees(&disk));
        }
        // A child that another test has just forked may have it open for a moment.
        let began = std::time::Instant::now();
        while !Command::new("/usr/sbin/losetup").arg("-j").arg(&disk).output().unwrap().stdout.is_empty() {
            assert!(began.elapsed().as_secs() < 90, "it is still attached");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn a_label_that_the_filesystem_cannot_have_is_refused_before_anything_is_touched() {
    let long = NewFilesystem { label: "a-label-of-17-byte".to_owned(), ..new(FilesystemKind::Ext4) };
    assert!(long.check(&Live).unwrap_err().to_string().contains("16 bytes at most"));
}

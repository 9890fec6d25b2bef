//! A tree is made what a document says, again, otherwise, and back.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::super::document::{Directory, Document, File, Group, Services, Task, User};
use super::super::tests::{of, site};
use super::*;
use crate::host::root::Root;

/// A small Debian without any grid software.
fn debian(dir: &Path) {
    for sub in ["etc/systemd/system", "usr/lib/systemd/system", "var/lib/dpkg", "var/log"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    std::fs::write(
        dir.join("etc/passwd"),
        b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:\xe9:/:/bin/false\n",
    )
    .unwrap();
    std::fs::write(dir.join("etc/group"), "root:x:0:\ndaemon:x:1:\n").unwrap();
    std::fs::write(dir.join("etc/shadow"), "root:*:19000:0:99999:7:::\n").unwrap();
    std::fs::write(dir.join("etc/motd"), "golden\n").unwrap();
    std::fs::write(dir.join("usr/lib/systemd/system/a.service"), "[Install]\nWantedBy=multi-user.target\n")
        .unwrap();
    std::fs::write(dir.join("var/lib/dpkg/status"), "Package: munge\nStatus: install ok installed\n")
        .unwrap();
}

fn document() -> Document {
    let text = |text: &str| text.to_owned();
    let file = |path: &str, content: &str| File {
        path: text(path),
        mode: text("0640"),
        owner: text("slurm"),
        group: text("root"),
        content: text(content),
    };
    Document {
        format: 1,
        site: text("s"),
        guest: text("ce"),
        fqdn: text("ce.example.org"),
        role: text("ce"),
        profile: text("ce"),
        made_of: vec![text("ce")],
        variables: Default::default(),
        packages: vec![text("munge"), text("slurmctld")],
        groups: vec![Group { name: text("slurm"), gid: 64030, members: Vec::new() }],
        users: vec![User {
            name: text("slurm"),
            uid: 64030,
            group: text("slurm"),
            home: text("/nonexistent"),
            shell: text("/usr/sbin/nologin"),
            comment: text("batch"),
            pool: false,
        }],
        directories: vec![Directory {
            path: text("/var/log/slurm"),
            mode: text("0750"),
            owner: text("slurm"),
            group: text("slurm"),
        }],
        files: vec![file("/etc/motd", "ours\n"), file("/etc/slurm/slurm.conf", "ClusterName=s\n")],
        absent: Vec::new(),
        services: Services { enable: vec![text("a.service"), text("b.service")], ..Services::default() },
        tasks: vec![Task {
            name: text("t"),
            about: text("do it"),
            command: vec![text("echo"), text("it's")],
        }],
        scrub: Vec::new(),
        checks: Vec::new(),
        compiler: None,
    }
}

fn tree() -> Option<(tempfile::TempDir, Root)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root gives files to others");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    debian(dir.path());
    let root = Root::open(dir.path()).unwrap();
    Some((dir, root))
}

#[test]
fn a_tree_becomes_what_the_document_says_and_the_second_time_nothing_changes() {
    let Some((dir, root)) = tree() else { return };
    let outcome = into(&root, &document()).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(outcome.generation, 1);
    assert_eq!(outcome.missing_packages, ["slurmctld"]);
    assert_eq!(outcome.notes, ["unit 'b.service' is not in the guest yet, and is not started at boot"]);
    assert_eq!(read("etc/slurm/slurm.conf"), "ClusterName=s\n");
    let meta = std::fs::metadata(dir.path().join("etc/slurm/slurm.conf")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (64030, 0, 0o640));
    let passwd = std::fs::read(dir.path().join("etc/passwd")).unwrap();
    assert!(
        passwd.ends_with(b":\xe9:/:/bin/false\nslurm:x:64030:64030:batch:/nonexistent:/usr/sbin/nologin\n")
    );
    assert!(read("etc/shadow").ends_with("slurm:!::0:99999:7:::\n"));
    let wanted = dir.path().join("etc/systemd/system/multi-user.target.wants/a.service");
    assert_eq!(std::fs::read_link(wanted).unwrap(), Path::new("/usr/lib/systemd/system/a.service"));
    let top = dir.path().join("var/lib/gridgate/profile");
    assert_eq!(std::fs::read_link(top.join("current")).unwrap(), Path::new("1"));
    assert_eq!(read("var/lib/gridgate/profile/1/task-t"), "# do it\nexec 'echo' 'it'\\''s'\n");
    assert_eq!(std::fs::metadata(top.join("1/document.json")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(into(&root, &document()).unwrap().changed, Vec::<PathBuf>::new());
}

#[test]
fn another_profile_is_a_new_generation_and_takes_back_what_the_old_one_had() {
    let Some((dir, root)) = tree() else { return };
    into(&root, &document()).unwrap();
    let mut second = document();
    second.files.retain(|file| file.path != "/etc/motd");
    second.users.clear();
    second.groups.clear();
    second.files[0].owner = "root".to_owned();
    second.directories.clear();
    second.services.enable.clear();
    let outcome = into(&root, &second).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(outcome.generation, 2);
    assert_eq!(read("etc/motd"), "golden\n");
    assert!(
        !String::from_utf8_lossy(&std::fs::read(dir.path().join("etc/passwd")).unwrap()).contains("slurm")
    );
    assert!(!read("etc/shadow").contains("slurm") && !read("etc/group").contains("slurm"));
    assert!(!dir.path().join("etc/systemd/system/multi-user.target.wants/a.service").is_symlink());
    assert_eq!(into(&root, &second).unwrap().changed, Vec::<PathBuf>::new());

    let (document, back) = rollback(&root).unwrap();
    assert_eq!(document, self::document());
    assert_eq!((back.generation, read("etc/motd").as_str()), (1, "ours\n"));
    assert!(dir.path().join("etc/systemd/system/multi-user.target.wants/a.service").is_symlink());
    let why = format!("{:#}", rollback(&root).unwrap_err());
    assert_eq!(why, "generation 1 of the profile is the oldest that is kept");
}

#[test]
fn what_was_changed_in_the_guest_is_not_thrown_away() {
    let Some((dir, root)) = tree() else { return };
    into(&root, &document()).unwrap();
    std::fs::write(dir.path().join("etc/motd"), "mine\n").unwrap();
    let mut second = document();
    second.files.remove(0);
    let outcome = into(&root, &second).unwrap();
    assert!(
        outcome.notes.contains(&"'/etc/motd' was changed in the guest and stays".to_owned()),
        "{outcome:?}"
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("etc/motd")).unwrap(), "mine\n");
}

#[test]
fn an_id_that_is_taken_is_refused_before_anything_is_changed() {
    let Some((dir, root)) = tree() else { return };
    let path = dir.path().join("etc/passwd");
    std::fs::write(&path, "root:x:0:0::/root:/bin/sh\nalice:x:64030:100::/:/bin/sh\n").unwrap();
    let error = format!("{:#}", into(&root, &document()).unwrap_err());
    assert!(error.contains("uid 64030 is that of user 'alice'") && error.contains("\nhint: "), "{error}");
    assert!(!dir.path().join("var/lib/gridgate").exists());
    std::fs::write(&path, "slurm:x:115:100::/:/bin/sh\n").unwrap();
    let error = format!("{:#}", into(&root, &document()).unwrap_err());
    assert!(error.contains("user 'slurm' is 115 there, not 64030"), "{error}");
}

#[test]
fn old_generations_go_and_the_current_one_stays() {
    let Some((dir, root)) = tree() else { return };
    for number in 1..=8 {
        let mut document = document();
        document.files[0].content = format!("{number}\n");
        assert_eq!(into(&root, &document).unwrap().generation, number);
    }
    let mut left: Vec<String> = std::fs::read_dir(dir.path().join("var/lib/gridgate/profile"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["4", "5", "6", "7", "8", "current", "originals"]);
}

#[test]
fn the_records_of_another_machine_s_tasks_are_forgotten() {
    let Some((dir, root)) = tree() else { return };
    into(&root, &document()).unwrap();
    let done = dir.path().join("var/lib/gridgate/profile/done");
    std::fs::create_dir(&done).unwrap();
    std::fs::write(done.join("t"), "status=0\nat=1\n").unwrap();
    let state = |document: &Document| tasks::states(&root, document)[0].state;
    assert_eq!(state(&document()), tasks::State::Done);
    let other = Document { guest: "ce2".to_owned(), ..document() };
    into(&root, &other).unwrap();
    assert_eq!(state(&other), tasks::State::Pending);
}

#[test]
fn every_shipped_profile_compiles_into_a_system_without_the_grid_s_software() {
    let Some((dir, root)) = tree() else { return };
    let (_site, site) = site(&[]);
    for guest in ["ce", "se", "ui", "wn"] {
        let document = of(&site, guest);
        let outcome = into(&root, &document).unwrap();
        assert!(outcome.missing_packages.len() > 3, "{guest}");
        let plan = Plan::make(&root, &document).unwrap();
        assert_eq!(super::super::diff::differences(&root, &plan).unwrap(), [], "{guest}");
        assert_eq!(into(&root, &document).unwrap().changed, Vec::<PathBuf>::new(), "{guest}");
    }
    assert!(!dir.path().join("etc/arc.conf").exists() && dir.path().join("etc/slurm/slurm.conf").exists());
}

#[test]
fn traps_in_the_guest_lead_nowhere_outside() {
    let Some((dir, root)) = tree() else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("host"), "host").unwrap();
    std::fs::remove_file(dir.path().join("etc/motd")).unwrap();
    symlink(outside.path().join("host"), dir.path().join("etc/motd")).unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    symlink(outside.path(), dir.path().join("etc/slurm")).unwrap();
    assert!(into(&root, &document()).is_err());
    std::fs::remove_file(dir.path().join("etc/slurm")).unwrap();
    into(&root, &document()).unwrap();
    assert_eq!(std::fs::read_to_string(outside.path().join("host")).unwrap(), "host");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn what_would_change_is_what_then_changes() {
    let Some((dir, root)) = tree() else { return };
    let plan = Plan::make(&root, &document()).unwrap();
    let shown = super::super::diff::differences(&root, &plan).unwrap();
    let motd = shown.iter().find(|found| found.path == Path::new("/etc/motd")).unwrap();
    assert!(motd.text.contains("-golden\n+ours\n"), "{}", motd.text);
    assert!(shown.iter().all(|found| !found.text.contains("99999")));
    assert!(!dir.path().join("etc/slurm").exists());
    let changed = plan.apply(&root).unwrap().changed;
    for found in &shown {
        assert!(changed.contains(&found.path), "{}", found.path.display());
    }
}

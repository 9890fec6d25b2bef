//! Machines that were used for everything that is known.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gridgate::host::root::{Change, Root};
use gridgate::identity::audit::{self, Now, Old, Verdict};
use gridgate::identity::edit::Edit;
use gridgate::identity::known::{Action, Class, Known, Pattern, shipped};
use gridgate::identity::personalise::{Plan, Scrubbing};
use gridgate::identity::scrub::{self, Policy};
use gridgate::identity::seal;

use super::{KEY, MACHINE_ID, UUID, lines, new_identity, old, put};

const CONTENT: &str = "ce01.old.org 10.66.5.4 52:54:00:ab:cd:1f 8f3a5c7e91b24d06a8c1e2f304152637\n";

/// One path that the pattern matches.
fn example(pattern: &Pattern) -> PathBuf {
    let mut path = String::new();
    let mut rest =
        pattern.as_str().replace("~/", "/home/ann/").replace("/**/", "/deep/").replace("**", "deep/file");
    while let Some(at) = rest.find(['*', '?', '[']) {
        path.push_str(&rest[..at]);
        let end = match rest.as_bytes()[at] {
            b'[' => {
                path.push(rest.as_bytes()[at + 1].into());
                at + rest[at..].find(']').unwrap() + 1
            }
            _ => {
                path.push('x');
                at + 1
            }
        };
        rest.replace_range(..end, "");
    }
    PathBuf::from(path + &rest)
}

/// Fills a tree with everything known for which `take` is true; gives the files that were made.
fn seed(dir: &Path, take: impl Fn(&Known) -> bool) -> BTreeSet<PathBuf> {
    let mut wanted = BTreeSet::new();
    for known in shipped().iter().filter(|known| take(known)) {
        for pattern in &known.patterns {
            let path = example(pattern);
            wanted.insert(if known.action == Action::Clear { path.join("inside") } else { path });
        }
    }
    // What is a directory for one is not a file for another.
    let files: BTreeSet<PathBuf> = wanted
        .iter()
        .filter(|path| !wanted.iter().any(|other| other != *path && other.starts_with(path)))
        .cloned()
        .collect();
    for path in &files {
        put(dir, path.to_str().unwrap(), CONTENT);
    }
    files
}

#[test]
fn a_machine_that_was_used_for_everything_becomes_another_and_an_audit_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let scrubbed = |known: &Known| matches!(known.action, Action::Remove | Action::Empty | Action::Clear);
    let seeded = seed(dir.path(), scrubbed);
    assert!(seeded.len() > 700, "{}", seeded.len());
    for (path, content) in [
        ("etc/hostname", "ce01\n".to_owned()),
        ("etc/hosts", "10.66.5.4 ce01.old.org ce01\n".to_owned()),
        ("etc/machine-id", format!("{MACHINE_ID}\n")),
        ("etc/resolv.conf", "search old.org\nnameserver 10.66.5.4\n".to_owned()),
        ("etc/mailname", "ce01.old.org\n".to_owned()),
        ("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:5ca1ab1e\n".to_owned()),
        ("etc/ssh/ssh_host_ed25519_key", "old".to_owned()),
        ("etc/ssh/ssh_host_ed25519_key.pub", format!("{KEY}\n")),
        ("etc/ssh/ssh_host_dsa_key", "old".to_owned()),
        ("var/lib/systemd/random-seed", "old".to_owned()),
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n".to_owned()),
    ] {
        put(dir.path(), path, content);
    }
    let remembered = Old::from_tree(&root).unwrap();
    assert!(remembered.names.contains("ce01.old.org") && remembered.machine_ids.contains(MACHINE_ID));
    let old = old().and(remembered);

    let mut identity = new_identity();
    let scrubbing = Scrubbing { scrub: vec![Class::Users], ..Scrubbing::default() };
    let plan = Plan::make(&root, &mut identity, None, &scrubbing).unwrap();
    let writes = |edit: &&Edit| matches!(edit, Edit::Write { .. } | Edit::Link { .. });
    let written = plan.edits.iter().filter(writes).map(|edit| edit.path().to_owned());
    let policy = Policy::another_machine().scrub(Class::Users).sparing(written);
    let before = audit::run(&root, &old, &Now::of(&identity, &plan.edits).unwrap(), &policy, &[]).unwrap();
    let paths: BTreeSet<&str> = before.findings.iter().map(|finding| finding.path.as_str()).collect();
    assert!(paths.len() >= 700, "{}", paths.len());
    let classes: BTreeSet<Class> = before.findings.iter().map(|finding| finding.class).collect();
    assert_eq!(classes, Class::ALL.into());

    plan.apply(&root).unwrap();
    let after = audit::run(&root, &old, &Now::of(&identity, &plan.edits).unwrap(), &policy, &[]).unwrap();
    assert_eq!(lines(&after), Vec::<String>::new());
    assert!(after.is_clean());
    assert_eq!(scrub::edits(&root, &policy, &[]).unwrap(), []);
}

#[test]
fn a_machine_that_was_used_for_everything_is_sealed_and_an_audit_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let seeded = seed(dir.path(), |_| true);
    put(dir.path(), "etc/fstab", format!("UUID={UUID} / ext4 defaults 0 1\n"));
    assert!(seeded.len() > 900, "{}", seeded.len());
    let old = old();
    let edits = seal::edits(&root, &old, &[]).unwrap();
    for edit in &edits {
        assert_eq!(edit.apply(&root).unwrap(), Change::Changed, "{edit:?}");
    }
    let now = Now::nobody(&edits);
    let report = audit::run(&root, &old.clone().without_uuids(), &now, &Policy::nobody(), &[]).unwrap();
    assert_eq!(lines(&report), Vec::<String>::new());
    assert_eq!(seal::edits(&root, &old, &[]).unwrap(), []);
    assert_eq!(fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
}

#[test]
fn what_the_machine_wrote_itself_after_it_was_personalised_is_not_held_against_it() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "var/log/syslog", "wn7 booted\n");
    put(dir.path(), "etc/munge/munge.key", "key");
    let root = Root::open(dir.path()).unwrap();
    let time = fs::metadata(dir.path().join("etc/munge/munge.key")).unwrap().mtime();
    let policy = Policy::another_machine();
    let audit = |since| {
        let now = Now { since, ..Now::default() };
        lines(&audit::run(&root, &old(), &now, &policy, &[]).unwrap()).len()
    };
    assert_eq!((audit(None), audit(Some(time)), audit(Some(time + 5))), (2, 0, 2));
    put(dir.path(), "var/log/syslog", "connection from ce01.old.org\n");
    assert_eq!(audit(Some(time)), 1);
}

#[test]
fn a_machine_of_the_same_site_may_speak_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "root/.ssh/known_hosts", "ce01.old.org ssh-ed25519 AAAA\n");
    let root = Root::open(dir.path()).unwrap();
    let now = |since| Now { around: ["ce01.old.org".to_owned()].into(), since, ..Now::default() };
    let audit = |since| {
        let report = audit::run(&root, &old(), &now(since), &Policy::same_machine(), &[]).unwrap();
        report.findings.iter().filter(|finding| finding.found.contains("'ce01.old.org'")).count()
    };
    assert_eq!((audit(None), audit(Some(0))), (1, 0));
}

#[test]
fn a_secret_of_the_old_machine_is_known_wherever_it_was_copied_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "correct horse battery staple";
    put(dir.path(), "etc/munge/munge.key", secret);
    let root = Root::open(dir.path()).unwrap();
    let remembered = Old::from_tree(&root).unwrap();
    put(dir.path(), "srv/backup/k", secret);
    let report = audit::run(&root, &remembered, &Now::default(), &Policy::another_machine(), &[]).unwrap();
    let left: BTreeSet<&str> = report.findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(left, ["/etc/munge/munge.key", "/srv/backup/k"].into());
    assert!(report.findings.iter().all(|finding| finding.verdict == Verdict::Left));
    let all = format!("{report} {}", serde_json::to_string(&report).unwrap());
    assert!(!all.contains("horse"), "{all}");
    assert!(!String::from_utf8(remembered.to_json().unwrap()).unwrap().contains("horse"));
}

#[test]
fn an_audit_leaves_no_trace_in_the_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "etc/a", "ce01.old.org");
    let file = fs::File::open(dir.path().join("etc/a")).unwrap();
    let long_ago = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
    rustix::fs::futimens(&file, &times).unwrap();
    assert_eq!(super::audited(dir.path(), &old()).findings.len(), 1);
    let meta = fs::metadata(dir.path().join("etc/a")).unwrap();
    assert_eq!((meta.atime(), meta.mtime()), (1_000_000, 1_000_000));
}

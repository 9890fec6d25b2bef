//! Trees of machines that were used, and what is left of them.

use super::*;
use crate::host::root::{Change, Root};
use crate::identity::known::Class;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "of the old machine").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn scrub(root: &Root, policy: &Policy) -> Vec<String> {
    let edits = edits(root, policy, &[]).unwrap();
    for edit in &edits {
        assert_eq!(edit.apply(root).unwrap(), Change::Changed, "{edit:?}");
    }
    edits.iter().map(|edit| format!("{edit:?}")).collect()
}

#[test]
fn what_the_old_machine_was_goes_and_the_second_time_there_is_nothing_to_do() {
    let (_dir, root) = tree(&[
        "/etc/munge/munge.key",
        "/etc/hostname",
        "/var/log/syslog",
        "/var/log/syslog.1",
        "/var/log/journal/0123/system.journal",
        "/var/lib/dhcp/dhclient.leases",
        "/home/ann/.bash_history",
        "/home/ann/.ssh/id_rsa",
        "/home/ann/thesis.tex",
        "/root/.ssh/id_ed25519",
        "/etc/systemd/system.conf.dpkg-old",
        "/usr/bin/true",
    ]);
    let done = scrub(&root, &Policy::another_machine());
    assert_eq!(
        done,
        [
            "remove /etc/munge/munge.key",
            "remove /etc/systemd/system.conf.dpkg-old",
            "remove /home/ann/.bash_history",
            "remove /root/.ssh/id_ed25519",
            "clear /var/lib/dhcp",
            "clear /var/log/journal",
            "empty /var/log/syslog",
            "remove /var/log/syslog.1",
        ]
    );
    assert_eq!(scrub(&root, &Policy::another_machine()), Vec::<String>::new());
    assert_eq!(scrub(&root, &Policy::nobody()), ["remove /home/ann/.ssh/id_rsa"]);
}

#[test]
fn nothing_goes_when_a_machine_is_personalised_as_itself() {
    let (_dir, root) = tree(&["/etc/munge/munge.key", "/var/log/syslog"]);
    assert_eq!(scrub(&root, &Policy::same_machine()), Vec::<String>::new());
}

#[test]
fn a_class_is_kept_or_scrubbed_as_asked() {
    let (_dir, root) = tree(&["/var/log/syslog", "/etc/munge/munge.key", "/home/ann/.netrc"]);
    let policy = Policy::another_machine().keep(Class::Logs).keep(Class::Secrets).scrub(Class::Users);
    assert_eq!(scrub(&root, &policy), ["remove /home/ann/.netrc"]);
}

#[test]
fn the_old_network_goes_only_if_it_is_asked_for_and_what_a_machine_needs_never() {
    let files = [
        "/etc/systemd/network/10-old.network",
        "/root/.ssh/authorized_keys",
        "/etc/hostname",
        "/etc/machine-id",
    ];
    let (_dir, root) = tree(&files);
    assert_eq!(scrub(&root, &Policy::another_machine()), Vec::<String>::new());
    let all = Class::ALL.into_iter().fold(Policy::same_machine(), Policy::scrub);
    let gone = ["remove /etc/systemd/network/10-old.network", "remove /root/.ssh/authorized_keys"];
    assert_eq!(scrub(&root, &all), gone);
    assert_eq!(scrub(&root, &all), Vec::<String>::new());
}

#[test]
fn what_the_new_identity_writes_stays_in_a_directory_that_goes_otherwise() {
    let (dir, root) = tree(&["/var/lib/puppet/ssl/certs/old.pem", "/var/lib/puppet/ssl/certs/new.pem"]);
    let policy = Policy::another_machine().sparing(["/var/lib/puppet/ssl/certs/new.pem"]);
    assert_eq!(scrub(&root, &policy), ["remove /var/lib/puppet/ssl/certs/old.pem and all that is in it"]);
    assert!(dir.path().join("var/lib/puppet/ssl/certs/new.pem").exists());
    assert_eq!(scrub(&root, &policy), Vec::<String>::new());
}

#[test]
fn a_log_becomes_empty_with_its_owner_and_mode_and_a_second_name_of_it_is_not_touched() {
    let (dir, root) = tree(&["/var/log/slurm/ctld.log", "/usr/lib/program"]);
    let log = dir.path().join("var/log/slurm/ctld.log");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o620)).unwrap();
    fs::hard_link(dir.path().join("usr/lib/program"), dir.path().join("var/log/trap")).unwrap();
    scrub(&root, &Policy::another_machine());
    let meta = fs::metadata(&log).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o7777), (0, 0o620));
    assert_eq!(fs::read_to_string(dir.path().join("usr/lib/program")).unwrap(), "of the old machine");
}

#[test]
fn a_profile_says_what_belongs_to_one_machine_and_has_the_last_word() {
    let (_dir, root) = tree(&["/srv/ce/state/a", "/srv/ce/keep", "/var/log/ce/audit"]);
    let gone = Known::of_profile("ce", &["/srv/ce/state".to_owned()], Action::Clear).unwrap();
    let kept = Known::of_profile("ce", &["/var/log/ce/*".to_owned()], Action::Keep).unwrap();
    let edits = edits(&root, &Policy::another_machine(), &[gone, kept]).unwrap();
    assert_eq!(edits, [Edit::Clear { path: "/srv/ce/state".into() }]);
    let wrong = Known::of_profile("ce", &["../x".to_owned()], Action::Remove).unwrap_err();
    assert!(format!("{wrong:#}").starts_with("reading the scrub list of profile 'ce': '../x'"), "{wrong:#}");
}

#[test]
fn no_link_leads_a_scrub_anywhere() {
    let (dir, root) = tree(&["/etc/passwd", "/usr/lib/os-release", "/data/log/syslog"]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("munge.key"), "host").unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("var/lib")).unwrap();
    symlink(outside.path(), at("etc/munge")).unwrap();
    symlink("/", at("var/log")).unwrap();
    symlink("/usr/lib", at("var/cache")).unwrap();
    symlink("/etc", at("var/lib/dhcp")).unwrap();
    symlink("..", at("etc/loop")).unwrap();
    symlink(outside.path(), at("home")).unwrap();
    symlink("/etc/passwd", at("etc/passwd-")).unwrap();
    assert_eq!(scrub(&root, &Policy::nobody()), ["remove /etc/passwd-"]);
    assert!(at("etc/passwd").exists() && outside.path().join("munge.key").exists());
}

#[test]
fn odd_names_and_special_files_are_scrubbed_like_others() {
    use std::os::unix::ffi::OsStrExt;
    let (dir, root) = tree(&["/var/spool/cron/atjobs/a"]);
    let at = |path: &str| dir.path().join(path);
    let odd = std::ffi::OsStr::from_bytes(b"\xff\n");
    fs::write(at("var/spool/cron/atjobs").join(odd), "x").unwrap();
    fs::create_dir_all(at("etc/munge/munge.key/deep")).unwrap();
    nix::unistd::mkfifo(&at("etc/krb5.keytab"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir_all(at("var/log")).unwrap();
    nix::unistd::mkfifo(&at("var/log/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let done = scrub(&root, &Policy::another_machine());
    assert_eq!(done.len(), 4, "{done:?}");
    assert!(at("var/log/pipe").exists() && !at("etc/munge/munge.key").exists());
    assert_eq!(scrub(&root, &Policy::another_machine()), Vec::<String>::new());
}

#[test]
fn a_directory_full_of_matches_is_an_error_that_says_what_to_do() {
    let (dir, root) = tree(&["/var/log/a"]);
    let handle = fs::File::open(dir.path().join("var/log")).unwrap();
    rustix::fs::fchmod(&handle, rustix::fs::Mode::RWXU).unwrap();
    for n in 0..65600 {
        rustix::fs::linkat(&handle, "a", &handle, format!("b{n}"), rustix::fs::AtFlags::empty())
            .unwrap_or_else(|_| {
                // The filesystem allows fewer names for one file.
                rustix::fs::mknodat(
                    &handle,
                    format!("b{n}"),
                    rustix::fs::FileType::RegularFile,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap();
            });
    }
    let error = edits(&root, &Policy::another_machine(), &[]).unwrap_err().to_string();
    assert!(error.starts_with("'/var/log' holds more than 65536 files"), "{error}");
}

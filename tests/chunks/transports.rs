//! Web servers of every manner, mirrors, and ssh.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab::{BLOCK, Lab, disk, noise, said};
use crate::server::{Manner, Server};

/// A store with the disk in it.
fn stored() -> Lab {
    let lab = Lab::new();
    lab.image("a", "x", &disk(), 1);
    lab.push("a");
    lab
}

#[test]
fn an_update_over_http_takes_few_requests_and_only_the_parts_that_are_needed() {
    let lab = stored();
    let server = Server::of(&lab.store(), Manner::Good);
    lab.pull("b", &[&server.url]);
    lab.has("b", &disk());
    // Every third group changes: hashes of each are asked for, but not of those between.
    let mut changed = disk();
    for n in (0..48).step_by(3) {
        changed[n * 16 * BLOCK..][..BLOCK].copy_from_slice(&noise(n as u64 + 50, BLOCK));
    }
    lab.image("a", "x", &changed, 2);
    lab.push("a");
    let (requests, bytes) = (server.requests(), server.bytes());
    lab.pull("b", &[&server.url]);
    lab.has("b", &changed);
    assert_eq!(server.requests() - requests, 4);
    let bytes = server.bytes() - bytes;
    assert!(bytes < 16 * BLOCK as u64 + 20_000, "{bytes}");
}

#[test]
fn a_server_without_ranges_does_as_well() {
    let lab = stored();
    let server = Server::of(&lab.store(), Manner::WithoutRanges);
    lab.pull("b", &[&server.url]);
    lab.has("b", &disk());
    let mut changed = disk();
    changed[BLOCK * 100..BLOCK * 101].copy_from_slice(&noise(7, BLOCK));
    lab.image("a", "x", &changed, 2);
    lab.push("a");
    lab.pull("b", &[&server.url]);
    lab.has("b", &changed);
}

#[test]
fn a_line_that_is_cut_again_and_again_is_gone_on_with() {
    let lab = stored();
    let server = Server::of(&lab.store(), Manner::CutAfter(900_000));
    let pulled = lab.pull("b", &[&server.url]);
    lab.has("b", &disk());
    // What was cut within a frame comes twice, and no more than that.
    assert!(pulled.received_bytes < 5_500_000, "{}", pulled.received_bytes);
}

#[test]
fn wrong_bytes_come_from_another_mirror_instead() {
    let lab = stored();
    let (bad, good) = (Server::of(&lab.store(), Manner::Wrong), Server::of(&lab.store(), Manner::Good));
    lab.pull("b", &[&bad.url, &good.url]);
    lab.has("b", &disk());
    let error = format!("{:#}", lab.try_pull("c", &[&bad.url]).unwrap_err());
    assert!(error.contains("unpacking a frame") || error.contains("it gives wrong bytes"), "{error}");
    assert!(!lab.host("c").image(&crate::lab::image("x")).exists());
}

#[test]
fn a_mirror_that_lacks_files_or_is_in_trouble_is_left_for_the_next() {
    let lab = stored();
    let servers = [Manner::Empty, Manner::Broken, Manner::WithoutPacks, Manner::Good]
        .map(|manner| Server::of(&lab.store(), manner));
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    lab.pull("b", &urls);
    lab.has("b", &disk());
    let error = format!("{:#}", lab.try_pull("c", &urls[..1]).unwrap_err());
    assert!(error.contains("there is no such image"), "{error}");
    let error = format!("{:#}", lab.try_pull("c", &urls[2..3]).unwrap_err());
    assert!(error.contains(".pack' is not there"), "{error}");
    let error = format!("{:#}", lab.try_pull("c", &["http://127.0.0.1:1"]).unwrap_err());
    assert!(error.contains("127.0.0.1"), "{error}");
}

/// An ssh that logs in nowhere: its last word is run by a shell here, as a far side's login shell would.
fn ssh_of_its_own(lab: &Lab) -> String {
    let bin = lab.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let text = lab.path("ssh");
    fs::write(&text, "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    // By another process: what this one has open for writing, and with it a child that another test forks, cannot be run.
    assert!(std::process::Command::new("cp").arg(&text).arg(bin.join("ssh")).status().unwrap().success());
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn over_ssh_it_is_pushed_resumed_and_pulled() {
    let lab = Lab::new();
    let path = ssh_of_its_own(&lab);
    lab.image("a", "x", &disk(), 1);
    let url = format!("ssh://host{}/it's a store", lab.path("far").display());
    let gridgate = |host: &str, words: &[&str]| {
        let run = lab.gridgate(host).env("PATH", &path).args(words).output().unwrap();
        assert!(run.status.success(), "{}", said(&run));
        String::from_utf8(run.stdout).unwrap()
    };
    gridgate("a", &["image", "push", "x", &url]);
    gridgate("b", &["image", "pull", "x", &url, "--insecure-unsigned"]);
    lab.has("b", &disk());

    // Half of the next version's pack is there from a push that was cut off.
    let mut changed = disk();
    changed[..BLOCK * 200].copy_from_slice(&noise(7, 200 * BLOCK));
    lab.image("a", "x", &changed, 2);
    let packs = lab.path("far").join("it's a store/packs");
    let before = crate::lab::list(&packs);
    gridgate("a", &["image", "push", "x", &url]);
    let new = crate::lab::list(&packs).into_iter().find(|name| !before.contains(name)).unwrap();
    let whole = fs::read(packs.join(&new)).unwrap();
    fs::write(packs.join(format!("{new}.partial")), &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(packs.join(&new)).unwrap();
    let latest = lab.path("far").join("it's a store/images/x/latest");
    let old = fs::read_dir(latest.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    let old = old.into_iter().find(|path| {
        path.extension().is_some_and(|end| end == "head")
            && fs::read(path).unwrap() != fs::read(&latest).unwrap()
    });
    fs::copy(old.unwrap(), &latest).unwrap();
    gridgate("a", &["image", "push", "x", &url]);
    assert!(fs::read(packs.join(&new)).unwrap() == whole);
    gridgate("b", &["image", "pull", "x", &url, "--insecure-unsigned"]);
    lab.has("b", &changed);
    let run =
        lab.run("b", &["image", "store", "verify", &lab.path("far/it's a store").display().to_string()]);
    assert!(run.status.success(), "{}", said(&run));
}

#[test]
fn what_is_not_there_over_ssh_is_told_of() {
    let lab = Lab::new();
    let path = ssh_of_its_own(&lab);
    let words = ["image", "pull", "x", "ssh://host/nowhere", "--insecure-unsigned"];
    let run = lab.gridgate("b").env("PATH", &path).args(words).output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(said(&run).contains("there is no such image"), "{}", said(&run));
}

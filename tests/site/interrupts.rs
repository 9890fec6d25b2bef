//! Ctrl-C, at any time: what can be taken back is, and the rest is said.

use std::fs;

use rustix::process::Signal;

use crate::support::{TestSite, eventually, name};

#[test]
fn an_interrupt_while_a_disk_is_cloned_undoes_all() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    let dir = site.paths.guest(&name("ce"));
    let begins = || {
        let mut files = fs::read_dir(&dir).ok()?.flatten();
        files.find(|e| e.file_name().to_string_lossy().starts_with(".disk.making-")).map(drop)
    };
    // Who looks too late tries again.
    let ran = eventually("the clone is interrupted", || {
        let up = site.start(&["up"]);
        eventually("the clone begins", || begins().or_else(|| up.is_over().then_some(())));
        up.signal(Signal::INT);
        let ran = up.end();
        if ran.err.contains("interrupted") && ran.status.code() == Some(1) {
            return Some(ran);
        }
        site.run(&["down", "--purge"]).exits(0);
        None
    });
    ran.exits(1).says("interrupted").says("nothing was changed, or all was undone");
    assert!(!site.paths.disk(&name("ce")).exists());
    assert_eq!(site.left(), [""; 0]);
}

#[test]
fn an_interrupt_while_a_guest_boots_leaves_it_running_and_says_so() {
    let Some(site) = TestSite::quick(&["ce"], "ready = [\"console:never\"]") else { return };
    let up = site.start(&["up"]);
    eventually("the guest runs", || site.record("ce").filter(|run| run.is_alive()));
    up.signal(Signal::INT);
    let ran = up.end().exits(5).says("failed: ce: wait until it is ready: interrupted ");
    ran.says("done and kept:\n").says("  ce: start\n").says("gridgate down takes all down");
    let status = site.status("ce");
    assert_eq!((&status["observed"], &status["ready"]), (&"running".into(), &"waiting".into()));
    site.run(&["down"]).exits(0);
    assert_eq!(site.left(), [""; 0]);
}

#[test]
fn an_interrupted_build_of_an_image_ends_its_programs_and_leaves_nothing() {
    let Some(site) = TestSite::quick(&["ce"], "") else { return };
    fs::remove_file(site.paths.images()).unwrap();
    // A fifo as the archive's index: apt waits for a writer that never comes.
    let archive = site.paths.state.join("archive");
    let release = archive.join("dists/bookworm");
    fs::create_dir_all(&release).unwrap();
    nix::unistd::mkfifo(&release.join("InRelease"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let text = format!(
        "name = 'x'\n[debian]\nrelease = 'bookworm'\nmirror = 'copy:{}'\npackages = []\n[filesystem]\nsize = '64M'\n",
        archive.display()
    );
    site.write("images/x.toml", &text);
    let build = site.start(&["image", "build", "x"]);
    eventually("the archive is read", || {
        site.traces()
            .iter()
            .any(|trace| trace.contains("mmdebstrap") && trace.contains("/tree"))
            .then_some(())
    });
    build.signal(Signal::INT);
    build.end().exits(1).says("building image 'x': ").says("interrupted");
    eventually("its programs have ended", || site.traces().is_empty().then_some(()));
    let left: Vec<_> = fs::read_dir(site.paths.images()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [".lock"]);
}

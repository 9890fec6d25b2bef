//! A guest that changes its filesystem while it is edited: only a tree that is shared could be, and nothing gets out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Scene, personalise};

#[test]
fn a_directory_that_is_a_link_every_other_moment_leads_out_at_no_moment() {
    let scene = Scene::new();
    let (guest, stop) = (scene.guest(), AtomicBool::new(false));
    let outside = scene.outside().join("dir");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (ssh, kept) = (guest.join("etc/ssh"), guest.join("etc/ssh.kept"));
            while !stop.load(Ordering::Relaxed) {
                // Any of these may meet a directory that was made in between; the next round finds another state.
                let _ = fs::rename(&ssh, &kept);
                let _ = symlink(&outside, &ssh);
                let _ = fs::remove_file(&ssh);
                let _ = fs::rename(&kept, &ssh);
            }
        });
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(2) || rounds < 20 {
            // Right or an error, as it comes.
            let _ = personalise(&guest);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(scene.outside_is_untouched());
}

#[test]
fn a_file_that_is_a_link_every_other_moment_leads_out_at_no_moment() {
    let scene = Scene::new();
    let (guest, stop) = (scene.guest(), AtomicBool::new(false));
    let victim = scene.outside().join("victim");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let hostname = guest.join("etc/hostname");
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::remove_file(&hostname);
                let _ = symlink(&victim, &hostname);
                let _ = fs::remove_file(&hostname);
                let _ = fs::write(&hostname, "oldname\n");
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let _ = personalise(&guest);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(scene.outside_is_untouched());
}

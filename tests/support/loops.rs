//! Loop devices that a test must not leave behind.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until no loop device is on a file at or below the path. One goes with its last user, and that may be another test's
/// mount namespace, which was made while the device was mounted.
pub fn are_gone_from(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let loops = Command::new("losetup").args(["-l", "-n", "-O", "BACK-FILE"]).output().unwrap();
        let loops = String::from_utf8_lossy(&loops.stdout).into_owned();
        let left: Vec<&str> = loops.lines().filter(|file| Path::new(file.trim()).starts_with(path)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "loop devices are left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

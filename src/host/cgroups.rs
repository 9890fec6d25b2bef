//! Control groups (version 2) where no service manager has them: a group for each guest, `gridgate/ID/GUEST` below where
//! this process may make groups (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where gridgate's groups are.
const OWN: &str = "gridgate";
/// Controllers that limits need.
pub const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Most of the swap that a group may take.
pub const SWAP: &str = "memory.swap.max";

/// The tree of control groups, as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
}

/// A file of a group, without the group, and what is written there.
pub type Setting = (&'static str, String);

impl Tree {
    /// The tree that is mounted here; an error says that there is none.
    pub fn find() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let mounts = fs::read_to_string(path).with_context(|| format!("reading '{path}'"))?;
        let root = mount_point(&mounts).context("no control groups (version 2) are mounted")?;
        Ok(Self { root })
    }

    /// The tree at a directory.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Which of [`CONTROLLERS`] the tree has; those of version 1 hierarchies are not among them.
    pub fn controllers(&self) -> Vec<&'static str> {
        let text = fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
        CONTROLLERS.into_iter().filter(|name| text.split_ascii_whitespace().any(|has| has == *name)).collect()
    }

    /// Makes a guest's group, with those of the controllers that there are, and moves a process into it. There already is
    /// fine. Processes that it starts are born there.
    pub fn enter(&self, id: &str, guest: &str, pid: i32) -> Result<()> {
        const TRIES: usize = 50;
        let group = self.group(id, guest);
        let what = || format!("entering control group '{}'", group.display());
        for left in (0..TRIES).rev() {
            self.make(&group)?;
            match fs::write(group.join("cgroup.procs"), pid.to_string()) {
                Ok(()) => return Ok(()),
                // The group was just swept away, being empty; or it has inner ones, of a run that has only just ended.
                Err(e) if left > 0 && is_passing(&e) => {
                    self.sweep(id);
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => return Err(e).with_context(what),
            }
        }
        bail!("{}: it does not stay", what())
    }

    /// Makes a group, with those of the controllers that there are. There already is fine.
    pub fn make(&self, group: &Path) -> Result<()> {
        fs::create_dir_all(group).with_context(|| format!("making control group '{}'", group.display()))?;
        let on: Vec<String> = self.controllers().iter().map(|name| format!("+{name}")).collect();
        if on.is_empty() {
            return Ok(());
        }
        // From the root downwards: a group has what the one above it hands on.
        let inner = group.ancestors().skip(1).take_while(|above| above.starts_with(&self.root));
        for above in inner.collect::<Vec<_>>().into_iter().rev() {
            let file = above.join("cgroup.subtree_control");
            match fs::write(&file, on.join(" ")) {
                Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => {
                    bail!("'{}' has processes of its own and can hand nothing on", above.display())
                }
                written => {
                    written.with_context(|| format!("writing '{}' to '{}'", on.join(" "), file.display()))?
                }
            }
        }
        Ok(())
    }

    /// A guest's group; it need not be there.
    pub fn group(&self, id: &str, guest: &str) -> PathBuf {
        self.root.join(OWN).join(id).join(guest)
    }

    /// Writes settings of a group. One that it does not have, for want of a controller, is passed over.
    pub fn set(group: &Path, settings: &[Setting]) -> Result<()> {
        for (file, value) in settings {
            let path = group.join(file);
            if !path.exists() {
                continue;
            }
            let written =
                OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(value.as_bytes()));
            written.with_context(|| format!("writing '{value}' to '{}'", path.display()))?;
        }
        Ok(())
    }

    /// The group of a process, and those above it, from the inside out.
    pub fn groups_of(&self, pid: i32) -> Vec<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return Vec::new() };
        let inside = self.root.join(path.trim_start_matches('/'));
        inside.ancestors().take_while(|group| group.starts_with(&self.root)).map(Path::to_owned).collect()
    }

    /// Groups of a site's guests in which nobody is.
    pub fn empty(&self, id: &str) -> Vec<PathBuf> {
        let site = self.root.join(OWN).join(id);
        let entries = fs::read_dir(&site).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.path()).filter(|group| is_empty(group)).collect()
    }

    /// Removes the site's empty groups, and what only held them. A group that somebody has entered meanwhile stays.
    pub fn sweep(&self, id: &str) {
        for group in self.empty(id) {
            remove_all(&group);
        }
        // Refused as long as something is in them.
        let _ = fs::remove_dir(self.root.join(OWN).join(id));
        let _ = fs::remove_dir(self.root.join(OWN));
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    use nix::libc::{EBUSY, ENODEV, ENOENT};
    matches!(error.raw_os_error(), Some(EBUSY | ENODEV | ENOENT))
}

/// `populated` counts the groups below, too.
fn is_empty(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 0")
}

/// Groups can only be removed from the inside out, and each only while nobody is in it; their files go with them.
fn remove_all(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_all(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Where version 2 is mounted (proc_pid_mountinfo(5)); the last mount is the one on top.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let lines = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let mounts = lines.filter(|(_, kind)| kind.split(' ').next() == Some("cgroup2"));
    mounts.filter_map(|(mount, _)| mount.split(' ').nth(4)).map(PathBuf::from).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tree_is_found_beside_those_of_version_1() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                    31 25 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(text), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("30 25 0:26 / /x rw - tmpfs tmpfs rw"), None);
    }

    #[test]
    fn a_group_is_made_with_the_controllers_that_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path().to_owned());
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
        tree.enter("01", "ce", 7).unwrap();
        fs::write(dir.path().join("gridgate/01/ce/cpu.max"), "").unwrap();
        Tree::set(&tree.group("01", "ce"), &[("cpu.max", "50000 100000".to_owned()), (SWAP, "0".to_owned())])
            .unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(tree.controllers(), ["cpu", "memory"]);
        for above in ["", "gridgate/", "gridgate/01/"] {
            assert_eq!(read(&format!("{above}cgroup.subtree_control")), "+cpu +memory");
        }
        assert_eq!(read("gridgate/01/ce/cgroup.procs"), "7");
        assert_eq!(read("gridgate/01/ce/cpu.max"), "50000 100000");
    }

    /// On any machine with control groups, even without a controller among them.
    #[test]
    fn a_process_enters_its_group_and_the_group_is_swept_when_it_has_ended() {
        let Ok(tree) = Tree::find() else {
            eprintln!("skipped: no control groups (version 2) are mounted");
            return;
        };
        let id = format!("test{}", std::process::id());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let entered = tree.enter(&id, "ce", pid);
        let group = tree.group(&id, "ce");
        let inside = tree.groups_of(pid).first() == Some(&group);
        tree.sweep(&id);
        let kept = group.is_dir();
        child.kill().unwrap();
        child.wait().unwrap();
        tree.sweep(&id);
        if let Err(why) = entered {
            eprintln!("skipped: this machine lets nobody make control groups: {why:#}");
            return;
        }
        assert!(inside && kept, "{inside} {kept}");
        assert!(!group.exists() && !tree.root.join(OWN).join(&id).exists());
    }

    proptest! {
        #[test]
        fn any_mountinfo_is_read(text in "([ -~]{0,40}\n){0,4}") {
            let _ = mount_point(&text);
        }
    }
}

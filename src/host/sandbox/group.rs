//! A control group for the processes of a sandbox, where there is one to be had: version 2 where its controllers are free,
//! else version 1 (cgroups(7)).

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::host::cgroups::Tree;

/// A group in each hierarchy that is needed; removed with this value.
#[derive(Debug)]
pub(super) struct Group {
    dirs: Vec<PathBuf>,
    /// Who writes `0` there is in the group.
    pub(super) entrances: Vec<File>,
    /// Whether memory is limited by it.
    pub(super) limits_memory: bool,
}

/// Tells this process's sandboxes apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Hierarchies of version 1, as every distribution mounts them.
const V1: &str = "/sys/fs/cgroup";

impl Group {
    /// A group with these limits; `None` where none can be made, which is so for a process without rights to.
    pub(super) fn make(memory_bytes: u64, processes: u32) -> Option<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gridgate-sandbox-{}-{number}", std::process::id());
        let (memory, processes) = (memory_bytes.to_string(), processes.to_string());
        let tree = Tree::find().ok();
        let has = |wanted: &str| tree.as_ref().is_some_and(|tree| tree.controllers().contains(&wanted));
        let mut group = Self { dirs: Vec::new(), entrances: Vec::new(), limits_memory: false };
        if let (Some(tree), true) = (&tree, has("pids") || has("memory")) {
            let dir = tree.group("sandbox", &name);
            // Where another program owns the tree there is nothing to be had.
            tree.make(&dir).ok()?;
            let settings =
                [("memory.max", memory.as_str()), ("memory.swap.max", "0"), ("pids.max", processes.as_str())];
            group.limits_memory = group.add(&dir, &settings, "memory.max");
        } else {
            group.add(
                &Path::new(V1).join("pids").join(&name),
                &[("pids.max", processes.as_str())],
                "pids.max",
            );
            let limit = "memory.limit_in_bytes";
            let dir = Path::new(V1).join("memory").join(&name);
            group.limits_memory = group.add(&dir, &[(limit, memory.as_str())], limit);
        }
        (!group.entrances.is_empty()).then_some(group)
    }

    /// Whether the group was made and has the file that matters.
    fn add(&mut self, dir: &Path, settings: &[(&str, &str)], needed: &str) -> bool {
        if !dir.is_dir() && std::fs::create_dir(dir).is_err() {
            return false;
        }
        self.dirs.push(dir.to_owned());
        let mut held = false;
        for (file, value) in settings {
            held |= std::fs::write(dir.join(file), value).is_ok() && *file == needed;
        }
        let entrance = OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        self.entrances.extend(entrance.ok());
        held
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(1);
        for dir in &self.dirs {
            // Its processes are dead, but the kernel takes a moment to forget them.
            while std::fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_micros(500));
            }
            // Those above it that were made for it; refused as long as somebody else is in them.
            if let Some(above) = dir.parent().filter(|above| above.ends_with("gridgate/sandbox")) {
                let _ = std::fs::remove_dir(above);
                let _ = above.parent().map(std::fs::remove_dir);
            }
        }
    }
}

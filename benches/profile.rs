//! A guest's profile compiled into a golden image's copy, and a program of the guest in the sandbox against the same one under
//! chroot(8). The image is in the page cache.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gridgate::config::site::Site;
use gridgate::config::{self, LoadOptions, example};
use gridgate::host::Live;
use gridgate::host::filesystem::{Filesystems, Shape};
use gridgate::host::root::Root;
use gridgate::host::sandbox::Sandbox;
use gridgate::profile::{self, compile};
use table::{Target, median, row};

const ROUNDS: usize = 15;

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: compiling into a disk needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let dir = table::scratch();
    let site = site(dir.path());
    let disk = dir.path().join("disk");
    let image = prepared.join("images/debian-12/disk.ext4");
    let copied = Command::new("cp").arg("--sparse=always").arg(image).arg(&disk).status();
    assert!(copied.unwrap().success());
    table::heading("a guest's profile (computing element, shipped)");
    documents(&site);
    compiled(&site, &disk);
    sandboxed(dir.path());
}

fn site(dir: &Path) -> Site {
    let dir = dir.join("site");
    std::fs::create_dir_all(dir.join("guests")).unwrap();
    for (name, text) in example::files(example::Format::Toml) {
        std::fs::write(dir.join(name), text).unwrap();
    }
    config::load(&dir, &LoadOptions::default()).unwrap().site
}

/// From the site's files to the document of each of its four guests, which is what planning waits for.
fn documents(site: &Site) {
    let times: Vec<f64> = (0..ROUNDS).map(|_| table::time(|| drop(profile::digests(site)))).collect();
    row("documents of a site with four guests", "ms", median(times), None, Target::AtMost(60.0));
}

/// What compiling adds to opening and closing the disk: once into a disk that has none, and again where all is as it should be.
fn compiled(site: &Site, disk: &Path) {
    let document = profile::document(site, &site.guests[0]).unwrap();
    let edit = |work: &mut dyn FnMut(&Root)| {
        table::time(|| {
            let edit = &mut |root: &Root, _| {
                work(root);
                Ok(())
            };
            Live.edit_disk(disk, Shape::default(), edit).unwrap();
        })
    };
    let clean = |root: &Root| {
        root.remove_tree(Path::new("/var/lib/gridgate")).unwrap();
        for path in ["/etc/arc.conf", "/etc/slurm", "/etc/grid-security", "/etc/gridgate", "/srv/arc"] {
            root.remove_tree(Path::new(path)).unwrap();
        }
    };
    let (mut bare, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        edit(&mut |root| clean(root));
        bare.push(edit(&mut |_| ()));
        first.push(edit(&mut |root| drop(compile::into(root, &document).unwrap())));
        again.push(edit(&mut |root| drop(compile::into(root, &document).unwrap())));
    }
    let bare = median(bare);
    row(
        "compiled for the first time, against bare mount",
        "ms",
        median(first),
        Some(bare),
        Target::Over(60.0),
    );
    row("compiled again, against bare mount", "ms", median(again), Some(bare), Target::Over(60.0));
}

/// The same program, `/bin/true`, in turn under chroot(8) and in the sandbox. The tree is this machine's own root, which neither
/// changes.
fn sandboxed(dir: &Path) {
    let tree = dir.join("tree");
    for sub in ["bin", "dev", "proc", "tmp"] {
        std::fs::create_dir_all(tree.join(sub)).unwrap();
    }
    std::fs::copy("/bin/true", tree.join("bin/true")).unwrap();
    let linked = Command::new("ldd").arg("/bin/true").output().unwrap();
    for library in
        String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let inside = tree.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
        std::fs::copy(library, inside).unwrap();
    }
    let root = Root::open(&tree).unwrap();
    let sandbox = Sandbox {
        command: vec!["/bin/true".to_owned()],
        env: Vec::new(),
        writable: None,
        network: false,
        memory_bytes: 256 << 20,
        processes: 64,
        time: Duration::from_secs(60),
    };
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..4 * ROUNDS {
        theirs.push(table::time(|| {
            let mut chroot = Command::new("chroot");
            let status = chroot.arg(&tree).arg("/bin/true").stdin(Stdio::null()).status().unwrap();
            assert!(status.success());
        }));
        ours.push(table::time(|| assert_eq!(sandbox.run(&root).unwrap().status, 0)));
    }
    row(
        "a program in the sandbox, against chroot",
        "ms",
        median(ours),
        Some(median(theirs)),
        Target::Over(15.0),
    );
}

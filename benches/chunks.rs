//! What goes over the line for the next version of an image, and what it costs: a Debian filesystem of 2 GiB with 300 MB in it,
//! of which 3 % of the files change, once in place and once in a filesystem that is made anew. Against casync with chunks of
//! 64 KiB, and against delta encoders, which need both versions on one side.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::fs;
use std::path::Path;
use std::process::Command;

use gridgate::chunks::mirrors::Mirrors;
use gridgate::chunks::place::Dir;
use gridgate::chunks::{blocks, pull, push};
use gridgate::host::Live;
use gridgate::image::manifest::Manifest;
use gridgate::paths::Paths;
use gridgate::progress::Progress;
use gridgate::signature::Policy;
use nix::sys::resource::{UsageWho, getrusage};
use table::{Target, row};

const MB: f64 = 1e6;

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: filesystems are mounted, which needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let dir = table::scratch();
    let at = |name: &str| dir.path().join(name);
    let golden = prepared.join("images/debian-12");
    disks(&golden.join("disk.ext4"), dir.path());

    table::heading("the next version of an image (2 GiB ext4, 300 MB used, 3 % of files changed)");
    let file = fs::File::open(at("one")).unwrap();
    let index = cpu(UsageWho::RUSAGE_SELF, || {
        blocks::scan(&file, 2 << 30, &mut |_| ()).unwrap();
    });
    let casync_index = casync(dir.path(), "one").1;
    row("hashes of all blocks / casync make", "CPU s", index, Some(casync_index), Target::AtMost(0.6));
    let (full, cost) = ours(dir.path(), &golden, "one");
    row("first push, and pull by an empty host", "MB", full / MB, None, Target::None);
    row("  CPU of both", "CPU s", cost, None, Target::None);
    for (disk, what, most) in [("two", "changed in place", 4.5), ("three", "filesystem made anew", 6.6)] {
        let (sent, cost) = ours(dir.path(), &golden, disk);
        let (casync_sent, casync_cost) = casync(dir.path(), disk);
        row(&format!("{what}: sent / casync"), "MB", sent / MB, Some(casync_sent / MB), Target::AtMost(most));
        row("  CPU of push and pull / casync make", "CPU s", cost, Some(casync_cost), Target::None);
        let delta = at("delta");
        let (one, next) = (at("one"), at(disk));
        let xdelta = |level: &str| {
            let mut command = Command::new("xdelta3");
            command.args(["-e", "-f", level, "-s"]).args([&one, &next, &delta]);
            command
        };
        peer("  xdelta3 -3, both versions at hand", &mut xdelta("-3"), &delta, sent);
        let mut rsync = Command::new("rsync");
        rsync
            .arg("--inplace")
            .arg("--no-whole-file")
            .arg("--compress")
            .arg(format!("--only-write-batch={}", delta.display()));
        peer("  rsync -z, as a batch", rsync.args([&next, &one]), &delta, sent);
        // The next case begins with the first version here again.
        let _ = fs::remove_dir_all(at("there"));
        let _ = fs::remove_dir_all(at("store"));
        if disk == "two" {
            ours(dir.path(), &golden, "one");
            fs::remove_dir_all(at("casync")).unwrap();
            casync(dir.path(), "one");
        }
    }
}

/// `one`, `two` with files changed in place, and `three` made anew of the changed tree.
fn disks(from: &Path, dir: &Path) {
    let script = r#"
        mkdir at tree
        mount -o loop,ro,noload "$1" at && cp -a at/. tree/ && umount at
        make() { mke2fs -q -F -t ext4 -U 196ae12b-a910-8080-b9a4-5081a56658ac -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -d tree "$1" 2G >/dev/null
                 fallocate --dig-holes "$1"; }
        change() { find "$1" -xdev -type f -printf '%P\n' | LC_ALL=C sort | sed -n '7~33p' | while read -r f; do
                   LC_ALL=C tr et te <"$1/$f" >new && cat new >"$1/$f"; done; rm new; }
        make one
        cp --sparse=always one two && mount -o loop two at && change at && umount at && fallocate --dig-holes two
        change tree
        # As in a newer package, they are longer too: all that lies behind them moves.
        find tree -xdev -type f -printf '%P\n' | LC_ALL=C sort | sed -n '7~33p' | while read -r f; do
            head -c 5000 "tree/$f" >new; cat new >>"tree/$f"; done; rm new
        make three
    "#;
    let made =
        Command::new("bash").args(["-euc", script, "bash"]).arg(from).current_dir(dir).status().unwrap();
    assert!(made.success());
}

/// Pushes that disk as the next version of an image, and pulls it to a host that has the version before. Bytes that came, and
/// processor seconds of both.
fn ours(dir: &Path, golden: &Path, disk: &str) -> (f64, f64) {
    let here = Paths::new(&dir.join("here"), &dir.join("here"));
    let there = Paths::new(&dir.join("there"), &dir.join("there"));
    let name = "debian-12".parse().unwrap();
    let image = here.image(&name);
    let _ = fs::remove_dir_all(&image);
    fs::create_dir_all(&image).unwrap();
    let mut manifest = Manifest::parse(&fs::read(golden.join("manifest.json")).unwrap()).unwrap();
    (manifest.kernel, manifest.initrd) = (None, None);
    let link = image.join("disk.ext4");
    assert!(
        Command::new("cp")
            .args(["--sparse=always", "--"])
            .args([&dir.join(disk), &link])
            .status()
            .unwrap()
            .success()
    );
    manifest.disk.size_bytes = fs::metadata(&link).unwrap().len();
    manifest.disk.blake3 = gridgate::image::store::blake3_of(&link, &Progress::silent()).unwrap();
    fs::write(image.join("manifest.json"), manifest.print().unwrap()).unwrap();
    let progress = Progress::silent();
    let store = dir.join("store");
    let mut received = 0;
    let cost = cpu(UsageWho::RUSAGE_SELF, || {
        push::push(&Live, &here, &name, &Dir::new(&store), None, &progress).unwrap();
        let mirrors = Mirrors::new(vec![Box::new(Dir::new(&store))], &progress);
        let request = pull::Request { name: &name, policy: Policy::Unsigned, seeds: &[], older: false };
        received = pull::pull(&Live, &there, &request, &mirrors, &progress).unwrap().received_bytes;
    });
    (received as f64, cost)
}

/// Index and new chunks of that disk, and processor seconds; nothing where casync is not installed.
fn casync(dir: &Path, disk: &str) -> (f64, f64) {
    let store = dir.join("casync");
    let before = size(&store);
    let index = dir.join(format!("{disk}.caibx"));
    let mut command = Command::new("casync");
    command.arg("make").arg(format!("--store={}", store.display())).args([&index, &dir.join(disk)]);
    let cost = cpu(UsageWho::RUSAGE_CHILDREN, || {
        if command.output().is_err() {
            eprintln!("not compared: casync is not installed");
        }
    });
    (size(&store) - before + size(&index), cost)
}

fn peer(what: &str, command: &mut Command, made: &Path, ours: f64) {
    let _ = fs::remove_file(made);
    let cost = cpu(UsageWho::RUSAGE_CHILDREN, || {
        let _ = command.output();
    });
    if made.exists() {
        row(&format!("{what}, {cost:.1} CPU s"), "MB", ours / MB, Some(size(made) / MB), Target::None);
    } else {
        eprintln!("not compared: {what}");
    }
}

fn size(path: &Path) -> f64 {
    let files = walkdir::WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.metadata().unwrap().len() as f64).sum()
}

fn cpu(who: UsageWho, work: impl FnOnce()) -> f64 {
    let used = || {
        let usage = getrusage(who).unwrap();
        let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    let before = used();
    work();
    used() - before
}

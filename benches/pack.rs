//! A golden image's tree packed into one file, against what else packs trees and disks, in the same run: wall time, processor time, size.
//! The tree is in the page cache, and what is written goes to a file.
#![allow(clippy::unwrap_used, reason = "a measurement that meets the unexpected should stop where it stands")]

mod table;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use table::{Target, median, row};

/// Rounds in which all of them run, one after the other, so that whatever else the machine does meets all of them.
const ROUNDS: usize = 3;
/// Rounds of the pair whose wall times are compared.
const PAIRS: usize = 9;

/// What one way of packing takes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_ms: f64,
    cpu_ms: f64,
    megabytes: f64,
    memory_mib: f64,
}

const FAST: &str = "tar | zstd -3 -T0";
/// Peers that read the tree at `$T`, as we do, the device that is mounted there, `$D`, or the file behind it, `$I`, and write to `$O`.
const PEERS: [(&str, &str); 12] = [
    (FAST, "tar --xattrs --acls -C $T -c . | zstd -q -3 -T0 > $O"),
    ("tar | zstd -9", "tar --xattrs --acls -C $T -c . | zstd -q -9 > $O"),
    ("tar | zstd -9 -T0", "tar --xattrs --acls -C $T -c . | zstd -q -9 -T0 > $O"),
    ("tar | pigz", "command -v pigz && tar --xattrs --acls -C $T -c . | pigz > $O"),
    ("dump | zstd -3 -T0", "dump -0 -f - $D | zstd -q -3 -T0 > $O"),
    ("fsarchiver", "fsarchiver -o -j2 savefs $O.fsa $D && mv $O.fsa $O"),
    ("mksquashfs", "mksquashfs $T $O -noappend -quiet -no-progress"),
    ("mksquashfs -comp zstd", "mksquashfs $T $O -noappend -quiet -no-progress -comp zstd"),
    ("qemu-img convert -c", "qemu-img convert -c -f raw -O qcow2 $D $O"),
    ("qemu-img convert -c, zstd", "qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd $D $O"),
    (
        "casync",
        "casync make --store=$O.castr $O.caidx $T && du -sb $O.castr | cut -f1 | xargs -I{} truncate -s {} $O",
    ),
    ("bmaptool create, zstd -3 -T0", "bmaptool create -o $O.bmap $I && zstd -q -3 -T0 -c $I > $O"),
];

fn main() {
    if !table::asked_for() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: mounting the tree for the peers needs root");
    }
    let Some(prepared) = table::prepared() else { return };
    let dir = table::scratch();
    let (disk, tree, output) =
        (dir.path().join("disk.ext4"), dir.path().join("tree"), dir.path().join("out"));
    let image = prepared.join("images/debian-12/disk.ext4");
    assert!(Command::new("cp").arg("--sparse=always").arg(image).arg(&disk).status().unwrap().success());
    std::fs::create_dir(&tree).unwrap();
    table::own_mounts();
    assert!(Command::new("mount").args(["-o", "loop,ro"]).arg(&disk).arg(&tree).status().unwrap().success());
    let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&tree).output().unwrap().stdout;
    let device = PathBuf::from(String::from_utf8(device).unwrap().trim());

    let ours =
        |options: &str| format!("{} -q image pack --tree $T {options} -o $O", env!("CARGO_BIN_EXE_gridgate"));
    let mut ways: Vec<Way> = [("", ours("")), ("", ours("--fast")), ("", ours("--gzip"))]
        .into_iter()
        .chain(PEERS.map(|(name, command)| (name, command.to_owned())))
        .map(|(name, command)| Way { name, command, costs: Some(Vec::new()) })
        .collect();
    for round in 0..PAIRS {
        for way in &mut ways {
            let is_of_pair = way.name == FAST || way.command.contains("--fast");
            if round < ROUNDS || is_of_pair {
                way.run(&[("D", &device), ("I", &disk), ("T", &tree), ("O", &output)]);
            }
        }
    }
    let [usual, fast, gzip, peers @ ..] = &ways[..] else { return };
    let [usual, fast, gzip] = [usual, fast, gzip].map(|way| way.middle().expect("it packs"));
    table::heading("a Debian tree into one file");
    for peer in peers {
        let name = peer.name;
        let Some(peer) = peer.middle() else {
            println!("{:<46} does not work here", format!("pack / {name}"));
            continue;
        };
        row(&format!("size / {name}"), "MB", usual.megabytes, Some(peer.megabytes), Target::Ratio(1.0));
        let (cpu, wall) = match name {
            "tar | zstd -9" => (Target::Ratio(1.0), Target::None),
            _ => (Target::None, Target::None),
        };
        row(&format!("processor time / {name}"), "ms", usual.cpu_ms, Some(peer.cpu_ms), cpu);
        row(&format!("time / {name}"), "ms", usual.wall_ms, Some(peer.wall_ms), wall);
        if name == FAST {
            row(
                &format!("--fast: size / {name}"),
                "MB",
                fast.megabytes,
                Some(peer.megabytes),
                Target::Ratio(1.0),
            );
            row(
                &format!("--fast: time / {name}"),
                "ms",
                fast.wall_ms,
                Some(peer.wall_ms),
                Target::Ratio(1.0),
            );
        }
        if name == "tar | pigz" {
            row(&format!("--gzip: size / {name}"), "MB", gzip.megabytes, Some(peer.megabytes), Target::None);
            row(&format!("--gzip: time / {name}"), "ms", gzip.wall_ms, Some(peer.wall_ms), Target::None);
        }
    }
    for (what, cost) in [("memory", usual), ("memory, --fast", fast), ("memory, --gzip", gzip)] {
        row(what, "MiB", cost.memory_mib, None, Target::AtMost(200.0));
    }
    assert!(Command::new("umount").arg(&tree).status().unwrap().success());
}

/// A way of packing, and what it took in each round; `None` where the command is not there or fails.
struct Way {
    name: &'static str,
    command: String,
    costs: Option<Vec<Cost>>,
}

impl Way {
    fn run(&mut self, places: &[(&str, &PathBuf)]) {
        if let Some(costs) = &mut self.costs {
            match cost(&self.command, places) {
                Some(cost) => costs.push(cost),
                None => self.costs = None,
            }
        }
    }

    /// The middle of its rounds, each number by itself.
    fn middle(&self) -> Option<Cost> {
        let costs = self.costs.as_ref()?;
        let of = |number: fn(&Cost) -> f64| median(costs.iter().map(number).collect());
        Some(Cost {
            wall_ms: of(|cost| cost.wall_ms),
            cpu_ms: of(|cost| cost.cpu_ms),
            megabytes: of(|cost| cost.megabytes),
            memory_mib: of(|cost| cost.memory_mib),
        })
    }
}

/// One round of a command that finds the places in its environment.
fn cost(command: &str, places: &[(&str, &PathBuf)]) -> Option<Cost> {
    let (_, output) = places.iter().find(|(name, _)| *name == "O")?;
    let _ = std::fs::remove_file(output);
    let _ = std::fs::remove_dir_all(output.with_extension("castr"));
    let usage = output.with_extension("usage");
    let mut timed = Command::new("bash");
    // What the kernel counts for a child and all of its children.
    timed.args(["-c", "/usr/bin/env time -f '%e %U %S %M' -o \"$U\" bash -o pipefail -c \"$C\""]);
    timed.env("C", command).env("U", &usage).envs(places.iter().copied());
    timed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !timed.status().unwrap().success() {
        return None;
    }
    let told = std::fs::read_to_string(&usage).unwrap();
    let numbers: Vec<f64> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Some(Cost {
        wall_ms: numbers[0] * 1000.0,
        cpu_ms: (numbers[1] + numbers[2]) * 1000.0,
        megabytes: std::fs::metadata(output).ok()?.len() as f64 / 1e6,
        memory_mib: numbers[3] / 1024.0,
    })
}

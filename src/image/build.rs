//! `gridgate image build`: a definition becomes an image.
//!
//! All work is done in a directory whose name tells who works there; the last step gives it the image's name. A build
//! that is killed at any point leaves such a directory and nothing else; the next build, or `gc`, removes it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::definition::{Debian, Definition, Origin, Rpm};
use super::kernel::newest;
use super::manifest::{self, Manifest};
use super::staging::{self, About};
use super::{packages, records, rpm, sources, store, times, tree};
use crate::host::Host;
use crate::host::programs::Program;
use crate::host::root::Root;
use crate::names::Bytes;
use crate::paths::Paths;
use crate::progress::Progress;

/// Whether there was something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Built {
    /// The image is what its definition says.
    UpToDate(Manifest),
    /// It was made.
    New(Manifest),
}

/// When an image is built though one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// If it is not what its definition says, or damaged.
    Changed,
    /// Always.
    Always,
}

/// Programs and the Debian packages that they are in.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("mke2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("fallocate", "util-linux"),
];

/// What the unpacked packages of a small system take besides the filesystem made of them; a guess from Debian 12, whose
/// tree has 320 MB and whose package files have 80 MB while they are there.
const SPACE_FOR_TREE: u64 = 700 << 20;

/// What apt says of a signature whose key it does not have (apt-secure(8)); a release has several, and one known key is
/// enough. Debian 13 is signed with a key of Debian 12 too.
const UNKNOWN_KEY: &str = "NO_PUBKEY";

/// Builds the image, or finds that it is up to date. One build at a time: a second one is refused. An image that is
/// there stays in place, whole, until the new one takes its name.
pub fn build(
    host: &dyn Host,
    paths: &Paths,
    definition: &Definition,
    when: When,
    progress: &Progress,
) -> Result<Built> {
    let name = &definition.name;
    let digest = definition.digest()?;
    if when == When::Changed
        && let Ok(golden) = store::open(host, paths, name)
        && golden.manifest.definition_digest == digest
    {
        return Ok(Built::UpToDate(golden.manifest));
    }
    check(host, paths, definition)?;
    times::said()?;
    let started = Instant::now();
    let manifest = staging::publish(host, paths, name, "building", progress, |dir, out| {
        make(host, dir, out, definition, &digest, progress)
    })?;
    progress.say(&format!("image '{name}' is built, in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(Built::New(manifest))
}

fn check(host: &dyn Host, paths: &Paths, definition: &Definition) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "building an image needs root: its files belong to many users; hint: sudo gridgate image build"
        );
    }
    // The first installs, the second reads what is installed.
    let own: &[(&str, &str)] = match definition.origin()? {
        Origin::Debian(_) => &[("mmdebstrap", "mmdebstrap")],
        Origin::Rpm(_) => &[("dnf", "dnf"), ("rpm", "rpm")],
    };
    let missing: Vec<(&str, &str)> = own
        .iter()
        .copied()
        .chain(PROGRAMS)
        .filter(|(program, _)| host.find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!("missing: {}; hint: apt install {}", programs.join(", "), packages.join(" "));
    }
    let needed = definition.filesystem.size.0 + SPACE_FOR_TREE;
    let free = host.free_bytes(&paths.images())?;
    if free < needed {
        let at = paths.images();
        bail!("building needs {} in '{}', only {} are free", Bytes(needed), at.display(), Bytes(free));
    }
    Ok(())
}

fn make(
    host: &dyn Host,
    dir: &Path,
    out: &Path,
    definition: &Definition,
    digest: &str,
    progress: &Progress,
) -> Result<Manifest> {
    let root = dir.join("tree");
    let started = staging::now();
    let packages = match definition.origin()? {
        Origin::Debian(debian) => {
            let told = unpack_debian(host, dir, debian, &root, progress)?;
            progress.say("making the tree as its definition says");
            tree::customise(host, definition, &root)?;
            packages::with_digests(&tree::packages(host, &root)?, &told)
        }
        Origin::Rpm(from) => {
            unpack_rpm(host, dir, from, &root, progress)?;
            progress.say("making the tree as its definition says");
            tree::customise(host, definition, &root)?;
            records::read(host, &Root::open(&root)?, dir)?.0
        }
    };
    if !definition.bootable {
        take_kernel(host, &root.join("boot"), out)?;
    }

    let latest = times::clamp(host, &root, started)?;

    progress.say("making the filesystem");
    let disk = out.join(manifest::DISK);
    let uuid = uuid_of(digest);
    let made = dir.join(manifest::DISK);
    make_filesystem(host, definition, &root, &made, &uuid, latest)?;
    // mke2fs zeroes tables in a way that keeps their blocks taken; a copy of the data alone gives them back.
    host.clone_file(&made, &disk, definition.filesystem.size.0, progress)?;
    // dnf would make records in the home directory of whoever asks.
    let installer = Program::new(if definition.rpm.is_some() { "dnf" } else { "mmdebstrap" });
    let installer = installer.arg("--version").env("HOME", &dir.to_string_lossy());
    let about = About {
        definition_digest: digest.to_owned(),
        uuid,
        packages,
        tools: vec![version(host, installer), version(host, Program::new("mke2fs").arg("-V"))],
        ..About::default()
    };
    staging::finish(host, out, &definition.name, about, progress)
}

/// Debian's packages into the tree; what apt tells of them.
fn unpack_debian(
    host: &dyn Host,
    dir: &Path,
    debian: &Debian,
    root: &Path,
    progress: &Progress,
) -> Result<String> {
    let release = debian.release.as_str();
    let list = match &debian.mirror {
        Some(uri) => sources::mirror(uri, release),
        None => sources::for_release(host, Path::new("/etc/apt"), release)?,
    };
    let list_file = dir.join("debian.sources");
    host.write(&list_file, list.as_bytes(), 0o644)?;

    let count = debian.packages.len();
    progress.say(&format!("installing {count} packages and what they need, from Debian {release}"));
    let mut unknown_key = false;
    let told = dir.join("packages");
    let unpacked = host.run_watched(&tree::bootstrap(debian, &list_file, root, &told), &mut |line| {
        unknown_key |= line.contains(UNKNOWN_KEY);
        progress.tick(line.trim_start_matches("I: "));
        progress.detail(line);
    });
    unpacked.with_context(|| match unknown_key {
        true => format!(
            "checking who signed Debian {release}: this machine knows none of the keys; hint: apt-get update && apt-get \
             install debian-archive-keyring, or a newer one from {release} itself"
        ),
        false => format!("installing packages of Debian {release}"),
    })?;
    let told = host.read(&told)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// RPM packages into the tree.
fn unpack_rpm(host: &dyn Host, dir: &Path, from: &Rpm, root: &Path, progress: &Progress) -> Result<()> {
    let (count, release) = (from.packages.len(), from.release.as_str());
    progress.say(&format!("installing {count} packages and what they need, of release {release}"));
    host.make_dir(root, 0o755)?;
    let unpacked = host.run_watched(&rpm::bootstrap(host, from, dir, root)?, &mut |line| {
        progress.tick(line);
        progress.detail(line);
    });
    unpacked.with_context(|| format!("installing packages of release {release}"))?;
    rpm::clean(host, root)
}

/// Moves the newest kernel and the initial ram disk of its version out of the tree and makes them readable for all, as kernels of a
/// user's QEMU must be. A symbolic link is not followed.
fn take_kernel(host: &dyn Host, boot: &Path, out: &Path) -> Result<()> {
    let names = host.list(boot)?;
    let Some((kernel, initrd)) = newest(&names) else { return Ok(()) };
    for (name, to) in [(Some(kernel), manifest::KERNEL), (initrd, manifest::INITRD)] {
        let Some(from) = name.map(|name| boot.join(name)) else { continue };
        let to = out.join(to);
        host.run(&Program::new("cp").args(["--no-dereference", "--no-preserve=all"]).arg(&from).arg(&to))?;
        host.remove(&from)?;
        match std::fs::symlink_metadata(&to) {
            Ok(meta) if meta.is_file() => {}
            _ => bail!("'{}' is not a regular file", from.display()),
        }
    }
    Ok(())
}

fn make_filesystem(
    host: &dyn Host,
    definition: &Definition,
    tree: &Path,
    disk: &Path,
    uuid: &str,
    latest: u64,
) -> Result<()> {
    let filesystem = &definition.filesystem;
    // All of it is written now: tables that are filled in lazily would be filled in by every clone, in its first boot.
    let mut options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard".to_owned();
    options.push_str(&format!(",hash_seed={uuid}"));
    let mut program = times::at(Program::new("mke2fs"), latest)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-U", uuid, "-E", &options])
        .arg("-d")
        .arg(tree);
    if !filesystem.features.is_empty() {
        let features: Vec<&str> = filesystem.features.iter().map(|f| f.as_str()).collect();
        program = program.args(["-O", &features.join(",")]);
    }
    if !filesystem.label.as_str().is_empty() {
        program = program.args(["-L", filesystem.label.as_str()]);
    }
    let kib = format!("{}k", filesystem.size.0 >> 10);
    host.run(&program.arg(disk).arg(kib).killed_on_interrupt()).with_context(|| {
        match crate::progress::interrupted() {
            true => "making the filesystem",
            false => "making the filesystem; hint: a larger 'size' under [filesystem]",
        }
    })?;
    times::settle(host, disk, latest)?;
    let check = Program::new("e2fsck").args(["-f", "-n"]).arg(disk).killed_on_interrupt();
    host.run(&check).context("checking the filesystem")?;
    // Tables of a new filesystem are mostly zeros: as holes they need not be copied for each clone.
    host.run(&Program::new("fallocate").arg("--dig-holes").arg(disk).killed_on_interrupt()).map(drop)
}

/// A UUID that belongs to the definition: the same definition gives the same one (RFC 9562, version 8).
fn uuid_of(digest: &str) -> String {
    let hash = blake3::hash(digest.as_bytes());
    let mut b: [u8; 16] = [0; 16];
    b.copy_from_slice(&hash.as_bytes()[..16]);
    b[6] = b[6] & 0x0f | 0x80;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The first line that the program says of itself, on whichever stream.
fn version(host: &dyn Host, program: Program) -> String {
    let name = program.name.clone();
    let ran = host.run_any(&program).unwrap_or_default();
    let text = [ran.stdout, ran.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(&name).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_definition_has_one_uuid() {
        assert_eq!(uuid_of("a"), uuid_of("a"));
        assert_ne!(uuid_of("a"), uuid_of("b"));
        assert_eq!(uuid_of("a").len(), 36);
        assert_eq!(&uuid_of("a")[14..15], "8");
    }
}

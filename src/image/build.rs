//! `gridgate image build`: a definition becomes an image.
//!
//! All work is done in a directory whose name tells who works there; the last step gives it the image's name. A build
//! that is killed at any point leaves such a directory and nothing else; the next build, or `gc`, removes it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::definition::Definition;
use super::manifest::{self, Disk, Manifest, Part};
use super::{sources, store, tree};
use crate::host::Host;
use crate::host::programs::Program;
use crate::host::temporary::Maker;
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
pub const PROGRAMS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
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
    host.make_dir(&paths.images(), 0o755)?;
    let _lock = host.lock(&paths.images().join(".lock"), Duration::ZERO)?;
    for path in store::leftovers(host, paths)? {
        progress.detail(&format!("removing '{}', left by a build that was killed", path.display()));
        host.remove(&path)?;
    }
    let started = Instant::now();
    let dir = paths.images().join(Maker::this().name(name.as_str()));
    let made = make(host, &dir, definition, &digest, progress)
        .and_then(|manifest| host.publish_dir(&dir.join(OUT), &paths.image(name)).map(|()| manifest));
    let removed = host.remove(&dir);
    let manifest = made.with_context(|| format!("building image '{name}'"))?;
    removed?;
    progress.say(&format!("image '{name}' is built, in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(Built::New(manifest))
}

/// The directory that becomes the image.
const OUT: &str = "out";

fn check(host: &dyn Host, paths: &Paths, definition: &Definition) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "building an image needs root: its files belong to many users; hint: sudo gridgate image build"
        );
    }
    let missing: Vec<(&str, &str)> =
        PROGRAMS.into_iter().filter(|(program, _)| host.find_program(program).is_none()).collect();
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
    definition: &Definition,
    digest: &str,
    progress: &Progress,
) -> Result<Manifest> {
    host.remove(dir)?;
    host.make_dir(dir, 0o700)?;
    let (root, out) = (dir.join("tree"), dir.join(OUT));
    host.make_dir(&out, 0o755)?;
    let release = definition.debian.release.as_str();
    let list = match &definition.debian.mirror {
        Some(uri) => sources::mirror(uri, release),
        None => sources::for_release(host, Path::new("/etc/apt"), release)?,
    };
    let list_file = dir.join("debian.sources");
    host.write(&list_file, list.as_bytes(), 0o644)?;

    let count = definition.debian.packages.len();
    progress.say(&format!("installing {count} packages and what they need, from Debian {release}"));
    let mut unknown_key = false;
    let unpacked = host.run_watched(&tree::bootstrap(definition, &list_file, &root), &mut |line| {
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
    progress.say("making the tree as its definition says");
    tree::customise(host, definition, &root)?;
    let packages = manifest::parse_packages(&tree::packages(host, &root)?);
    let kernel = take_newest(host, &root.join("boot"), "vmlinuz-", &out.join(manifest::KERNEL))?;
    let initrd = take_newest(host, &root.join("boot"), "initrd.img-", &out.join(manifest::INITRD))?;

    progress.say("making the filesystem");
    let disk = out.join(manifest::DISK);
    let uuid = uuid_of(digest);
    let made = dir.join(manifest::DISK);
    make_filesystem(host, definition, &root, &made, &uuid)?;
    // mke2fs zeroes tables in a way that keeps their blocks taken; a copy of the data alone gives them back.
    host.clone_file(&made, &disk, definition.filesystem.size.0, progress)?;
    let blake3 = store::blake3_of(&disk, progress)?;
    let stat = host.stat(&disk)?.context("the filesystem is gone")?;
    let manifest = Manifest {
        format_version: manifest::FORMAT_VERSION,
        name: definition.name.clone(),
        definition_digest: digest.to_owned(),
        disk: Disk {
            file: manifest::DISK.to_owned(),
            size_bytes: stat.len,
            allocated_bytes: stat.allocated,
            blake3,
            uuid,
        },
        kernel: kernel.map(|path| part(host, &path, progress)).transpose()?,
        initrd: initrd.map(|path| part(host, &path, progress)).transpose()?,
        packages,
        built_at_epoch_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        built_by: format!("gridgate {}", env!("CARGO_PKG_VERSION")),
        tools: vec![version(host, "mmdebstrap", "--version"), version(host, "mke2fs", "-V")],
    };
    host.write(&out.join(manifest::FILE), &manifest.print()?, 0o644)?;
    // On the disk before it has its name: after a power cut a name stands for a whole image.
    host.run(&Program::new("sync").arg("--file-system").arg(&out))?;
    Ok(manifest)
}

/// Moves the newest of the files with that prefix out of the tree and makes it readable for all, as kernels of a
/// user's QEMU must be. A symbolic link is not followed.
fn take_newest(host: &dyn Host, dir: &Path, prefix: &str, to: &Path) -> Result<Option<PathBuf>> {
    let mut names: Vec<String> =
        host.list(dir)?.into_iter().filter(|name| name.starts_with(prefix)).collect();
    names.sort_by_key(|name| version_key(name));
    let Some(newest) = names.pop() else { return Ok(None) };
    let from = dir.join(newest);
    host.run(&Program::new("cp").args(["--no-dereference", "--no-preserve=all"]).arg(&from).arg(to))?;
    host.remove(&from)?;
    match std::fs::symlink_metadata(to) {
        Ok(meta) if meta.is_file() => Ok(Some(to.to_owned())),
        _ => bail!("'{}' is not a regular file", from.display()),
    }
}

/// Runs of digits compared as numbers: `6.1.0-10` comes after `6.1.0-9`.
fn version_key(text: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(word);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        key.push((0, text.to_owned()));
        key.push((tail[..digits].parse().unwrap_or(0), String::new()));
        rest = &tail[digits..];
    }
    key
}

fn make_filesystem(
    host: &dyn Host,
    definition: &Definition,
    tree: &Path,
    disk: &Path,
    uuid: &str,
) -> Result<()> {
    let filesystem = &definition.filesystem;
    // All of it is written now: tables that are filled in lazily would be filled in by every clone, in its first boot.
    let mut options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard".to_owned();
    options.push_str(&format!(",hash_seed={uuid}"));
    let mut program = Program::new("mke2fs")
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

fn part(host: &dyn Host, path: &Path, progress: &Progress) -> Result<Part> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stat = host.stat(path)?.with_context(|| format!("'{file}' is gone"))?;
    Ok(Part { file, size_bytes: stat.len, blake3: store::blake3_of(path, progress)? })
}

/// The first line that the program says of itself, on whichever stream.
fn version(host: &dyn Host, program: &str, flag: &str) -> String {
    let ran = host.run_any(&Program::new(program).arg(flag)).unwrap_or_default();
    let text = [ran.stdout, ran.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(program).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kernel_with_a_higher_number_is_newer() {
        let mut names = ["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-10-amd64", "vmlinuz-5.19-amd64"];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names.last(), Some(&"vmlinuz-6.1.0-10-amd64"));
    }

    #[test]
    fn one_definition_has_one_uuid() {
        assert_eq!(uuid_of("a"), uuid_of("a"));
        assert_ne!(uuid_of("a"), uuid_of("b"));
        assert_eq!(uuid_of("a").len(), 36);
        assert_eq!(&uuid_of("a")[14..15], "8");
    }

    proptest! {
        #[test]
        fn any_name_has_a_version_key(name in "\\PC{0,40}") {
            version_key(&name);
        }
    }
}

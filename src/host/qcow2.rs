//! Disks in QEMU's own format: looked at as data, then copied out by qemu-img(1), which is held to bounds.
//!
//! Such a disk may say that its content is in another file of any name, which is how a hostile one has a program read files of
//! the host: that is refused before any program has seen it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::bounds::Bounds;
use super::programs::{Program, Programs};
use crate::names::Bytes;

const MAGIC: &[u8] = b"QFI\xfb";
/// Of docs/interop/qcow2.txt in QEMU: the parts of the header that are read here.
const HEADER: usize = 104;
/// Bits of `incompatible_features`.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 2;
const EXTERNAL_DATA: u64 = 4;

/// Whatever the disk is, no more than that is taken.
const BOUNDS: Bounds = Bounds { memory_bytes: 2 << 30, cpu_seconds: 3600 };

/// Whether a file begins as such a disk.
pub fn is_one(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Refuses one that names another file, is encrypted, or was not closed. A header that ends early is one, too.
fn check(head: &[u8]) -> Result<()> {
    let number = |at: usize, len: usize| -> Result<u64> {
        let field = head.get(at..at + len).context("its header ends early")?;
        Ok(field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let version = number(4, 4)?;
    if !matches!(version, 2 | 3) {
        bail!("it is of version {version}, which is not known");
    }
    if number(8, 8)? != 0 || number(16, 4)? != 0 {
        bail!("only what differs from another disk is in it; hint: qemu-img convert makes one of the two");
    }
    if number(32, 4)? != 0 {
        bail!("it is encrypted; hint: qemu-img convert decrypts it");
    }
    let features = if version == 3 { number(72, 8)? } else { 0 };
    if features & EXTERNAL_DATA != 0 {
        bail!("its content is in another file; hint: qemu-img convert brings it into one");
    }
    if features & (DIRTY | CORRUPT) != 0 {
        bail!("it is in use, or damaged; hint: end what uses it, or qemu-img check -r all");
    }
    Ok(())
}

/// What `qemu-img info` says, as far as it is asked.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    virtual_size: u64,
    backing_filename: Option<String>,
    #[serde(default)]
    format_specific: Specific,
}

#[derive(Deserialize, Default)]
struct Specific {
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Data {
    data_file: Option<String>,
}

/// What `qemu-img measure` says: what is used, decompressed, and some tables.
#[derive(Deserialize)]
struct Measure {
    required: u64,
}

/// Copies the content to a new file, holes left out; `free` bytes may be written.
pub fn copy_out(host: &dyn Programs, disk: &Path, to: &Path, free: u64) -> Result<()> {
    let what = || format!("reading '{}'", disk.display());
    if host.find_program("qemu-img").is_none() {
        bail!("{} takes 'qemu-img', which is not here; hint: apt install qemu-utils", what());
    }
    // What has a colon in it would be a protocol to the program, but for a slash before it.
    let disk = &disk.canonicalize().with_context(what)?;
    let mut head = vec![0; HEADER];
    let opened = File::open(disk).with_context(what)?;
    let len = opened.read_at(&mut head, 0).with_context(what)?;
    check(&head[..len]).with_context(what)?;
    let image = |verb: &str| {
        let program = Program::new("qemu-img").arg(verb).args(["-f", "qcow2"]);
        program.bounded(BOUNDS).killed_on_interrupt()
    };
    let said = host.run(&image("info").arg("--output=json").arg(disk)).with_context(what)?;
    let info: Info = serde_json::from_slice(&said.stdout).with_context(what)?;
    if info.backing_filename.is_some() || info.format_specific.data.data_file.is_some() {
        bail!("{}: it names another file", what());
    }
    let said =
        host.run(&image("measure").args(["-O", "qcow2", "--output=json"]).arg(disk)).with_context(what)?;
    let measure: Measure = serde_json::from_slice(&said.stdout).with_context(what)?;
    if measure.required > free {
        let (needed, size) = (Bytes(measure.required), Bytes(info.virtual_size));
        bail!("{}: {needed} of its {size} are used, and {} are free", what(), Bytes(free));
    }
    host.run(&image("convert").args(["-O", "raw"]).arg(disk).arg(to)).with_context(what).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;
    use proptest::prelude::*;

    fn header(version: u8) -> Vec<u8> {
        let mut head = vec![0; HEADER];
        head[..4].copy_from_slice(MAGIC);
        head[7] = version;
        head
    }

    #[test]
    fn a_disk_that_names_another_file_is_refused_before_any_program_sees_it() {
        check(&header(2)).unwrap();
        check(&header(3)).unwrap();
        for (at, value, why) in [
            (15, 1, "differs from another disk"),
            (19, 9, "differs from another disk"),
            (35, 1, "encrypted"),
            (79, 4, "in another file"),
            (79, 1, "in use"),
        ] {
            let mut head = header(3);
            head[at] = value;
            let error = check(&head).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(check(&header(4)).is_err());
        assert!(check(&header(3)[..40]).is_err());
    }

    #[test]
    fn what_is_copied_out_is_what_was_in_it_and_no_more_than_there_is_room_for() {
        if Live.find_program("qemu-img").is_none() {
            return eprintln!("skipped: no qemu-img here");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let raw = File::create(path("raw")).unwrap();
        raw.set_len(8 << 20).unwrap();
        raw.write_all_at(&[7; 1 << 20], 1 << 20).unwrap();
        let convert = |from: &str, to: &str, more: &[&str]| {
            let program = Program::new("qemu-img").args(["convert", "-O", "qcow2"]).args(more);
            Live.run(&program.arg(path(from)).arg(path(to))).unwrap();
        };
        convert("raw", "a:b.qcow2", &["-c"]);
        copy_out(&Live, &path("a:b.qcow2"), &path("out"), 4 << 20).unwrap();
        assert!(std::fs::read(path("out")).unwrap() == std::fs::read(path("raw")).unwrap());
        let error = copy_out(&Live, &path("a:b.qcow2"), &path("out"), 1 << 10).unwrap_err().to_string();
        assert!(error.contains("are used, and 1K are free"), "{error}");
        let overlay = Program::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
        Live.run(&overlay.arg(path("raw")).arg(path("overlay"))).unwrap();
        let error = format!("{:#}", copy_out(&Live, &path("overlay"), &path("out"), 4 << 20).unwrap_err());
        assert!(error.contains("differs from another disk"), "{error}");
    }

    proptest! {
        #[test]
        fn any_header_is_taken_or_refused(bytes: Vec<u8>) {
            let _ = check(&bytes);
            let _ = check(&[MAGIC, &[0, 0, 0, 3], &bytes].concat());
        }
    }
}

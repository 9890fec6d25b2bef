//! What is meant by a source, found out by looking at it; its name counts for nothing.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{From, Named, Place, tar};
use crate::host::decompress::Compression;
use crate::host::{qcow2, source, target};

/// Enough to tell a tar by.
const HEAD: usize = 512;

/// What is there. A pipe (`-`) or an address is a tar; a disk that somebody writes to is [`Refused`](crate::host::refused::Refused).
pub fn find(named: &str, partition: Option<u32>) -> Result<From> {
    if named == "-" || source::is_url(named) {
        return from("tar", named.to_owned(), partition, Place::Stream(named.to_owned()));
    }
    let what = || format!("looking at '{named}'");
    let path = Path::new(named).canonicalize().with_context(what)?;
    let name = path.display().to_string();
    let meta = path.metadata().with_context(what)?;
    if meta.is_dir() {
        return from("directory", name, partition, Place::Directory(path));
    }
    if meta.file_type().is_block_device() {
        target::unused(&path)?;
        return from("disk", name, partition, Place::Raw(path));
    }
    if !meta.is_file() {
        bail!("'{named}' is neither a file, nor a directory, nor a disk; hint: '-' reads a tar from a pipe");
    }
    let mut head = [0; HEAD];
    let len = File::open(&path).and_then(|file| file.read_at(&mut head, 0)).with_context(what)?;
    let head = &head[..len];
    if Compression::of(head) != Compression::None || tar::is_header(head) {
        return from("tar", name.clone(), partition, Place::Stream(name));
    }
    target::unused(&path)?;
    let place = if qcow2::is_one(head) { Place::Qcow2(path) } else { Place::Raw(path) };
    from("disk", name, partition, place)
}

fn from(kind: &'static str, source: String, partition: Option<u32>, place: Place) -> Result<From> {
    if partition.is_some() && kind != "disk" {
        bail!("'{source}' is a {kind}, and only disks have partitions");
    }
    Ok(From { named: Named { kind, source, partition }, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::header;

    #[test]
    fn a_source_is_what_it_holds_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let zeros = vec![0; 1 << 20];
        for (name, content, wanted) in [
            ("a.img", header::own("x", 0), "tar"),
            ("b.qcow2", vec![0x1f, 0x8b, 8, 0], "tar"),
            ("c.tar", b"QFI\xfb\0\0\0\x03".to_vec(), "disk"),
            ("d.tar.gz", zeros, "disk"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            let found = find(path.to_str().unwrap(), None).unwrap();
            assert_eq!(found.named.kind, wanted, "{name}");
            assert_eq!(matches!(found.place, Place::Qcow2(_)), name == "c.tar");
        }
        let place = dir.path().to_str().unwrap();
        assert_eq!(find(place, None).unwrap().named.kind, "directory");
        assert!(find(place, Some(1)).unwrap_err().to_string().ends_with("only disks have partitions"));
        assert_eq!(find("-", None).unwrap().named.source, "-");
        assert!(find("/dev/null", None).is_err());
        assert!(find(dir.path().join("none").to_str().unwrap(), None).is_err());
    }
}

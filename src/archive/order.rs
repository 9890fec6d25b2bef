//! In which order things are packed: as a reader needs them, and among files so that like comes to like.

use std::collections::HashMap;

use anyhow::{Result, bail};

use super::entry::{Content, Entry, Kind, Time};
use super::source::{First, Source, Surveyed};
use crate::progress::Progress;

/// The first bytes of files, by path.
pub(super) type Firsts = HashMap<Vec<u8>, First>;

/// All that a source tells of, with further names of files as hard links; not in order yet.
pub(super) fn survey(source: &dyn Source, name: &str, progress: &Progress) -> Result<(Vec<Entry>, Firsts)> {
    let mut surveyed = Vec::new();
    source.survey(&mut |thing| {
        surveyed.push(thing);
        progress.tick_with(|| format!("looking at '{name}': {} files", surveyed.len()));
        Ok(())
    })?;
    let is_file = |thing: &&Surveyed| matches!(thing.entry.kind, Kind::File(_));
    let firsts = surveyed.iter().filter(is_file).map(|thing| (thing.entry.path.clone(), thing.first));
    let firsts = firsts.collect();
    Ok((link(surveyed)?, firsts))
}

/// As [`survey`], in the order in which a filesystem is made of them; without digests.
pub fn collect(source: &dyn Source, name: &str, progress: &Progress) -> Result<Vec<Entry>> {
    let (mut entries, _) = survey(source, name, progress)?;
    sort(&mut entries, &Firsts::new());
    Ok(entries)
}

/// Makes further names of a file hard links to the first in the order of paths.
pub(super) fn link(surveyed: Vec<Surveyed>) -> Result<Vec<Entry>> {
    let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
    for Surveyed { entry, inode, .. } in &surveyed {
        if let Some(inode) = inode {
            let name = first.entry(*inode).or_insert_with(|| entry.path.clone());
            if entry.path < *name {
                name.clone_from(&entry.path);
            }
        }
    }
    let mut entries = Vec::with_capacity(surveyed.len());
    for Surveyed { entry, inode, .. } in surveyed {
        match inode.and_then(|inode| first.get(&inode)) {
            Some(name) if *name != entry.path => entries.push(Entry {
                kind: Kind::HardLink(name.clone()),
                mode: 0,
                uid: 0,
                gid: 0,
                modified: Time { seconds: 0, nanoseconds: 0 },
                attributes: Vec::new(),
                flags: 0,
                path: entry.path,
            }),
            _ => entries.push(entry),
        }
    }
    if entries.iter().any(|entry| entry.path == b".gridgate") {
        bail!(
            "there is a '.gridgate' at its top, which is the name of the archive's own files; hint: remove it"
        );
    }
    Ok(entries)
}

/// Shorter files are not looked for a second time: the next of them is never far away.
pub(super) const LEAST_ALIKE: u64 = 4096;

/// Directories, what is no file, files, further names. `first` tells a file's first bytes.
pub(super) fn sort(entries: &mut [Entry], first: &Firsts) {
    // The same content twice is packed one after the other, where it takes nothing the second time: as the first of them would be.
    let key = |entry: &Entry| {
        let class = first.get(&entry.path).map_or(Class::Other, |bytes| Class::of(*bytes));
        (class, extension(&entry.path).to_vec(), name(&entry.path).to_vec(), entry.path.clone())
    };
    let mut places: HashMap<(u64, [u8; 32]), _> = HashMap::new();
    for entry in entries.iter() {
        if let Kind::File(content) = &entry.kind
            && content.len >= LEAST_ALIKE
        {
            let key = key(entry);
            let place = places.entry((content.len, content.blake3)).or_insert_with(|| key.clone());
            if key < *place {
                *place = key;
            }
        }
    }
    let place = |entry: &Entry, content: &Content| match places.get(&(content.len, content.blake3)) {
        Some(place) => place.clone(),
        None => key(entry),
    };
    entries.sort_by_cached_key(|entry| match &entry.kind {
        Kind::Directory => (0, None, entry.path.clone()),
        Kind::File(content) => (2, Some(place(entry, content)), entry.path.clone()),
        Kind::HardLink(_) => (3, None, entry.path.clone()),
        _ => (1, None, entry.path.clone()),
    });
}

/// What a file is by its first bytes; text comes last, in the order of its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Programs and libraries.
    Elf,
    /// What does not get smaller: gzip, xz, zstd, PNG, zip.
    Compressed,
    Other,
}

impl Class {
    fn of(bytes: First) -> Self {
        match bytes {
            [0x7f, b'E', b'L', b'F'] => Self::Elf,
            [0x1f, 0x8b, ..]
            | [0xfd, b'7', b'z', b'X']
            | [0x28, 0xb5, 0x2f, 0xfd]
            | [0x89, b'P', b'N', b'G'] => Self::Compressed,
            [b'P', b'K', 3, 4] => Self::Compressed,
            _ => Self::Other,
        }
    }
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// What comes after the last point of a name, if that is short; versions of libraries are left out.
fn extension(path: &[u8]) -> &[u8] {
    const LONGEST: usize = 8;
    let name = name(path);
    let mut parts = name.rsplit(|byte| *byte == b'.').take_while(|part| part.len() < name.len());
    let extension = parts.find(|part| !part.iter().all(u8::is_ascii_digit)).unwrap_or_default();
    let is_all = extension.len() + 1 > name.len() || name.starts_with(extension);
    if is_all || extension.len() > LONGEST { &[] } else { extension }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::{entry, file};

    #[test]
    fn extensions_are_those_that_tell_what_a_file_is() {
        for (path, wanted) in [
            (&b"usr/lib/libc.so.6"[..], &b"so"[..]),
            (b"a.b/c", b""),
            (b"x.tar.gz", b"gz"),
            (b".profile", b"profile"),
            (b"1.2.3", b""),
            (b"x.averylongextension", b""),
        ] {
            assert_eq!(
                extension(path).escape_ascii().to_string(),
                wanted.escape_ascii().to_string(),
                "{path:?}"
            );
        }
    }

    #[test]
    fn names_of_one_file_are_links_to_the_first_and_come_last() {
        let of = |path: &[u8], inode| Surveyed { entry: file(path, b"x"), inode, first: First::default() };
        let top = Surveyed { inode: None, entry: entry(b"", Kind::Directory), first: First::default() };
        let mut entries =
            link(vec![of(b"c", Some(1)), of(b"b", Some(1)), of(b"d", None), top, of(b"a", Some(2))]).unwrap();
        sort(&mut entries, &Firsts::new());
        let paths: Vec<_> =
            entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect();
        assert_eq!(paths, ["", "a", "b", "d", "c"]);
        assert_eq!(entries[4].kind, Kind::HardLink(b"b".to_vec()));
    }
}

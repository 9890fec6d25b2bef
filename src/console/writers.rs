//! Who typed on a console: from where, from when to when, how many bytes (`writers.jsonl`). What they typed is kept only if the
//! site asks for it, for root alone (`typed.jsonl`).
//!
//! A writer has a line from the first key on, and another one at the end, with the same beginning: it replaces the first, which
//! stands for itself if the holder was killed meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::console::access::{Access, PRIVATE};

/// Bounds of the files; half of that is left when one is reached.
const WRITERS_BYTES: u64 = 256 << 10;
const TYPED_BYTES: u64 = 1 << 20;

/// One who typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Who.
    pub who: String,
    /// Where they were.
    pub origin: Option<String>,
    /// The process that was attached.
    pub pid: i32,
    /// The boot that was typed to first.
    pub boot: u32,
    /// The first key, in milliseconds since 1970.
    pub began_at_ms: u64,
    /// The last one; none as long as they write, or if the holder was killed.
    pub ended_at_ms: Option<u64>,
    /// Typed in all.
    pub bytes: Option<u64>,
}

/// What was typed, up to a line's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub who: String,
    /// What; bytes that are not printable are escaped.
    pub text: String,
}

fn writers_path(dir: &Path) -> PathBuf {
    dir.join("writers.jsonl")
}

fn typed_path(dir: &Path) -> PathBuf {
    dir.join("typed.jsonl")
}

/// All that are known, oldest first.
pub fn writers(dir: &Path) -> Vec<Writer> {
    let mut found: Vec<Writer> = Vec::new();
    for writer in lines::<Writer>(&writers_path(dir)) {
        let same = |w: &&mut Writer| (w.pid, w.began_at_ms) == (writer.pid, writer.began_at_ms);
        match found.iter_mut().rev().find(same) {
            Some(begun) => *begun = writer,
            None => found.push(writer),
        }
    }
    found
}

/// Appends a line about a writer.
pub(super) fn note(dir: &Path, access: Access, writer: &Writer) -> io::Result<()> {
    let path = writers_path(dir);
    append(&path, writer, || access.open(&path, OpenOptions::new().append(true)))?;
    bound(&path, WRITERS_BYTES, access)
}

/// Appends what was typed.
pub(super) fn keep(dir: &Path, typed: &Typed) -> io::Result<()> {
    let path = typed_path(dir);
    append(&path, typed, || OpenOptions::new().append(true).create(true).mode(PRIVATE).open(&path))?;
    bound(&path, TYPED_BYTES, Access::default())
}

/// A line that was cut short by a full disk is ended first.
fn append(path: &Path, value: &impl Serialize, open: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut last = *b"\n";
    if let Ok(file) = File::open(path) {
        let end = file.metadata()?.len();
        let _ = file.read_at(&mut last, end.saturating_sub(1))?;
    }
    if last != *b"\n" {
        line.insert(0, b'\n');
    }
    open()?.write_all(&line)
}

/// Leaves the newer half of a file that has become too long.
fn bound(path: &Path, most: u64, access: Access) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if meta.len() <= most {
        return Ok(());
    }
    let content = std::fs::read(path)?;
    let half = content.len() / 2;
    let from = content[half..].iter().position(|b| *b == b'\n').map_or(content.len(), |at| half + at + 1);
    let temporary = path.with_extension("new");
    // The same mode as before, from the beginning.
    let mode = std::os::unix::fs::MetadataExt::mode(&meta) & 0o777;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let mut file = match mode {
        PRIVATE => options.open(&temporary)?,
        _ => access.open(&temporary, &mut options)?,
    };
    file.write_all(&content[from..])?;
    std::fs::rename(&temporary, path)
}

fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_slice(&line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn writer(pid: i32, ended_at_ms: Option<u64>) -> Writer {
        let (who, origin) = ("ann".to_owned(), Some("192.0.2.7, pts/3".to_owned()));
        Writer { who, origin, pid, boot: 1, began_at_ms: 1000, ended_at_ms, bytes: ended_at_ms.map(|_| 7) }
    }

    #[test]
    fn the_line_of_an_end_replaces_that_of_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        for line in [writer(1, None), writer(2, None), writer(1, Some(5))] {
            note(dir.path(), Access::default(), &line).unwrap();
        }
        assert_eq!(writers(dir.path()), [writer(1, Some(5)), writer(2, None)]);
    }

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(writers_path(dir.path()), b"{\"who\":\"an").unwrap();
        note(dir.path(), Access::default(), &writer(1, None)).unwrap();
        assert_eq!(writers(dir.path()), [writer(1, None)]);
    }

    #[test]
    fn the_files_are_bounded_and_the_newest_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        for pid in 0..4000 {
            note(dir.path(), Access::default(), &writer(pid, Some(1))).unwrap();
        }
        assert!(std::fs::metadata(writers_path(dir.path())).unwrap().len() <= WRITERS_BYTES);
        let known = writers(dir.path());
        assert!(known.len() > 500, "{}", known.len());
        assert_eq!(known.last().unwrap().pid, 3999);
    }

    #[test]
    fn what_was_typed_is_for_root_alone_also_when_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        for at_ms in 0..300 {
            keep(dir.path(), &Typed { at_ms, who: "ann".to_owned(), text: "x".repeat(5000) }).unwrap();
        }
        let meta = std::fs::metadata(typed_path(dir.path())).unwrap();
        assert_eq!(meta.mode() & 0o7777, PRIVATE);
        assert!(meta.len() <= TYPED_BYTES);
        assert_eq!(lines::<Typed>(&typed_path(dir.path())).last().unwrap().at_ms, 299);
    }

    proptest! {
        #[test]
        fn any_file_is_understood_as_far_as_it_can_be(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(writers_path(dir.path()), content).unwrap();
            let _ = writers(dir.path());
        }
    }
}

//! Reading consoles' logs: by boot and offset, while they are being written.
//!
//! A directory holds segments `BOOT-START.log` (six and twelve digits): the guest's bytes from offset START of boot BOOT on, as
//! they came. Where two segments do not meet, the bytes between them were lost. Beside each stands its index of times
//! ([`super::times`]). `index.jsonl` says when things happened.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::console::record::Cause;
use crate::console::sanitise::Filter;

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Boots count from 1.
    pub boot: u32,
    /// Offset of its first byte in its boot.
    pub start: u64,
    /// Bytes in it.
    pub len: u64,
    /// Bytes of its index of times ([`super::times`]).
    pub index: u64,
}

impl Segment {
    /// Its file.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:06}-{:012}.log", self.boot, self.start))
    }

    /// Its index of times.
    pub fn index_path(&self, dir: &Path) -> PathBuf {
        self.path(dir).with_extension("times")
    }

    /// Offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Boot and offset that a file name with this ending stands for; only names that [`Segment`] makes.
fn parse_name(name: &str, ending: &str) -> Option<(u32, u64)> {
    let (boot, start) = name.strip_suffix(ending)?.split_once('-')?;
    let digits = |text: &str, least: usize| text.len() >= least && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(boot, 6) || !digits(start, 12) {
        return None;
    }
    Some((boot.parse().ok()?, start.parse().ok()?))
}

/// All segments, in the order in which they were written; none if there is no directory.
pub fn segments(dir: &Path) -> Vec<Segment> {
    let mut found: Vec<Segment> = Vec::new();
    let mut indexes: Vec<(u32, u64, u64)> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let len = || entry.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
        if let Some((boot, start)) = parse_name(name, ".log") {
            found.extend(len().map(|len| Segment { boot, start, len, index: 0 }));
        } else if let Some((boot, start)) = parse_name(name, ".times") {
            indexes.extend(len().map(|len| (boot, start, len)));
        }
    }
    found.sort_unstable();
    for (boot, start, len) in indexes {
        if let Ok(at) = found.binary_search_by_key(&(boot, start), |s| (s.boot, s.start)) {
            found[at].index = len;
        }
    }
    found
}

/// What happened to a console; a line of `index.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The boot that it happened to.
    pub boot: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen to a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The boot's first byte will be the next.
    Started {
        /// The guest's process.
        pid: i32,
        /// Its start time, as in [`crate::console::record::RunRecord`].
        start_ticks: u64,
    },
    /// Another holder has taken the console over.
    Resumed,
    /// The guest asked to be started again; the next boot follows by itself.
    Rebooted,
    /// The guest's process is gone.
    Ended {
        /// What ended it.
        cause: Cause,
        /// Exit status or signal.
        code: Option<i32>,
    },
}

/// Where the markers are.
pub fn index_path(dir: &Path) -> PathBuf {
    dir.join("index.jsonl")
}

/// All markers, oldest first; lines that cannot be understood (cut off by a full disk) are left out.
pub fn markers(dir: &Path) -> Vec<Marker> {
    let Ok(file) = File::open(index_path(dir)) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_slice(&line).ok()).collect()
}

/// One boot of a guest, as far as the log still has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Counted from 1, over the guest's whole life.
    pub number: u32,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// When and how it ended.
    pub ended: Option<Marker>,
    /// Offset of the first byte that is still there.
    pub first: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Bytes that are there.
    pub bytes: u64,
}

/// All boots, oldest first.
pub fn boots(dir: &Path) -> Vec<Boot> {
    let (segments, markers) = (segments(dir), markers(dir));
    let mut numbers: Vec<u32> =
        segments.iter().map(|s| s.boot).chain(markers.iter().map(|m| m.boot)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let one = |number: u32| {
        let own = || segments.iter().filter(move |s| s.boot == number);
        let said = || markers.iter().filter(move |m| m.boot == number);
        Boot {
            number,
            started_at_ms: said().find(|m| matches!(m.event, Event::Started { .. })).map(|m| m.at_ms),
            ended: said().rfind(|m| matches!(m.event, Event::Ended { .. } | Event::Rebooted)).cloned(),
            first: own().next().map_or(0, |s| s.start),
            end: own().next_back().map_or(0, Segment::end),
            bytes: own().map(|s| s.len).sum(),
        }
    };
    numbers.into_iter().map(one).collect()
}

/// The number of a boot: 0 is the newest, -1 the one before, a positive number itself. `None` if the log knows no such boot.
pub fn resolve(dir: &Path, which: i64) -> Option<u32> {
    let mut numbers: Vec<u32> = segments(dir).iter().map(|s| s.boot).collect();
    numbers.extend(markers(dir).iter().map(|m| m.boot));
    numbers.sort_unstable();
    numbers.dedup();
    if which > 0 {
        return numbers.into_iter().find(|n| i64::from(*n) == which);
    }
    let back = usize::try_from(which.unsigned_abs()).ok()?;
    numbers.into_iter().rev().nth(back)
}

/// What stands at an offset of a boot.
#[derive(Debug, PartialEq, Eq)]
pub enum At {
    /// So many bytes were read from there.
    Bytes(usize),
    /// Nothing there (rotated away, or lost); the log goes on at this later offset.
    Skip(u64),
    /// Nothing there and nothing after it.
    End,
}

/// Reads what stands at an offset, without waiting. The segments are those of the directory, in order.
pub fn read_at(dir: &Path, segments: &[Segment], boot: u32, offset: u64, buffer: &mut [u8]) -> At {
    let mut of_boot = segments.iter().filter(|s| s.boot == boot && s.end() > offset);
    let Some(segment) = of_boot.next() else { return At::End };
    if segment.start > offset {
        return At::Skip(segment.start);
    }
    let want = usize::try_from(segment.end() - offset).unwrap_or(usize::MAX).min(buffer.len());
    let read =
        File::open(segment.path(dir)).and_then(|f| f.read_at(&mut buffer[..want], offset - segment.start));
    match read {
        Ok(n) if n > 0 => At::Bytes(n),
        // Removed or cut under our hands: what comes after it may still be there.
        _ => of_boot.next().map_or(At::End, |next| At::Skip(next.start)),
    }
}

/// A boot's bytes as a stream, from its first one that is left; what was lost is left out.
#[derive(Debug)]
pub struct BootReader {
    dir: PathBuf,
    segments: Vec<Segment>,
    boot: u32,
    offset: u64,
}

impl BootReader {
    /// The boot's bytes; none if there is no such boot.
    pub fn new(dir: &Path, boot: u32) -> Self {
        Self { dir: dir.to_owned(), segments: segments(dir), boot, offset: 0 }
    }

    /// Only the last bytes.
    pub fn tail(dir: &Path, boot: u32, bytes: u64) -> Self {
        let mut reader = Self::new(dir, boot);
        let end = reader.segments.iter().filter(|s| s.boot == boot).map(Segment::end).max().unwrap_or(0);
        reader.offset = end.saturating_sub(bytes);
        reader
    }
}

impl Read for BootReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match read_at(&self.dir, &self.segments, self.boot, self.offset, buffer) {
                At::Bytes(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                At::Skip(to) => self.offset = to,
                At::End => return Ok(0),
            }
        }
    }
}

/// A boot's last lines as text, none empty, each cut to 400 characters.
pub fn last_lines(dir: &Path, boot: u32, count: usize) -> Vec<String> {
    const LOOKED_AT: u64 = 16 << 10;
    const LINE_CHARS: usize = 400;
    let mut bytes = Vec::new();
    // What cannot be read is not there.
    let _ = BootReader::tail(dir, boot, LOOKED_AT).read_to_end(&mut bytes);
    let mut text = Vec::new();
    let mut filter = Filter::plain();
    filter.push(&bytes, &mut text);
    filter.finish(&mut text);
    let text = String::from_utf8_lossy(&text);
    let lines = text.split(['\n', '\r']).map(str::trim_end).filter(|l| !l.is_empty());
    let mut lines: Vec<String> =
        lines.rev().take(count).map(|l| l.chars().take(LINE_CHARS).collect()).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_names_of_segments_are_segments() {
        let segment = Segment { boot: 12, start: 3456, len: 0, index: 0 };
        let name = segment.path(Path::new("")).to_string_lossy().into_owned();
        assert_eq!(parse_name(&name, ".log"), Some((12, 3456)));
        for bad in ["index.jsonl", "000012-3456.log", "+00012-000000003456.log", "000012-000000003456.log~"] {
            assert_eq!(parse_name(bad, ".log"), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_a_segment_or_not(name in "\\PC{0,40}") {
            let _ = parse_name(&name, ".log");
        }
    }
}

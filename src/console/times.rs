//! When a console said what: an index from time to bytes beside each segment of the log.
//!
//! `BOOT-START.times` holds records of 16 bytes, two little-endian numbers of 8: the offset of a byte in its boot, and the second
//! (since 1970) from which on it and what follows was said. A second has one record at most, and none if nothing was said in it.
//! A record that a crash or a full disk cut short is overwritten by the next. The clock may have jumped either way: what
//! was said in a time is a set of ranges, and no order of the seconds is assumed.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::console::access::Access;
use crate::console::logread::Segment;

/// Bytes of a record.
pub const RECORD_BYTES: u64 = 16;

/// From this byte on, up to the next stamp's, output came in this second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes of the boot before it.
    pub offset: u64,
    /// Seconds since 1970.
    pub at_s: u64,
}

/// The index of the segment that is being written.
#[derive(Debug)]
pub(super) struct Stamper {
    file: File,
    count: u64,
    last_s: Option<u64>,
}

impl Stamper {
    /// Goes on behind the last whole record.
    pub(super) fn open(path: &Path, access: Access) -> io::Result<Self> {
        let file = access.open(path, OpenOptions::new().read(true).write(true))?;
        let count = file.metadata()?.len() / RECORD_BYTES;
        Ok(Self { file, count, last_s: None })
    }

    /// Bytes of the index.
    pub(super) fn bytes(&self) -> u64 {
        self.count * RECORD_BYTES
    }

    /// The byte at this offset and those after it are said now.
    pub(super) fn stamp(&mut self, offset: u64, now_s: u64) {
        if self.last_s == Some(now_s) {
            return;
        }
        let mut record = [0; RECORD_BYTES as usize];
        record[..8].copy_from_slice(&offset.to_le_bytes());
        record[8..].copy_from_slice(&now_s.to_le_bytes());
        // Without its record the output counts as a little older; the output itself is what matters.
        if self.file.write_all_at(&record, self.bytes()).is_ok() {
            self.count += 1;
            self.last_s = Some(now_s);
        }
    }
}

/// The records that make sense: in the segment, each behind the one before.
fn parse(content: &[u8], segment: &Segment) -> Vec<Stamp> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    let mut stamps: Vec<Stamp> = Vec::new();
    for record in content.chunks_exact(RECORD_BYTES as usize) {
        let stamp = Stamp { offset: number(&record[..8]), at_s: number(&record[8..]) };
        let behind = stamps.last().is_none_or(|last| stamp.offset > last.offset);
        if behind && (segment.start..=segment.end()).contains(&stamp.offset) {
            stamps.push(stamp);
        } else if let Some(last) = stamps.last_mut().filter(|last| stamp.offset == last.offset) {
            // Nothing could be written at the first try.
            *last = stamp;
        }
    }
    stamps
}

/// A span of time, both ends included, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Not before this.
    pub since_s: Option<u64>,
    /// Not after this.
    pub until_s: Option<u64>,
}

impl Window {
    /// Whether it leaves anything out.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    fn contains(&self, at_s: u64) -> bool {
        self.since_s.is_none_or(|since| since <= at_s) && self.until_s.is_none_or(|until| at_s <= until)
    }
}

/// Where the boot's output of that time stands, in the order of the bytes. Output without a stamp counts to what stands
/// before it, at last to `begun_s`, the boot's beginning.
pub fn ranges(dir: &Path, segments: &[Segment], boot: u32, begun_s: u64, window: Window) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut now_s = begun_s;
    for segment in segments.iter().filter(|s| s.boot == boot) {
        let content = std::fs::read(segment.index_path(dir)).unwrap_or_default();
        let stamps = parse(&content, segment);
        let first = stamps.first().map_or(segment.end(), |s| s.offset);
        let mut parts = vec![(segment.start..first, now_s)];
        for (index, stamp) in stamps.iter().enumerate() {
            let end = stamps.get(index + 1).map_or(segment.end(), |next| next.offset);
            parts.push((stamp.offset..end, stamp.at_s));
            now_s = stamp.at_s;
        }
        for (part, at_s) in parts {
            if part.is_empty() || !window.contains(at_s) {
                continue;
            }
            match found.last_mut().filter(|last| last.end == part.start) {
                Some(last) => last.end = part.end,
                None => found.push(part),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(since_s: u64, until_s: u64) -> Window {
        Window { since_s: Some(since_s), until_s: Some(until_s) }
    }

    /// Ten bytes at each of these seconds, then looked up.
    fn said_at(seconds: &[u64], wanted: Window) -> Vec<Range<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment { boot: 1, start: 0, len: seconds.len() as u64 * 10, index: 0 };
        let mut stamper = Stamper::open(&segment.index_path(dir.path()), Access::default()).unwrap();
        for (index, second) in seconds.iter().enumerate() {
            stamper.stamp(index as u64 * 10, *second);
        }
        ranges(dir.path(), &[segment], 1, 0, wanted)
    }

    #[test]
    fn a_second_has_one_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("times");
        let mut stamper = Stamper::open(&path, Access::default()).unwrap();
        for (offset, second) in [(0, 100), (10, 100), (20, 101)] {
            stamper.stamp(offset, second);
        }
        assert_eq!(stamper.bytes(), 32);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 32);
    }

    #[test]
    fn output_is_found_by_its_time() {
        assert_eq!(said_at(&[100, 101, 102, 103], window(101, 102)), vec![10..30]);
        let since = Window { since_s: Some(103), until_s: None };
        assert_eq!(said_at(&[100, 101, 102, 103], since), vec![30..40]);
        assert!(said_at(&[100, 101], window(50, 60)).is_empty());
    }

    #[test]
    fn a_clock_that_jumped_back_gives_two_ranges_for_one_time() {
        assert_eq!(said_at(&[100, 200, 100, 300], window(90, 110)), vec![0..10, 20..30]);
    }

    #[test]
    fn a_record_that_was_cut_short_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment { boot: 1, start: 0, len: 20, index: 0 };
        let path = segment.index_path(dir.path());
        Stamper::open(&path, Access::default()).unwrap().stamp(0, 100);
        let torn = [std::fs::read(&path).unwrap(), vec![7; 5]].concat();
        std::fs::write(&path, torn).unwrap();
        Stamper::open(&path, Access::default()).unwrap().stamp(10, 200);
        assert_eq!(ranges(dir.path(), &[segment], 1, 0, window(200, 200)), vec![10..20]);
    }

    #[test]
    fn output_without_an_index_counts_to_the_boots_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment { boot: 1, start: 5, len: 20, index: 0 };
        assert_eq!(ranges(dir.path(), &[segment], 1, 100, window(100, 100)), vec![5..25]);
        assert!(ranges(dir.path(), &[segment], 1, 100, window(101, 200)).is_empty());
    }

    proptest! {
        #[test]
        fn any_index_gives_ranges_of_the_segment_in_order(
            content in prop::collection::vec(any::<u8>(), 0..200),
            small in prop::collection::vec((0u64..60, 0u64..60), 0..20),
            since in 0u64..60,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let segment = Segment { boot: 1, start: 10, len: 30, index: 0 };
            let mut bytes: Vec<u8> = small.iter().flat_map(|(o, s)| [o.to_le_bytes(), s.to_le_bytes()].concat()).collect();
            bytes.extend(content);
            std::fs::write(segment.index_path(dir.path()), bytes).unwrap();
            let wanted = Window { since_s: Some(since), until_s: None };
            let mut at = 10;
            for range in ranges(dir.path(), &[segment], 1, 0, wanted) {
                prop_assert!(range.start >= at && range.start < range.end && range.end <= 40);
                at = range.end;
            }
        }

        #[test]
        fn two_windows_that_meet_have_everything_once(
            seconds in prop::collection::vec(0u64..50, 1..20), cut in 0u64..50,
        ) {
            let before = said_at(&seconds, Window { since_s: None, until_s: Some(cut) });
            let after = said_at(&seconds, Window { since_s: Some(cut + 1), until_s: None });
            let bytes: u64 = before.iter().chain(&after).map(|r| r.end - r.start).sum();
            prop_assert_eq!(bytes, seconds.len() as u64 * 10);
        }
    }
}

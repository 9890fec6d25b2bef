//! Writing a console's log: the guest's raw bytes, in segments of a bounded total, never refusing a byte.
//!
//! The form on disk is told in [`super::logread`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::console::access::Access;
use crate::console::logread::{self, Event, Marker, Segment};
use crate::console::now_ms;
use crate::console::times::Stamper;

/// Parts that the bound is cut into: what goes when it is reached is one part, not all.
const PARTS: u64 = 8;
/// Smaller segments than this would make more files than sense.
const LEAST_SEGMENT: u64 = 4 << 10;
/// Boots that are remembered, also if they said next to nothing.
const KEPT_BOOTS: u32 = 64;

/// A guest's log, open for writing. Only the holder has one.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    access: Access,
    bound: u64,
    segments: Vec<Segment>,
    /// The last segment and its index, if they are open.
    file: Option<(File, Option<Stamper>)>,
    boot: u32,
    end: u64,
    lost: u64,
    trouble: Option<String>,
}

impl Log {
    /// Opens what is there, at its end; nothing is written yet.
    pub fn open(dir: &Path, bound: u64) -> Self {
        let segments = logread::segments(dir);
        let boot = logread::resolve(dir, 0).unwrap_or(0);
        let end = segments.last().filter(|s| s.boot == boot).map_or(0, Segment::end);
        let (dir, access) = (dir.to_owned(), Access::default());
        Self { dir, access, bound, segments, file: None, boot, end, lost: 0, trouble: None }
    }

    /// Gives all of it, what is there and what will be, to those who may read it.
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
        access.sweep(&self.dir);
    }

    /// Who may read it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Changes the bound; it is kept from the next write on.
    pub fn set_bound(&mut self, bound: u64) {
        self.bound = bound;
    }

    /// The newest boot; 0 if there was none.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// Offset of the next byte in the newest boot.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the segments are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What there is to read.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Bytes that could not be kept since this log was opened.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes of output on disk.
    pub fn kept(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    fn used(&self) -> u64 {
        self.segments.iter().map(|s| s.len + s.index).sum()
    }

    /// Why the last write failed; none if it did not.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Begins the next boot of the given process.
    pub fn begin_boot(&mut self, pid: i32, start_ticks: u64) {
        self.file = None;
        self.boot += 1;
        self.end = 0;
        let oldest = self.boot.saturating_sub(KEPT_BOOTS - 1);
        while self.segments.first().is_some_and(|s| s.boot < oldest) {
            self.remove_oldest();
        }
        self.prune_index(oldest);
        self.mark(Event::Started { pid, start_ticks });
    }

    /// Writes a marker for the newest boot.
    pub fn mark(&mut self, event: Event) {
        let marker = Marker { boot: self.boot, at_ms: now_ms(), event };
        let written = serde_json::to_vec(&marker).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.make_dir()?;
            self.open_file(&logread::index_path(&self.dir))?.write_all(&line)
        });
        if let Err(e) = written {
            self.trouble = Some(e.to_string());
        }
    }

    /// Appends what the guest said. What cannot be written is counted and forgotten; the offsets go on.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(n) => {
                    self.end += n as u64;
                    bytes = &bytes[n..];
                    self.trouble = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.file = None;
                    // A full disk often has room for the file and none for what should be in it.
                    if let Some(empty) = self.segments.pop_if(|s| s.len == 0) {
                        self.unlink(&empty);
                    }
                    self.end += bytes.len() as u64;
                    self.lost += bytes.len() as u64;
                    self.trouble = Some(e.to_string());
                    return;
                }
            }
        }
    }

    /// The newest boot goes on at a later offset: what lies between was lost before it came here.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.end {
            self.lost += offset - self.end;
            self.end = offset;
            self.file = None;
        }
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = (self.bound / PARTS).max(LEAST_SEGMENT);
        let fits = |s: &&Segment, boot, end| s.boot == boot && s.end() == end && s.len + s.index < part;
        let current = self.segments.last().filter(|s| fits(s, self.boot, self.end)).copied();
        let segment = match current {
            Some(segment) => segment,
            None => {
                self.file = None;
                Segment { boot: self.boot, start: self.end, len: 0, index: 0 }
            }
        };
        if self.file.is_none() {
            self.make_dir()?;
            let file = self.open_file(&segment.path(&self.dir))?;
            let stamper = Stamper::open(&segment.index_path(&self.dir), self.access).ok();
            self.file = Some((file, stamper));
            if current.is_none() {
                self.segments.push(segment);
                while self.segments.len() > 1 && self.used() + part > self.bound.max(part) {
                    self.remove_oldest();
                }
            }
        }
        let (Some((file, stamper)), Some(last)) = (self.file.as_mut(), self.segments.last_mut()) else {
            return Ok(0);
        };
        if let Some(stamper) = stamper {
            stamper.stamp(self.end, now_ms() / 1000);
            last.index = stamper.bytes();
        }
        let room = part.saturating_sub(last.len + last.index).max(1);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        match file.write(&bytes[..room])? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            n => {
                last.len += n as u64;
                Ok(n)
            }
        }
    }

    fn remove_oldest(&mut self) {
        let oldest = self.segments.remove(0);
        self.unlink(&oldest);
    }

    /// One that cannot be removed is found again by the next holder.
    fn unlink(&self, segment: &Segment) {
        let _ = std::fs::remove_file(segment.index_path(&self.dir));
        let _ = std::fs::remove_file(segment.path(&self.dir));
    }

    fn prune_index(&mut self, oldest: u32) {
        let markers = logread::markers(&self.dir);
        if markers.first().is_none_or(|m| m.boot >= oldest) {
            return;
        }
        let mut kept = Vec::new();
        for marker in markers.iter().filter(|m| m.boot >= oldest) {
            if serde_json::to_writer(&mut kept, marker).is_ok() {
                kept.push(b'\n');
            }
        }
        let temporary = self.dir.join(".index.new");
        let file = self.access.open(&temporary, OpenOptions::new().write(true).truncate(true));
        let written = file.and_then(|mut f| f.write_all(&kept));
        // The old index with too many lines is as good as the new one.
        let _ = written.and_then(|()| std::fs::rename(&temporary, logread::index_path(&self.dir)));
    }

    fn make_dir(&self) -> io::Result<()> {
        self.access.make_dir(&self.dir)
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        self.access.open(path, OpenOptions::new().append(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::logread::{At, BootReader, boots, last_lines, read_at, resolve, segments};
    use proptest::prelude::*;
    use std::io::Read;

    fn all(dir: &Path, boot: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        BootReader::new(dir, boot).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn boots_are_kept_apart_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 1 << 20);
        log.begin_boot(7, 70);
        log.append(b"first\n");
        drop(log);
        let mut log = Log::open(dir.path(), 1 << 20);
        assert_eq!((log.boot(), log.end()), (1, 6));
        log.append(b"more\n");
        log.begin_boot(8, 80);
        log.append(b"second\n");
        assert_eq!(all(dir.path(), 1), b"first\nmore\n");
        assert_eq!(all(dir.path(), 2), b"second\n");
        assert_eq!(
            (resolve(dir.path(), 0), resolve(dir.path(), -1), resolve(dir.path(), 1)),
            (Some(2), Some(1), Some(1))
        );
        assert_eq!((resolve(dir.path(), -2), resolve(dir.path(), 3)), (None, None));
        let known: Vec<_> = boots(dir.path()).iter().map(|b| (b.number, b.bytes)).collect();
        assert_eq!(known, [(1, 11), (2, 7)]);
    }

    #[test]
    fn the_bound_holds_and_the_newest_bytes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let bound = 64 << 10;
        let mut log = Log::open(dir.path(), bound);
        log.begin_boot(7, 70);
        let line: Vec<u8> = (0..=255).collect();
        for _ in 0..2000 {
            log.append(&line);
            assert!(segments(dir.path()).iter().map(|s| s.len + s.index).sum::<u64>() <= bound);
        }
        let kept = all(dir.path(), 1);
        assert!(kept.len() as u64 >= bound - bound / 4, "{}", kept.len());
        assert_eq!(kept[kept.len() - 256..], line);
        let first = segments(dir.path())[0].start;
        let mut buffer = [0; 16];
        assert_eq!(read_at(dir.path(), log.segments(), 1, 0, &mut buffer), At::Skip(first));
        assert_eq!(read_at(dir.path(), log.segments(), 1, log.end(), &mut buffer), At::End);
    }

    #[test]
    fn a_guest_that_boots_for_ever_leaves_few_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 1 << 20);
        for pid in 0..200 {
            log.begin_boot(pid, 1);
            log.append(b"panic\n");
            log.mark(Event::Ended { cause: crate::console::record::Cause::Exit, code: Some(1) });
        }
        assert_eq!(segments(dir.path()).len(), 64);
        assert_eq!(logread::markers(dir.path()).len(), 128);
        assert_eq!(resolve(dir.path(), 0), Some(200));
    }

    #[test]
    fn bytes_that_could_not_be_written_are_counted_and_leave_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console");
        let mut log = Log::open(&console, 1 << 20);
        log.begin_boot(7, 70);
        log.append(b"before\n");
        std::fs::remove_dir_all(&console).unwrap();
        std::fs::write(&console, b"in the way").unwrap();
        log.begin_boot(8, 80);
        log.append(b"lost\n");
        assert_eq!((log.lost(), log.end()), (5, 5));
        assert!(log.trouble().is_some());
        std::fs::remove_file(&console).unwrap();
        log.append(b"after\n");
        assert_eq!((log.lost(), log.end(), log.trouble()), (5, 11, None));
        assert_eq!(segments(&console), [Segment { boot: 2, start: 5, len: 6, index: 16 }]);
        assert_eq!(all(&console, 2), b"after\n");
    }

    #[test]
    fn the_last_lines_are_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 1 << 20);
        log.begin_boot(7, 70);
        log.append(b"one\r\n\r\n\x1b[31mtwo\x1b[0m\r\n\x1b]0;x\x07three");
        assert_eq!(last_lines(dir.path(), 1, 2), ["two", "three"]);
        assert_eq!(last_lines(dir.path(), 9, 2), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read_in_order(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::open(dir.path(), 1 << 20);
            log.begin_boot(7, 70);
            for chunk in &chunks {
                log.append(chunk);
            }
            prop_assert_eq!(all(dir.path(), 1), chunks.concat());
        }
    }
}

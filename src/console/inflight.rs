//! Output between the guest's terminal and the log: held where the end of the process cannot take it away.
//!
//! read(2) takes bytes out of a pty for good. A holder that is killed before it has written them to the log would lose
//! them, so it reads into a shared mapping of a file: the kernel puts the bytes there before the process can die. The next
//! holder looks into the file. The buffer is all zeros before a read, so that after a kill its last byte that is not
//! zero tells how far an unfinished read came; zeros at the end of such a read are the one thing that is lost, and a
//! terminal ignores those.

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::names::GuestName;

/// Most bytes that are taken at once.
pub const CAPACITY: usize = 64 << 10;

// The header: length of the name, name, boot, offset, bytes that are certainly there.
const NAME_LEN: usize = 0;
const NAME: usize = 8;
const BOOT: usize = 40;
const OFFSET: usize = 48;
const FILLED: usize = 56;
const DATA: usize = 64;
const SIZE: usize = DATA + CAPACITY;

/// The mapped file. One process has it at a time (the holder's lock).
#[derive(Debug)]
pub struct Inflight {
    map: NonNull<u8>,
    filled: usize,
}

/// What a holder that was killed left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whose output it is.
    pub guest: GuestName,
    /// Its boot.
    pub boot: u32,
    /// Offset of the first byte; the log may already have some or all of them.
    pub offset: u64,
    /// The output.
    pub bytes: Vec<u8>,
}

impl Inflight {
    /// Reads what the last holder left, and makes the file anew.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Left>)> {
        let left = std::fs::read(path).ok().and_then(|content| parse(&content));
        let temporary = path.with_extension("inflight.new");
        let mut options = File::options();
        let options = std::os::unix::fs::OpenOptionsExt::mode(options.read(true).write(true), 0o600);
        let file = options.create(true).truncate(true).open(&temporary)?;
        // A page that has no room on its filesystem when it is first touched would be a SIGBUS.
        fallocate(&file, FallocateFlags::empty(), 0, SIZE as u64)?;
        let map = map(&file)?;
        Ok((Self { map, filled: 0 }, left))
    }

    /// To be called when what was left has been taken care of: only now it is forgotten.
    pub fn settle(&self, path: &Path) -> io::Result<()> {
        std::fs::rename(path.with_extension("inflight.new"), path)
    }

    /// The next reads are this guest's, from this offset of this boot on.
    pub fn begin(&mut self, guest: &GuestName, boot: u32, offset: u64) {
        let name = guest.as_str().as_bytes();
        let bytes = self.bytes();
        bytes[NAME..NAME + name.len()].copy_from_slice(name);
        bytes[BOOT..BOOT + 4].copy_from_slice(&boot.to_ne_bytes());
        bytes[OFFSET..OFFSET + 8].copy_from_slice(&offset.to_ne_bytes());
        bytes[FILLED..FILLED + 8].copy_from_slice(&0u64.to_ne_bytes());
        bytes[NAME_LEN] = u8::try_from(name.len()).unwrap_or(0);
        self.filled = 0;
    }

    /// Where to read to; empty if the buffer is full.
    pub fn room(&mut self) -> &mut [u8] {
        let filled = self.filled;
        &mut self.bytes()[DATA + filled..]
    }

    /// So many more bytes are there.
    pub fn filled(&mut self, more: usize) {
        self.filled = (self.filled + more).min(CAPACITY);
        let filled = self.filled as u64;
        self.bytes()[FILLED..FILLED + 8].copy_from_slice(&filled.to_ne_bytes());
    }

    /// The last bytes of them do not belong here.
    pub fn cut(&mut self, bytes: usize) {
        let (kept, before) = (self.filled.saturating_sub(bytes), self.filled);
        self.filled = kept;
        let map = self.bytes();
        map[FILLED..FILLED + 8].copy_from_slice(&(kept as u64).to_ne_bytes());
        map[DATA + kept..DATA + before].fill(0);
    }

    /// All that was read since [`Inflight::begin`].
    pub fn data(&mut self) -> &[u8] {
        let filled = self.filled;
        &self.bytes()[DATA..DATA + filled]
    }

    /// The log has it all.
    pub fn commit(&mut self) {
        let filled = self.filled;
        self.filled = 0;
        let bytes = self.bytes();
        bytes[NAME_LEN] = 0;
        bytes[FILLED..FILLED + 8].fill(0);
        bytes[DATA..DATA + filled].fill(0);
    }

    #[expect(unsafe_code, reason = "a shared mapping is only reachable through its address")]
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is SIZE bytes long, lives as long as self, and is borrowed through &mut self alone; no other
        // process writes to the file, which is private to the one that has the holder's lock.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_ptr(), SIZE) }
    }
}

#[expect(unsafe_code, reason = "mmap(2) has no safe form")]
fn map(file: &File) -> io::Result<NonNull<u8>> {
    let (access, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice, of a file that is SIZE bytes long.
    let map = unsafe { mmap(std::ptr::null_mut(), SIZE, access, shared, file, 0) }?;
    NonNull::new(map.cast::<u8>()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for Inflight {
    #[expect(unsafe_code, reason = "munmap(2) has no safe form")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no slice of it outlives self.
        let _ = unsafe { munmap(self.map.as_ptr().cast(), SIZE) };
    }
}

fn parse(content: &[u8]) -> Option<Left> {
    let number = |at: usize| Some(u64::from_ne_bytes(content.get(at..at + 8)?.try_into().ok()?));
    let len = usize::from(*content.first()?);
    let name = content.get(NAME..NAME + len).filter(|_| (1..=32).contains(&len))?;
    let guest = std::str::from_utf8(name).ok()?.parse().ok()?;
    let boot = u32::from_ne_bytes(content.get(BOOT..BOOT + 4)?.try_into().ok()?);
    let (offset, filled) = (number(OFFSET)?, usize::try_from(number(FILLED)?).ok()?);
    let data = content.get(DATA..)?;
    let end = data.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1).max(filled).min(data.len());
    (end > 0).then(|| Left { guest, boot, offset, bytes: data[..end].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left_after(act: impl FnOnce(&mut Inflight)) -> Option<Left> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inflight");
        let (mut inflight, left) = Inflight::open(&path).unwrap();
        assert_eq!(left, None);
        inflight.settle(&path).unwrap();
        act(&mut inflight);
        // Not dropped: what the file holds now is what a kill would leave.
        let left = Inflight::open(&path).unwrap().1;
        drop(inflight);
        left
    }

    #[test]
    fn what_was_read_and_not_logged_is_found() {
        let guest: GuestName = "ce".parse().unwrap();
        let left = left_after(|inflight| {
            inflight.begin(&guest, 3, 1000);
            inflight.room()[..4].copy_from_slice(b"abc\0");
            inflight.filled(4);
            // A read that the process did not live to hear of.
            inflight.room()[..2].copy_from_slice(b"de");
        });
        assert_eq!(left, Some(Left { guest, boot: 3, offset: 1000, bytes: b"abc\0de".to_vec() }));
    }

    #[test]
    fn what_was_logged_is_not_found_again() {
        let guest: GuestName = "ce".parse().unwrap();
        let left = left_after(|inflight| {
            inflight.begin(&guest, 3, 1000);
            inflight.room()[..4].copy_from_slice(b"abcd");
            inflight.filled(4);
            inflight.commit();
            inflight.begin(&guest, 3, 1004);
        });
        assert_eq!(left, None);
    }

    #[test]
    fn what_was_not_settled_is_found_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inflight");
        let (mut inflight, _) = Inflight::open(&path).unwrap();
        inflight.settle(&path).unwrap();
        inflight.begin(&"ce".parse().unwrap(), 1, 0);
        inflight.room()[0] = b'x';
        assert!(Inflight::open(&path).unwrap().1.is_some());
        assert!(Inflight::open(&path).unwrap().1.is_some());
    }

    proptest! {
        #[test]
        fn any_file_is_understood_or_ignored(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&content);
        }
    }
}

//! Memory that frames are unpacked into, used again and again: pages of a fresh one would cost as much time as what is put there.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::host::memory::{LARGE_PAGE, prefer_large_pages};

/// Where the bytes of a buffer begin at least: what is handed to a device as it stands has to begin like this.
const ALIGNMENT: usize = 4096;

/// A fixed number of buffers. Whoever takes one waits until one is free.
#[derive(Debug)]
pub(super) struct Shelf {
    back: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

/// Goes back to its shelf when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    used: Range<usize>,
    back: Sender<Vec<u8>>,
}

/// A part of a buffer, which is held as long as anybody has a part of it.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl Shelf {
    pub(super) fn new(buffers: usize) -> Self {
        let (back, free) = channel();
        for _ in 0..buffers {
            // The other end is here.
            let _ = back.send(Vec::new());
        }
        Self { back, free }
    }

    /// A buffer of that length; what is in it is of no interest. The shelf's own end keeps the channel open, so there will be one as
    /// soon as others let go of theirs.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut memory = self.free.recv().unwrap_or_default();
        let alignment = if len < LARGE_PAGE { ALIGNMENT } else { LARGE_PAGE };
        let begin = |memory: &[u8]| memory.as_ptr().align_offset(alignment).min(alignment);
        if memory.len() < len + alignment {
            // Not grown: what was in it would be copied, and a new one is all zeros without anybody having touched it.
            drop(memory);
            memory = vec![0; len + alignment];
            let start = begin(&memory);
            prefer_large_pages(&mut memory[start..start + len]);
        }
        let start = begin(&memory);
        Buffer { memory, used: start..start + len, back: self.back.clone() }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.used.clone()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.used.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Where the shelf is gone, the memory goes too.
        let _ = self.back.send(std::mem::take(&mut self.memory));
    }
}

impl Slice {
    /// That part of a buffer; the whole of it at most.
    pub(super) fn of(buffer: &Arc<Buffer>, range: Range<usize>) -> Self {
        Self { buffer: Arc::clone(buffer), range }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_part_is_let_go() {
        let shelf = Shelf::new(1);
        let mut buffer = shelf.take(10_000);
        buffer.fill(7);
        let at = buffer.as_ptr();
        let buffer = Arc::new(buffer);
        let parts = [Slice::of(&buffer, 0..10), Slice::of(&buffer, 9000..10_000)];
        drop(buffer);
        assert!(parts[1].iter().all(|byte| *byte == 7) && parts[1].len() == 1000);
        let [first, last] = parts;
        drop(first);
        assert!(shelf.free.try_recv().is_err());
        drop(last);
        assert_eq!(shelf.take(5000).as_ptr(), at);
    }

    #[test]
    fn a_buffer_has_the_length_that_is_asked_for_and_begins_at_a_page() {
        let shelf = Shelf::new(1);
        for len in [0, 1, 100_000, 4096, 5 << 20, 300_000] {
            let buffer = shelf.take(len);
            assert_eq!((buffer.len(), buffer.as_ptr().addr() % ALIGNMENT), (len, 0));
        }
    }
}

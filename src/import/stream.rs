//! A stream on its way in: its bytes are counted and digested as they come, and it never holds this process when the user wants
//! an end.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::host::decompress;
use crate::host::programs::Programs;

const PIECE: usize = 256 << 10;
/// Pieces that wait.
const AHEAD: usize = 4;
/// An interrupt is noticed this late at most.
const SLICE: Duration = Duration::from_millis(100);

/// What went through so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    hasher: Arc<Mutex<blake3::Hasher>>,
    bytes: Arc<AtomicU64>,
}

impl Heard {
    /// How many bytes came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// BLAKE3 of them.
    pub(super) fn digest(&self) -> String {
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner).finalize().to_hex().to_string()
    }
}

/// The input, decompressed.
pub(super) fn open(host: &dyn Programs, input: Box<dyn Read + Send>, heard: &Heard) -> Result<Pieces> {
    let mut input = decompress::open(host, Box::new(Ears { input, heard: heard.clone() }))?;
    let (sender, receiver) = sync_channel(AHEAD);
    // Not waited for: a pipe that gives nothing would hold it for ever.
    std::thread::spawn(move || pump(&mut input, &sender));
    Ok(Pieces { receiver, piece: Vec::new(), at: 0, ended: false })
}

struct Ears {
    input: Box<dyn Read + Send>,
    heard: Heard,
}

impl Read for Ears {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.heard.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..count]);
        self.heard.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

type Piece = io::Result<Vec<u8>>;

/// The last piece is empty, or an error.
fn pump(input: &mut dyn Read, sender: &SyncSender<Piece>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = input.take(PIECE as u64).read_to_end(&mut piece);
        let is_last = !matches!(read, Ok(1..));
        if sender.send(read.map(|_| piece)).is_err() || is_last {
            return;
        }
    }
}

/// What comes from the thread that reads.
pub(super) struct Pieces {
    receiver: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            match self.receiver.recv_timeout(SLICE) {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(RecvTimeoutError::Timeout) if crate::progress::interrupted() => {
                    return Err(io::Error::other("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that reads it has died"));
                }
            }
            self.ended = self.piece.is_empty();
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Live;

    #[test]
    fn what_comes_out_is_what_went_in_and_its_digest_is_of_what_came() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let heard = Heard::default();
        let mut all = Vec::new();
        let input = Box::new(io::Cursor::new(bytes.clone()));
        open(&Live, input, &heard).unwrap().read_to_end(&mut all).unwrap();
        assert!(all == bytes);
        assert_eq!(heard.digest(), blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(heard.bytes(), 1_000_000);
    }

    #[test]
    fn an_error_of_the_input_comes_out() {
        let mut all = Vec::new();
        let input = Box::new(io::Cursor::new(b"\x1f\x8bno gzip".to_vec()));
        assert!(open(&Live, input, &Heard::default()).unwrap().read_to_end(&mut all).is_err());
    }
}

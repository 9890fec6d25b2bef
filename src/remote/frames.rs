//! What the near end tells the far end, over the far end's standard input: the user's own input, signals, and that somebody
//! is still there. A frame is a byte for its kind, the length of what follows in four bytes (big end first), and that.
//!
//! The stream itself is never ended on purpose, so that its end always means that the near end is gone.

use anyhow::{Result, bail};

/// The near end sends [`Frame::Beat`] at least this often.
pub const BEAT: std::time::Duration = std::time::Duration::from_secs(10);
/// No frame carries more.
pub const LONGEST: usize = 32 << 10;

/// One thing told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Input for the command.
    Input(Vec<u8>),
    /// The input is over.
    InputEnds,
    /// A signal, by its number.
    Signal(u8),
    /// Still there.
    Beat,
}

impl Frame {
    /// As it goes over the line; input of [`LONGEST`] bytes at most.
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Input(bytes) => (b'i', bytes),
            Self::InputEnds => (b'e', &[]),
            Self::Signal(number) => (b's', std::slice::from_ref(number)),
            Self::Beat => (b'b', &[]),
        };
        let length = (payload.len() as u32).to_be_bytes();
        [&[kind], length.as_slice(), payload].concat()
    }
}

/// Takes a stream apart, however it is cut.
#[derive(Debug, Default)]
pub struct Reader(Vec<u8>);

impl Reader {
    /// What arrived; frames that are complete now. An error if no gridgate wrote this.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>> {
        self.0.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(&[kind, a, b, c, d]) = self.0.get(at..at + 5) {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length > LONGEST {
                bail!("reading what the near end says: a frame of {length} bytes");
            }
            let Some(payload) = self.0.get(at + 5..at + 5 + length) else { break };
            frames.push(match (kind, payload) {
                (b'i', bytes) => Frame::Input(bytes.to_vec()),
                (b'e', []) => Frame::InputEnds,
                (b's', [number]) => Frame::Signal(*number),
                (b'b', []) => Frame::Beat,
                _ => bail!("reading what the near end says: a frame of unknown kind {kind}"),
            });
            at += 5 + length;
        }
        self.0.drain(..at);
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Frame::Input),
            Just(Frame::InputEnds),
            any::<u8>().prop_map(Frame::Signal),
            Just(Frame::Beat),
        ]
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_however_the_stream_is_cut(
            frames in proptest::collection::vec(frame(), 0..10), piece in 1_usize..50
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
            let mut reader = Reader::default();
            let mut back = Vec::new();
            for bytes in stream.chunks(piece) {
                back.extend(reader.push(bytes).unwrap());
            }
            prop_assert_eq!(back, frames);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader::default().push(&bytes);
        }
    }

    #[test]
    fn a_frame_that_says_it_is_huge_is_refused_before_it_is_kept() {
        assert!(Reader::default().push(b"i\xff\xff\xff\xff").is_err());
    }
}

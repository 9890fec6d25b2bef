//! What a user types, and what of it is meant for us: the escape key and the one after it.

use std::time::{Duration, Instant};

use super::Escape;

/// The escape key alone detaches after this; long enough to find the key that comes after it.
const ALONE: Duration = Duration::from_millis(1000);

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// For the guest.
    Type(Vec<u8>),
    /// A break for the guest.
    Break,
    /// What can be typed.
    Help,
    /// Away from here.
    Detach,
}

/// What the keys after the escape key do, for people.
pub(super) fn help(escape: Escape) -> String {
    format!(
        "{escape} detaches; then . detaches at once, b sends a break (system request), {escape} again sends itself, \
         ? shows this"
    )
}

/// The state between two keys.
#[derive(Debug)]
pub(super) struct Keys {
    escape: Option<u8>,
    pressed: Option<Instant>,
}

impl Keys {
    /// Everything is for the guest if there is no escape key.
    pub(super) fn new(escape: Option<u8>) -> Self {
        Self { escape, pressed: None }
    }

    /// Takes what was typed.
    pub(super) fn push(&mut self, typed: &[u8], now: Instant) -> Vec<Act> {
        let (mut acts, mut plain) = (Vec::new(), Vec::new());
        for &byte in typed {
            let special = match (Some(byte) == self.escape, self.pressed.take()) {
                (true, Some(_)) | (false, None) => {
                    plain.push(byte);
                    continue;
                }
                (true, None) => {
                    self.pressed = Some(now);
                    continue;
                }
                (false, Some(_)) => match byte {
                    b'b' | b'B' => Act::Break,
                    b'?' | b'h' => Act::Help,
                    _ => Act::Detach,
                },
            };
            if !plain.is_empty() {
                acts.push(Act::Type(std::mem::take(&mut plain)));
            }
            acts.push(special);
        }
        if !plain.is_empty() {
            acts.push(Act::Type(plain));
        }
        acts
    }

    /// How long until [`Keys::is_alone`].
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.pressed.map(|at| (at + ALONE).saturating_duration_since(now))
    }

    /// The escape key was pressed, and nothing after it.
    pub(super) fn is_alone(&self, now: Instant) -> bool {
        self.wait(now).is_some_and(|left| left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed(chunks: &[&[u8]]) -> Vec<Act> {
        let (mut keys, now) = (Keys::new(Some(0x1d)), Instant::now());
        chunks.iter().flat_map(|chunk| keys.push(chunk, now)).collect()
    }

    #[test]
    fn the_key_after_the_escape_key_is_ours() {
        let text = |text: &[u8]| Act::Type(text.to_vec());
        assert_eq!(
            typed(&[b"ls\r\x1db", b"x\x1d", b"?"]),
            [text(b"ls\r"), Act::Break, text(b"x"), Act::Help]
        );
        assert_eq!(typed(&[b"\x1d."]), [Act::Detach]);
        assert_eq!(typed(&[b"\x1d\x1d\x1d\x1d"]), [text(b"\x1d\x1d")]);
    }

    #[test]
    fn the_escape_key_alone_detaches_after_its_time() {
        let (mut keys, now) = (Keys::new(Some(0x1d)), Instant::now());
        assert_eq!(keys.wait(now), None);
        assert_eq!(keys.push(b"\x1d", now), []);
        assert!(!keys.is_alone(now));
        assert_eq!(keys.wait(now), Some(ALONE));
        assert!(keys.is_alone(now + ALONE));
    }

    proptest! {
        #[test]
        fn without_an_escape_key_all_is_for_the_guest(bytes in prop::collection::vec(any::<u8>(), 1..50)) {
            prop_assert_eq!(Keys::new(None).push(&bytes, Instant::now()), [Act::Type(bytes)]);
        }

        #[test]
        fn the_chunks_make_no_difference(bytes in prop::collection::vec(prop_oneof![Just(0x1d), any::<u8>()], 0..50), step in 1usize..9) {
            let flat = |acts: Vec<Act>| {
                let mut flat: Vec<Act> = Vec::new();
                for act in acts {
                    match (flat.last_mut(), act) {
                        (Some(Act::Type(text)), Act::Type(more)) => text.extend(more),
                        (_, act) => flat.push(act),
                    }
                }
                flat
            };
            let chunks: Vec<&[u8]> = bytes.chunks(step).collect();
            prop_assert_eq!(flat(typed(&chunks)), flat(typed(&[&bytes])));
        }
    }
}

//! Choosing from a console's output: lines that match, made harmless unless they are wanted raw.

use regex::bytes::Regex;

use crate::console::sanitise::Filter;

/// A longer line is looked at in parts.
const LINE_BYTES: usize = 64 << 10;
/// Ends the colours of a line that stands alone.
const CALM: &[u8] = b"\x1b[m";

/// A filter over a stream; the same output whatever the chunks. Without a pattern everything passes at once, with one each line
/// when it is finished.
#[derive(Debug)]
pub struct Picker {
    pattern: Option<Regex>,
    raw: bool,
    filter: Filter,
    line: Vec<u8>,
    /// What comes up to the line's end belongs to a line that is not wanted.
    inside: bool,
    picked: u64,
}

impl Picker {
    /// Of the lines' plain text, in which a carriage return ends a line too.
    pub fn new(pattern: Option<Regex>, raw: bool) -> Self {
        Self { pattern, raw, filter: Filter::for_terminal(), line: Vec::new(), inside: false, picked: 0 }
    }

    /// Bytes or, with a pattern, lines that have passed.
    pub fn picked(&self) -> u64 {
        self.picked
    }

    /// The next bytes do not follow on the last ones; `inside` a line, its rest is left out.
    pub fn jump(&mut self, inside: bool, out: &mut Vec<u8>) {
        self.finish(out);
        self.inside = inside;
    }

    /// Appends what is wanted of the next chunk.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if self.inside {
            let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return };
            bytes = &bytes[end + 1..];
            self.inside = false;
        }
        if self.pattern.is_none() {
            self.picked += bytes.len() as u64;
            match self.raw {
                true => out.extend_from_slice(bytes),
                false => self.filter.push(bytes, out),
            }
            return;
        }
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
            let end = end.min(LINE_BYTES - self.line.len());
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end..];
            if self.line.ends_with(b"\n") || self.line.len() == LINE_BYTES {
                self.look(out);
            }
        }
    }

    /// Appends what is left at the stream's end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.look(out);
        }
        self.filter.finish(out);
    }

    fn look(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let mut plain = Vec::with_capacity(line.len());
        let mut filter = Filter::plain();
        filter.push(&line, &mut plain);
        filter.finish(&mut plain);
        let matches =
            |pattern: &Regex| plain.split(|b| matches!(b, b'\r' | b'\n')).any(|part| pattern.is_match(part));
        if self.pattern.as_ref().is_some_and(matches) {
            self.picked += 1;
            if self.raw {
                out.extend_from_slice(&line);
            } else {
                let mut filter = Filter::for_terminal();
                filter.push(&line, out);
                filter.finish(out);
                if line.contains(&0x1b) {
                    out.extend_from_slice(CALM);
                }
            }
        }
        self.line = line;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picked(pattern: &str, raw: bool, chunks: &[&[u8]]) -> Vec<u8> {
        let (mut picker, mut out) = (Picker::new(Some(Regex::new(pattern).unwrap()), raw), Vec::new());
        for chunk in chunks {
            picker.push(chunk, &mut out);
        }
        picker.finish(&mut out);
        out
    }

    #[test]
    fn only_lines_that_match_pass() {
        let text: &[u8] = b"one\r\nKernel panic\r\ntwo\r\nkernel";
        assert_eq!(picked("(?i)kernel", false, &[text]), b"Kernel panic\r\nkernel");
        assert_eq!(picked("^two$", false, &[text]), b"two\r\n");
    }

    #[test]
    fn a_line_matches_by_its_text_and_not_by_its_colours() {
        assert_eq!(
            picked("^panic$", false, &[b"\x1b[31mpa\x1b[1mnic\x1b]0;t\x07\n"]),
            b"\x1b[31mpa\x1b[1mnic\n\x1b[m"
        );
        assert_eq!(picked("^panic$", true, &[b"\x1b[31mpanic\n"]), b"\x1b[31mpanic\n");
    }

    #[test]
    fn the_rest_of_an_unwanted_line_is_left_out() {
        let (mut picker, mut out) = (Picker::new(None, false), Vec::new());
        picker.push(b"before", &mut out);
        picker.jump(true, &mut out);
        picker.push(b"rest of", &mut out);
        picker.push(b" a line\nwanted", &mut out);
        assert_eq!((out, picker.picked()), (b"beforewanted".to_vec(), 12));
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let long = vec![b'x'; LINE_BYTES * 2 + 1];
        assert_eq!(picked("x", true, &[&long]), long);
    }

    proptest! {
        #[test]
        fn the_chunks_make_no_difference(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0x1b), any::<u8>()], 0..200), step in 1usize..40) {
            let chunks: Vec<&[u8]> = bytes.chunks(step).collect();
            prop_assert_eq!(picked("[a-m]", false, &chunks), picked("[a-m]", false, &[&bytes]));
        }
    }
}

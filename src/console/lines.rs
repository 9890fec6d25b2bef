//! A console as lines of text, for looking at.

use crate::console::sanitise::Filter;

/// A line that is longer than this is looked at in parts.
pub const LINE_BYTES: usize = 4096;

/// Cuts a stream into lines without escape sequences. A line ends at `\n` or `\r`: what a progress bar overwrites counts as
/// a line of its own. Empty lines are left out.
#[derive(Debug)]
pub struct Lines {
    filter: Filter,
    text: Vec<u8>,
    line: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { filter: Filter::plain(), text: Vec::new(), line: Vec::new() }
    }
}

impl Lines {
    /// Shows `look` every line that the chunk ends, and then the one that it leaves unfinished.
    pub fn push(&mut self, bytes: &[u8], mut look: impl FnMut(&[u8])) {
        self.push_whole(bytes, &mut look);
        if !self.line.is_empty() {
            look(&self.line);
        }
    }

    /// Shows `look` every line that the chunk ends.
    pub fn push_whole(&mut self, bytes: &[u8], mut look: impl FnMut(&[u8])) {
        self.text.clear();
        self.filter.push(bytes, &mut self.text);
        for &byte in &self.text {
            let end = matches!(byte, b'\n' | b'\r');
            if end || self.line.len() >= LINE_BYTES {
                if !self.line.is_empty() {
                    look(&self.line);
                }
                self.line.clear();
            }
            if !end {
                self.line.push(byte);
            }
        }
    }
}

/// Whether a line is, or begins with, a login prompt: `HOST login: `, with nothing or a kernel message behind it (both write to
/// the same terminal, in any order).
pub fn is_login_prompt(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let lower = line.to_ascii_lowercase();
    let Some(at) = lower.find("login:") else { return false };
    let (before, after) = (&lower[..at], &lower[at + "login:".len()..]);
    let host = before.trim_end();
    if !(before.is_empty() || before.ends_with(' ')) || host.contains(' ') || host == "last" {
        return false;
    }
    let kernel_message = |rest: &str| {
        let stamp = rest.strip_prefix('[').and_then(|r| r.split_once(']')).map(|(stamp, _)| stamp.trim());
        stamp.is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
    };
    after.starts_with(' ') && (after.trim().is_empty() || kernel_message(after.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
        }
        seen
    }

    #[test]
    fn lines_are_cut_across_chunks_and_sequences() {
        assert_eq!(lines(&[b"one\r\ntw", b"o\x1b[3", b"1m!\r\n"]), ["one", "tw", "two", "two!"]);
    }

    #[test]
    fn a_line_without_end_is_looked_at_in_parts() {
        let long = vec![b'x'; LINE_BYTES * 2 + 1];
        assert_eq!(lines(&[&long]).iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES, LINE_BYTES, 1]);
    }

    #[test]
    fn the_usual_login_prompts_are_known() {
        let yes = [
            "ce login: ",
            "login: ",
            "localhost login: ",
            "archlinux login: ",
            "(none) login: ",
            "Ce Login: ",
        ];
        for line in yes {
            assert!(is_login_prompt(line.as_bytes()), "{line:?}");
        }
        assert!(is_login_prompt(b"ce login: [    9.123456] random: crng init done"));
        let no = [
            "Last login: ",
            "Last login: Mon Jan  1",
            "ce login:",
            "Starting user login: x",
            "ce login: root",
            "nologin: ",
        ];
        for line in no {
            assert!(!is_login_prompt(line.as_bytes()), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_prompt_or_not(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = is_login_prompt(&line);
        }
    }
}

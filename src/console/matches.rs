//! Lines of a console that the site wants to hear of.

use std::time::{Duration, Instant};

use anyhow::Result;
use regex::bytes::Regex;

use crate::console::lines::Lines;
use crate::console::ready;

/// A guest that says such a line all the time is told of so often, and then no more than once in [`REFILL`].
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(1);
/// Longest text of a line that is handed on.
const LINE_CHARS: usize = 400;

/// A guest's patterns, and what its console has said of an unfinished line.
#[derive(Debug)]
pub struct Matches {
    patterns: Vec<(String, Regex)>,
    lines: Lines,
    left: u32,
    refilled: Instant,
}

/// A line that a pattern is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// As in the site's files.
    pub pattern: String,
    /// The line, without escape sequences.
    pub line: String,
}

impl Matches {
    /// For these patterns; a pattern that cannot be understood is an error.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let compiled = patterns.iter().map(|text| Ok((text.clone(), ready::pattern(text)?)));
        let patterns = compiled.collect::<Result<Vec<_>>>()?;
        Ok(Self { patterns, lines: Lines::default(), left: BURST, refilled: Instant::now() })
    }

    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The lines that this chunk ends and that a pattern is in, as far as they may be told.
    pub fn output(&mut self, bytes: &[u8], now: Instant) -> Vec<Match> {
        let mut found = Vec::new();
        let Self { patterns, lines, left, refilled } = self;
        let whole = u32::try_from(now.saturating_duration_since(*refilled).as_secs() / REFILL.as_secs());
        let whole = whole.unwrap_or(u32::MAX);
        if whole > 0 {
            *left = left.saturating_add(whole).min(BURST);
            *refilled = now;
        }
        lines.push_whole(bytes, |line| {
            if *left == 0 {
                return;
            }
            if let Some((pattern, _)) = patterns.iter().find(|(_, regex)| regex.is_match(line)) {
                *left -= 1;
                let line = String::from_utf8_lossy(line).chars().take(LINE_CHARS).collect();
                found.push(Match { pattern: pattern.clone(), line });
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(found: &[Match]) -> Vec<&str> {
        found.iter().map(|found| found.line.as_str()).collect()
    }

    #[test]
    fn a_line_is_told_once_and_when_it_is_whole() {
        let mut matches = Matches::new(&["Out of memory".to_owned(), "memory".to_owned()]).unwrap();
        let now = Instant::now();
        assert_eq!(matches.output(b"x\nOut of mem", now), []);
        assert_eq!(matches.output(b"ory: killed", now), []);
        let found = matches.output(b" 7\r\nlow memory\n", now);
        assert_eq!(lines(&found), ["Out of memory: killed 7", "low memory"]);
        assert_eq!(found[0].pattern, "Out of memory");
        assert_eq!(matches.output(b"\n", now), []);
    }

    #[test]
    fn a_console_that_says_it_all_the_time_is_told_of_now_and_then() {
        let mut matches = Matches::new(&["x".to_owned()]).unwrap();
        let now = Instant::now();
        assert_eq!(matches.output(&b"x\n".repeat(1000), now).len(), BURST as usize);
        assert_eq!(matches.output(&b"x\n".repeat(1000), now + Duration::from_millis(900)).len(), 0);
        assert_eq!(matches.output(&b"x\n".repeat(1000), now + Duration::from_secs(3)).len(), 3);
    }

    #[test]
    fn a_pattern_that_cannot_be_understood_is_refused() {
        assert!(Matches::new(&["(".to_owned()]).is_err());
    }
}

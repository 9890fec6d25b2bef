//! The search itself: all forms at once, in a stream of any length, in bounded memory.

use std::io::{ErrorKind, Read};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use anyhow::{Context, Result};

use super::needles::{Data, Needle, Needles, Scope, Sort};
use super::old::Old;
use super::pem;

/// How much of a stream is held; a key or certificate must fit in to be decoded whole.
pub(super) const BUFFER: usize = 256 << 10;

/// Bytes kept before a place, so that what stands before it can be seen.
const CONTEXT: usize = 8;

/// All forms, ready to be looked for.
pub(super) struct Finder<'n> {
    automaton: AhoCorasick,
    needles: &'n [Needle],
    old: &'n Old,
    longest: usize,
}

/// What a file is, as far as that decides what means something in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Where {
    /// It came with a package.
    pub packaged: bool,
    /// It is a log.
    pub log: bool,
    /// The new machine has written it itself.
    pub newer: bool,
}

impl Where {
    fn takes(self, needle: &Needle) -> bool {
        let scope = match needle.scope {
            Scope::Everywhere => true,
            Scope::State => !self.packaged,
            Scope::Logs => self.log,
        };
        // A machine that the new one knows may be spoken of.
        scope && !(needle.shared && self.newer)
    }
}

/// One form at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub sort: Sort,
    pub shown: String,
    /// In what was searched.
    pub offset: u64,
    /// From 1.
    pub line: u64,
    /// What it was decoded from.
    pub inside: Option<String>,
}

impl<'n> Finder<'n> {
    pub(super) fn new(needles: &'n Needles, old: &'n Old) -> Result<Self> {
        let forms = needles.all.iter().map(|needle| needle.bytes.as_slice()).chain([pem::BEGIN]);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(forms)
            .context("preparing the search for an old identity")?;
        let longest = needles.all.iter().map(|needle| needle.bytes.len()).max().unwrap_or(0);
        Ok(Self { automaton, needles: &needles.all, old, longest: longest.max(pem::BEGIN.len()) })
    }

    /// Every form that stands alone in a piece of data, and where blocks of PEM begin.
    fn each<'d>(
        &self,
        data: &'d [u8],
        from: usize,
        to: usize,
        at: Where,
        kind: Data,
        each: &mut dyn FnMut(Seen<'n, 'd>),
    ) {
        let mut start = from;
        while let Some(found) = self.automaton.find(Input::new(data).span(start..data.len())) {
            if found.start() >= to {
                break;
            }
            let (begin, end) = (found.start(), found.end());
            let Some(needle) = self.needles.get(found.pattern().as_usize()) else {
                each(Seen::Pem(begin, &data[begin..]));
                start = end;
                continue;
            };
            let same = !needle.exact || data[begin..end] == needle.bytes;
            if same && at.takes(needle) && needle.border.holds(data, begin, end, kind) {
                each(Seen::Needle(begin, needle));
                start = end;
            } else {
                // A shorter form may stand inside, or another one begin there.
                start = begin + 1;
            }
        }
    }

    /// Every form in a piece of data that is a value of its own.
    pub(super) fn value(&self, data: &[u8], at: Where, kind: Data, each: &mut dyn FnMut(usize, &'n Needle)) {
        self.each(data, 0, data.len(), at, kind, &mut |seen| {
            if let Seen::Needle(begin, needle) = seen {
                each(begin, needle);
            }
        });
    }

    /// Every form in a stream, whose first byte is at `base` of what is searched; how many bytes there were. `buffer` has
    /// [`BUFFER`] bytes and is the only memory that grows with nothing.
    pub(super) fn stream(
        &self,
        source: &mut dyn Read,
        base: u64,
        at: Where,
        buffer: &mut [u8],
        each: &mut dyn FnMut(Hit),
    ) -> std::io::Result<u64> {
        let keep = self.longest + CONTEXT;
        // What is before `fresh` was searched and is there to be looked back at.
        let (mut filled, mut fresh, mut offset, mut line) = (0, 0, base, 1);
        loop {
            let ended = fill(source, buffer, &mut filled)?;
            let mut safe = if ended { filled } else { filled.saturating_sub(keep).max(fresh) };
            let (mut lines, mut counted) = (0, fresh);
            let mut blocks = None;
            self.each(&buffer[..filled], fresh, safe, at, Data::File, &mut |seen| {
                if blocks.is_some() {
                    return;
                }
                let begin = seen.begin();
                lines += count_lines(&buffer[counted..begin]);
                counted = begin;
                match seen {
                    Seen::Needle(_, needle) => each(Hit {
                        sort: needle.sort,
                        shown: needle.shown.clone(),
                        offset: offset + begin as u64,
                        line: line + lines,
                        inside: None,
                    }),
                    Seen::Pem(_, text) => {
                        let place = (offset + begin as u64, line + lines);
                        match pem::block(text) {
                            Some(block) => self.block(&block, place, at, each),
                            None if ended || begin <= CONTEXT => {
                                self.block(&pem::unfinished(text), place, at, each)
                            }
                            // Its end is further on: it comes first in the buffer next time.
                            None => blocks = Some(begin),
                        }
                    }
                }
            });
            safe = blocks.unwrap_or(safe);
            if ended && blocks.is_none() {
                return Ok(offset + filled as u64 - base);
            }
            line += count_lines(&buffer[fresh..safe]);
            let from = safe.saturating_sub(CONTEXT);
            buffer.copy_within(from..filled, 0);
            (filled, fresh, offset) = (filled - from, safe - from, offset + from as u64);
        }
    }

    /// What a block of PEM holds.
    fn block(&self, block: &pem::Block, place: (u64, u64), at: Where, each: &mut dyn FnMut(Hit)) {
        self.der(&block.label, &block.bytes, place, at, each);
    }

    /// What a certificate or key holds; `inside` of what it is.
    pub(super) fn der(
        &self,
        inside: &str,
        bytes: &[u8],
        place: (u64, u64),
        at: Where,
        each: &mut dyn FnMut(Hit),
    ) {
        let (offset, line) = place;
        let mut hit = |sort: Sort, shown: &str| {
            each(Hit { sort, shown: shown.to_owned(), offset, line, inside: Some(inside.to_owned()) });
        };
        if !self.old.certificates.is_empty() {
            let digest = pem::sha256(bytes);
            if self.old.certificates.contains(&digest) {
                hit(Sort::Certificate, &format!("SHA-256 {digest}"));
            }
        }
        self.value(bytes, at, Data::Der, &mut |_, needle| hit(needle.sort, &needle.shown));
    }
}

enum Seen<'n, 'd> {
    Needle(usize, &'n Needle),
    Pem(usize, &'d [u8]),
}

impl Seen<'_, '_> {
    fn begin(&self) -> usize {
        match self {
            Self::Needle(begin, _) | Self::Pem(begin, _) => *begin,
        }
    }
}

/// Reads until the buffer is full; whether the stream has ended.
fn fill(source: &mut dyn Read, buffer: &mut [u8], filled: &mut usize) -> std::io::Result<bool> {
    while *filled < buffer.len() {
        match source.read(&mut buffer[*filled..]) {
            Ok(0) => return Ok(true),
            Ok(count) => *filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn count_lines(data: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', data).count() as u64
}

//! Pieces of a file that are asked for together, and handed on one by one when all of a piece is there.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;

/// Pieces that are still needed.
#[derive(Debug)]
pub struct Pieces<T> {
    needed: BTreeMap<u64, (u64, T)>,
    /// What came last and belongs to no whole piece yet, and where it begins.
    held: Vec<u8>,
    held_at: u64,
    /// Bytes between two pieces that are cheaper to send than to leave out.
    gap: u64,
}

impl<T> Pieces<T> {
    /// Pieces that do not overlap; those with less than `gap` between them are asked for as one.
    pub fn new(pieces: impl IntoIterator<Item = (Range<u64>, T)>, gap: u64) -> Self {
        let needed = pieces.into_iter().map(|(range, of)| (range.start, (range.end, of))).collect();
        Self { needed, held: Vec::new(), held_at: 0, gap }
    }

    /// What to ask for: ascending, not touching.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (start, (end, _)) in &self.needed {
            match ranges.last_mut() {
                Some(last) if *start <= last.end.saturating_add(self.gap) => last.end = last.end.max(*end),
                _ => ranges.push(*start..*end),
            }
        }
        ranges
    }

    /// Bytes that are still missing.
    pub fn missing(&self) -> u64 {
        self.needed.iter().map(|(start, (end, _))| end - start).sum()
    }

    /// Takes bytes that came from that place of the file; `whole` gets each piece that is complete with them. Its error leaves
    /// the piece needed.
    pub fn take(
        &mut self,
        at: u64,
        bytes: &[u8],
        whole: &mut dyn FnMut(&mut T, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if at != self.held_at + self.held.len() as u64 {
            self.held.clear();
            self.held_at = at;
        }
        self.held.extend_from_slice(bytes);
        let end = at + bytes.len() as u64;
        let mut used = self.held_at;
        let result = loop {
            let Some((&start, (piece_end, of))) = self.needed.range_mut(used..).next() else {
                used = end;
                break Ok(());
            };
            used = start.min(end);
            if *piece_end > end {
                break Ok(());
            }
            let from = (start - self.held_at) as usize;
            let piece = &self.held[from..from + (*piece_end - start) as usize];
            used = *piece_end;
            if let Err(error) = whole(of, piece) {
                break Err(error);
            }
            self.needed.remove(&start);
        };
        self.held.drain(..(used - self.held_at) as usize);
        self.held_at = used;
        result
    }

    /// What has come of an unfinished piece does not count any more.
    pub fn forget(&mut self) {
        self.held.clear();
        self.held_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_near_each_other_are_one_range() {
        let pieces = Pieces::new([(0..10, ()), (12..20, ()), (40..50, ())], 5);
        assert_eq!(pieces.ranges(), [0..20, 40..50]);
        assert_eq!(pieces.missing(), 28);
    }

    #[test]
    fn a_piece_that_is_refused_stays_needed() {
        let mut pieces = Pieces::new([(0..4, 'a'), (4..8, 'b')], 0);
        let mut refuse = |of: &mut char, _: &[u8]| if *of == 'a' { anyhow::bail!("no") } else { Ok(()) };
        assert!(pieces.take(0, b"xxxxyyyy", &mut refuse).is_err());
        pieces.forget();
        assert_eq!(pieces.ranges(), std::slice::from_ref(&(0..8)));
        pieces.take(4, b"yyyy", &mut refuse).unwrap();
        assert_eq!(pieces.ranges(), std::slice::from_ref(&(0..4)));
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_each_piece_comes_once_and_right(
            lens in proptest::collection::vec((0..9_u64, 1..20_u64), 0..12), cuts in proptest::collection::vec(1..30_usize, 1..40)
        ) {
            let file: Vec<u8> = (0..=255).cycle().take(600).collect();
            let mut at = 0;
            let mut wanted = Vec::new();
            for (skip, len) in lens {
                wanted.push(at + skip..at + skip + len);
                at += skip + len;
            }
            let mut pieces = Pieces::new(wanted.iter().map(|range| (range.clone(), range.clone())), 3);
            let mut got = Vec::new();
            for range in pieces.ranges() {
                let mut at = range.start as usize;
                for cut in cuts.iter().cycle() {
                    let to = (at + cut).min(range.end as usize);
                    pieces.take(at as u64, &file[at..to], &mut |range, bytes| {
                        assert_eq!(bytes, &file[range.start as usize..range.end as usize]);
                        got.push(range.clone());
                        Ok(())
                    }).unwrap();
                    at = to;
                    if at == range.end as usize {
                        break;
                    }
                }
            }
            prop_assert_eq!(got, wanted);
            prop_assert!(pieces.ranges().is_empty());
        }
    }
}

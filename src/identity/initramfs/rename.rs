//! Old ids in bytes, replaced by new ones of the same length: sizes and places of all else stay.

use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::{Context, Result};

/// Ids that are shorter could be anything in a file that is no text.
const LONG: usize = 32;

/// What is replaced by what.
#[derive(Debug)]
pub struct Renames {
    finder: AhoCorasick,
    new: Vec<Vec<u8>>,
}

impl Renames {
    /// Pairs of old and new ids; those whose lengths differ are left out.
    pub fn new(renamed: &[(String, String)]) -> Result<Self> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for (from, to) in renamed.iter().filter(|(from, to)| from.len() == to.len() && from != to) {
            // As systemd names units and devices after ids (systemd.unit(5), systemd-escape(1)).
            let escaped = |id: &str| id.replace('-', "\\x2d");
            for (from, to) in [
                (from.clone(), to.clone()),
                (from.to_uppercase(), to.to_uppercase()),
                (from.to_lowercase(), to.to_lowercase()),
                (escaped(from), escaped(to)),
            ] {
                if !old.contains(&from.clone().into_bytes()) {
                    old.push(from.into_bytes());
                    new.push(to.into_bytes());
                }
            }
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&old);
        Ok(Self { finder: finder.context("preparing a search for ids")?, new })
    }

    /// Replaces them; how many there were.
    pub fn apply(&self, bytes: &mut [u8]) -> u64 {
        let is_text = memchr::memchr(0, bytes).is_none();
        let is_part = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at)).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        };
        let stands = |found: &aho_corasick::Match| {
            let alone = || !is_part(found.start().checked_sub(1)) && !is_part(Some(found.end()));
            found.len() >= LONG || is_text && alone()
        };
        let found: Vec<_> = self.finder.find_iter(&*bytes).filter(stands).collect();
        for one in &found {
            bytes[one.range()].copy_from_slice(&self.new[one.pattern().as_usize()]);
        }
        found.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_replaced_in_every_form_and_nothing_moves() {
        let (old, new) = ("ab000000-1111-2222-3333-444444444444", "cd000000-5555-6666-7777-888888888888");
        let renames =
            Renames::new(&[(old.into(), new.into()), ("12AB-34CD".into(), "0000-0001".into())]).unwrap();
        let text = |id: &str, short: &str| {
            let (upper, escaped) = (id.to_uppercase(), id.replace('-', "\\x2d"));
            format!("by-uuid/{id} by-uuid/{upper} dev-{escaped}.device {short} x-{short}-y")
        };
        let mut bytes = text(old, "12AB-34CD").into_bytes();
        assert_eq!(renames.apply(&mut bytes), 4);
        let then = text(new, "0000-0001").replace("x-0000-0001-y", "x-12AB-34CD-y");
        assert_eq!(String::from_utf8(bytes).unwrap(), then);
    }
}

//! A text without what it says of a machine.

use anyhow::Result;

use super::needles::{Data, Needle, Needles, Sort};
use super::search::{Finder, Where};
use super::{Now, Old};

/// The text with every form of the old identity changed into one that every machine has; `None` if there is none in it. Keys
/// and certificates are left, since nothing stands for them.
pub fn neutral(text: &[u8], old: &Old) -> Result<Option<Vec<u8>>> {
    let needles = Needles::of(old, &Now::default());
    let finder = Finder::new(&needles, old)?;
    let at = Where { packaged: false, log: false, newer: false };
    let mut changed = Vec::with_capacity(text.len());
    let mut done = 0;
    finder.value(text, at, Data::File, &mut |begin, needle| {
        let end = begin + needle.bytes.len();
        if let Some(stand_in) = stand_in(needle, &text[begin..end]) {
            changed.extend_from_slice(&text[done..begin]);
            changed.extend(stand_in);
            done = end;
        }
    });
    if done == 0 {
        return Ok(None);
    }
    changed.extend_from_slice(&text[done..]);
    Ok(Some(changed).filter(|changed| changed != text))
}

fn stand_in(needle: &Needle, found: &[u8]) -> Option<Vec<u8>> {
    let zeroed = || found.iter().map(|b| if b.is_ascii_hexdigit() { b'0' } else { *b }).collect();
    match needle.sort {
        Sort::Name => Some(b"localhost".to_vec()),
        // The name stands at the end of what is looked for, behind `root@` and the like.
        Sort::ShortName => {
            let form = found.to_ascii_lowercase();
            let name = needle.shown.as_bytes();
            let at = memchr::memmem::find(&form, name)?;
            Some([&found[..at], b"localhost", &found[at + name.len()..]].concat())
        }
        Sort::Domain => Some(b"localdomain".to_vec()),
        Sort::Address if found == needle.shown.as_bytes() => {
            Some(if needle.shown.contains(':') { b"::1".to_vec() } else { b"127.0.0.1".to_vec() })
        }
        Sort::Mac | Sort::MachineId | Sort::Uuid if !needle.exact => Some(zeroed()),
        Sort::Label => Some(vec![b'x'; found.len()]),
        _ => None,
    }
}

//! Text that stands for bytes: `-----BEGIN ...-----`, base64, `-----END ...-----` (RFC 7468).

use std::fmt::Write;

use memchr::memmem;
use sha2::{Digest, Sha256};

/// How a block begins.
pub(super) const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// One block in a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it calls itself, such as `CERTIFICATE`.
    pub label: String,
    /// What it stands for.
    pub bytes: Vec<u8>,
}

/// A first line is not longer.
const LONGEST_LABEL: usize = 80;

/// The block that begins at the start of the text; `None` if its end is not there. Where another one begins before it ends,
/// it ends there: no text makes this look at its bytes more than twice.
pub(super) fn block(text: &[u8]) -> Option<Block> {
    let body = BEGIN.len() + label_len(text);
    let end = body + memmem::find(text.get(body..)?, DASHES)?;
    Some(unfinished(&text[..end]))
}

/// The block that begins at the start of the text, as far as it goes.
pub(super) fn unfinished(text: &[u8]) -> Block {
    let (label, body) = text.get(BEGIN.len()..).unwrap_or_default().split_at(label_len(text));
    let label = String::from_utf8_lossy(label).trim_end().trim_end_matches('-').to_owned();
    let label = label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
    Block { label, bytes: decode(body) }
}

fn label_len(text: &[u8]) -> usize {
    let after = text.get(BEGIN.len()..).unwrap_or_default();
    let most = after.len().min(LONGEST_LABEL);
    memchr::memchr(b'\n', &after[..most]).unwrap_or(most)
}

/// The bytes of every block in a text.
pub(in crate::identity) fn blocks(text: &[u8]) -> Vec<Vec<u8>> {
    memmem::find_iter(text, BEGIN).filter_map(|at| Some(block(&text[at..])?.bytes)).collect()
}

/// The usual form in which a certificate is told from others.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64, whatever stands between its letters. Lines with a colon are headers (RFC 1421).
pub(super) fn decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for line in text.split(|b| *b == b'\n').filter(|line| !line.contains(&b':')) {
        for byte in line {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => continue,
            };
            bits = bits << 6 | u32::from(six);
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_read_whatever_is_around_its_letters() {
        let text =
            b"-----BEGIN A KEY-----\r\nProc-Type: 4,ENCRYPTED\r\naGVs\r\n bG8=\r\n-----END A KEY-----\n";
        assert_eq!(block(text), Some(Block { label: "A KEY".into(), bytes: b"hello".to_vec() }));
        assert_eq!(block(b"-----BEGIN X-----\naGVs"), None);
        assert_eq!(unfinished(b"-----BEGIN X-----\naGVs").bytes, b"hel");
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<Vec<u8>>()) {
            let mut all = BEGIN.to_vec();
            all.extend(&text);
            unfinished(&all);
            blocks(&all);
        }
    }
}

//! One block of a tar that tells of a member: ustar, GNU, or older than both.

use anyhow::{Result, bail};

/// Everything in a tar begins at a multiple of this.
pub(super) const BLOCK: usize = 512;

/// What the block says; extended headers before it may say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub path: Vec<u8>,
    pub mode: u32,
    pub uid: i128,
    pub gid: i128,
    pub size: u64,
    pub modified: i128,
    /// The type as it stands there.
    pub kind: u8,
    pub link: Vec<u8>,
    pub device: (u32, u32),
}

impl Header {
    /// `None` if the block is zeros, as at the end of a tar.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !sums_up(block) {
            bail!("a header whose checksum is wrong: it is damaged, or no tar");
        }
        let field = |at: usize, len: usize| {
            let number = number(&block[at..at + len]);
            number.ok_or_else(|| anyhow::anyhow!("a header with a number that is none, at byte {at}"))
        };
        let kind = block[156];
        let size = u64::try_from(field(124, 12)?).ok();
        let Some(size) = size.filter(|size| *size <= i64::MAX as u64) else {
            bail!("a header with a length that no file has");
        };
        // Other types leave anything there.
        let device = match kind {
            b'3' | b'4' => (u32::try_from(field(329, 8)?)?, u32::try_from(field(337, 8)?)?),
            _ => (0, 0),
        };
        Ok(Some(Self {
            path: path(block),
            // Old programs put the type there, too.
            mode: (field(100, 8)? & 0o7777) as u32,
            uid: field(108, 8)?,
            gid: field(116, 8)?,
            size,
            modified: field(136, 12)?,
            kind,
            link: text(&block[157..257]).to_vec(),
            device,
        }))
    }
}

/// Whether a block is the header of a tar, whatever else it says.
pub(in crate::import) fn is_header(block: &[u8]) -> bool {
    let block = block.first_chunk::<BLOCK>();
    block.is_some_and(|block| block.iter().any(|byte| *byte != 0) && sums_up(block))
}

/// The sum of all bytes, the field itself taken as spaces; old programs took bytes for signed.
fn sums_up(block: &[u8; BLOCK]) -> bool {
    let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { block[at] };
    let unsigned: i128 = (0..BLOCK).map(|at| i128::from(byte(at))).sum();
    let signed: i128 = (0..BLOCK).map(|at| i128::from(byte(at) as i8)).sum();
    number(&block[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// ustar has the beginning of a long name in a field of its own; there GNU tar has times, and star less room (star(5)).
fn path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[..100]);
    let longest = match (&block[257..263], &block[508..512]) {
        (b"ustar\0", b"tar\0") => 131,
        (b"ustar\0", _) => 155,
        _ => 0,
    };
    match text(&block[345..345 + longest]) {
        b"" => name.to_vec(),
        before => [before, b"/", name].concat(),
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Digits of base 8, or in GNU tar's way the number itself behind a bit that tells so, negative ones as their complement.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    match field.first()? {
        first if first & 0x80 != 0 => {
            // Longer ones than any of a tar are none.
            let (head, tail) = field.split_at_checked(field.len().saturating_sub(12))?;
            let negative = first & 0x40 != 0;
            if !head.is_empty() {
                return None;
            }
            let start = if negative { -1i128 } else { 0 };
            let first = if negative { *first } else { first & 0x7f };
            let rest = tail.get(1..)?;
            let all = std::iter::once(first).chain(rest.iter().copied());
            Some(all.fold(start, |number, byte| number << 8 | i128::from(byte)))
        }
        _ => {
            let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
            let from = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
            let digits = &field[from..];
            let end = digits.iter().position(is_blank).unwrap_or(digits.len());
            let (digits, rest) = digits.split_at(end);
            let valid = digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) && rest.iter().all(is_blank);
            valid.then(|| digits.iter().fold(0, |number, digit| number * 8 + i128::from(digit - b'0')))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_old_and_new_programs_write_them() {
        for (field, wanted) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\xee\x6b\x28\0", Some(4_000_000_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"0000648\0", None),
            (b"12 34\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(number(field), wanted, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), BLOCK), kind: u8) {
            let mut block: [u8; BLOCK] = bytes.try_into().unwrap();
            block[156] = kind;
            let _ = Header::parse(&block);
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            prop_assert!(is_header(&block));
            let _ = Header::parse(&block);
        }
    }
}

//! Where a file with holes has data, in the forms that GNU tar has had for it.

use anyhow::{Context, Result, bail};

use super::header::{BLOCK, number};

/// Offset and length of pieces, as they were told.
pub(super) type Map = Vec<(u64, u64)>;
/// More pieces than any file has that was packed by an honest program.
pub(super) const MOST: usize = 4 << 20;

/// Pieces in the form of an entry's: empty ones left out, those that touch made one. They must be in order, inside the file, and
/// together as long as what is stored.
pub(super) fn pieces(map: &[(u64, u64)], len: u64, stored: u64) -> Result<Map> {
    let mut pieces: Map = Vec::new();
    let (mut from, mut sum) = (0, 0);
    for (offset, long) in map.iter().copied() {
        let end = offset.checked_add(long).filter(|end| *end <= len && offset >= from);
        let Some(end) = end else { bail!("its pieces are not in order, or not inside it") };
        from = end;
        sum += long;
        match pieces.last_mut() {
            _ if long == 0 => {}
            Some((before, so_far)) if *before + *so_far == offset => *so_far += long,
            _ => pieces.push((offset, long)),
        }
    }
    if sum != stored {
        bail!("its pieces have {sum} bytes, and {stored} are stored");
    }
    Ok(pieces)
}

/// What old GNU tars have in the header itself: four pieces, whether more follow in blocks of their own, and the file's length.
pub(super) fn in_header(block: &[u8; BLOCK]) -> Result<(Map, bool, u64)> {
    let len = number(&block[483..495]).and_then(|len| u64::try_from(len).ok());
    let len = len.context("a file with holes has a length that is none")?;
    Ok((listed(&block[386..482])?, block[482] != 0, len))
}

/// As [`in_header`], of a block that only lists further pieces.
pub(super) fn in_block(block: &[u8; BLOCK]) -> Result<(Map, bool)> {
    Ok((listed(&block[..504])?, block[504] != 0))
}

fn listed(bytes: &[u8]) -> Result<Map> {
    let mut map = Map::new();
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let value = |field: &[u8]| number(field).and_then(|number| u64::try_from(number).ok());
        let (Some(offset), Some(len)) = (value(&pair[..12]), value(&pair[12..])) else {
            bail!("a list of pieces with a number that is none");
        };
        map.push((offset, len));
    }
    Ok(map)
}

/// Format 0.1: numbers parted by commas, in an extended header.
pub(super) fn in_text(text: &[u8]) -> Result<Map> {
    let text = std::str::from_utf8(text).context("a list of pieces that is no text")?;
    let numbers = text.split(',').filter(|number| !number.is_empty()).map(str::parse);
    let numbers: Vec<u64> =
        numbers.collect::<Result<_, _>>().context("a list of pieces with a number that is none")?;
    pairs(&numbers)
}

fn pairs(numbers: &[u64]) -> Result<Map> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MOST {
        bail!("a list of pieces that is none");
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Format 1.0: numbers in lines, in front of the data. `next` gives block after block; how many were taken is told, too.
pub(super) fn in_front(next: &mut dyn FnMut() -> Result<[u8; BLOCK]>) -> Result<(Map, u64)> {
    let (mut numbers, mut blocks) = (Vec::new(), 0);
    let (mut digits, mut wanted) = (None::<u64>, None::<usize>);
    loop {
        blocks += 1;
        for byte in next()? {
            match (byte, digits) {
                (b'0'..=b'9', so_far) => {
                    let more = so_far
                        .unwrap_or(0)
                        .checked_mul(10)
                        .and_then(|n| n.checked_add(u64::from(byte - b'0')));
                    digits = Some(more.context("a list of pieces with a number that is none")?);
                }
                (b'\n', Some(number)) => {
                    digits = None;
                    match wanted {
                        None if number as usize > MOST => bail!("a list of {number} pieces"),
                        None => wanted = Some(number as usize * 2),
                        Some(_) => numbers.push(number),
                    }
                }
                _ => bail!("a list of pieces that is none"),
            }
            if wanted == Some(numbers.len()) {
                return Ok((pairs(&numbers)?, blocks));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_that_touch_are_one_and_empty_ones_none() {
        assert_eq!(pieces(&[(0, 5), (5, 5), (20, 1), (30, 0)], 30, 11).unwrap(), [(0, 10), (20, 1)]);
        assert!(pieces(&[(5, 1), (0, 1)], 30, 2).is_err());
        assert!(pieces(&[(0, 31)], 30, 31).is_err());
        assert!(pieces(&[(u64::MAX, 2)], 30, 2).is_err());
        assert!(pieces(&[(0, 2)], 30, 3).is_err());
    }

    #[test]
    fn a_list_in_front_of_the_data_ends_with_its_block() {
        let mut list = b"2\n0\n512\n4096\n1\n".to_vec();
        list.resize(BLOCK, 0);
        let mut blocks = list.chunks_exact(BLOCK).map(|block| block.try_into().unwrap());
        let read = in_front(&mut || Ok(blocks.next().unwrap())).unwrap();
        assert_eq!(read, (vec![(0, 512), (4096, 1)], 1));
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(text in "[0-9,]{0,40}", bytes in proptest::collection::vec(any::<u8>(), BLOCK), lines in "[0-9\n]{0,600}") {
            let _ = in_text(text.as_bytes()).and_then(|map| pieces(&map, 1 << 40, 7));
            let block: [u8; BLOCK] = bytes.try_into().unwrap();
            let _ = in_header(&block);
            let _ = in_block(&block);
            let mut list = lines.into_bytes();
            list.resize(2 * BLOCK, 0);
            let mut blocks = list.chunks_exact(BLOCK).map(|block| block.try_into().unwrap());
            let _ = in_front(&mut || blocks.next().context("no more"));
        }
    }
}

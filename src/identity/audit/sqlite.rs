//! Values in SQLite databases, one by one: they stand side by side without anything between them, so that what stands
//! beside a value says nothing. Only what the file format says (sqlite.org/fileformat2.html) is looked at; damaged pages,
//! and what continues on other pages, are left to the search through all bytes.

/// How a database begins.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

/// The size of its pages, if it is a database.
pub(super) fn page_size(head: &[u8]) -> Option<usize> {
    let head = head.get(..100).filter(|head| head.starts_with(MAGIC))?;
    match u16::from_be_bytes([head[16], head[17]]) {
        1 => Some(65536),
        size if size >= 512 && size.is_power_of_two() => Some(size.into()),
        _ => None,
    }
}

/// Every text and blob in the cells of one page; `first` is the page with the header of the file. With the offset of each in
/// the page.
pub(super) fn values<'p>(page: &'p [u8], first: bool, each: &mut dyn FnMut(usize, &'p [u8])) {
    let header = if first { 100 } else { 0 };
    let Some(kind) = page.get(header) else { return };
    // Interior pages of tables hold no values.
    let (pointers, skip_child, skip_row) = match kind {
        0x0d => (header + 8, 0, true),
        0x0a => (header + 8, 0, false),
        0x02 => (header + 12, 4, false),
        _ => return,
    };
    let Some(count) = two(page, header + 3) else { return };
    // Cells that share their bytes are no database's, and would take time without end.
    let mut budget = 4 * page.len();
    for at in 0..count {
        let Some(cell) = two(page, pointers + 2 * at) else { return };
        let mut at = cell + skip_child;
        let Some(length) = varint(page, &mut at) else { continue };
        if skip_row && varint(page, &mut at).is_none() {
            continue;
        }
        let end =
            usize::try_from(length).map_or(page.len(), |length| at.saturating_add(length).min(page.len()));
        record(page, at, end, &mut budget, each);
    }
}

/// A record: the types of its columns, then their values.
fn record<'p>(
    page: &'p [u8],
    start: usize,
    end: usize,
    budget: &mut usize,
    each: &mut dyn FnMut(usize, &'p [u8]),
) {
    let mut at = start;
    let Some(header) = varint(page, &mut at).and_then(|length| usize::try_from(length).ok()) else { return };
    let values = start.saturating_add(header);
    let mut value = values;
    while at < values.min(end) {
        let Some(kind) = varint(page, &mut at) else { return };
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return,
            kind => usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX),
        };
        let stop = value.saturating_add(length).min(end);
        let cost = 1 + stop.saturating_sub(value);
        if *budget < cost {
            return;
        }
        *budget -= cost;
        if kind >= 12 && value < stop {
            each(value, &page[value..stop]);
        }
        value = stop;
    }
}

fn two(page: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*page.get(at)?, *page.get(at + 1)?])))
}

/// At most nine bytes, seven bits each, the ninth whole.
fn varint(page: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for nth in 0..9 {
        let byte = *page.get(*at)?;
        *at += 1;
        if nth == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_size_of_a_page_is_in_the_header() {
        let mut head = MAGIC.to_vec();
        head.resize(100, 0);
        assert_eq!(page_size(&head), None);
        head[16] = 0x10;
        assert_eq!(page_size(&head), Some(4096));
        (head[16], head[17]) = (0, 1);
        assert_eq!(page_size(&head), Some(65536));
        assert_eq!(page_size(&head[..99]), None);
    }

    proptest! {
        #[test]
        fn any_page_is_read_to_its_end(mut page in proptest::collection::vec(any::<u8>(), 0..600), kind in 0usize..4) {
            if let Some(first) = page.first_mut() {
                *first = [0x0d, 0x0a, 0x02, 0x05][kind];
            }
            let mut seen = 0;
            values(&page, false, &mut |at, value| {
                assert_eq!(&page[at..at + value.len()], value);
                seen += 1;
            });
            prop_assert!(seen <= 4 * 600);
        }
    }
}

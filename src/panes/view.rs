//! What of a guest's terminal is shown in a pane of another size.
//!
//! Text is wrapped anew at the pane's width and stands on its last line; a full-screen program's screen cannot be
//! wrapped, so the part around its cursor is shown.

use vt100::Cell;

use super::screen::Screen;

/// Rows that are taken together for one line, should a guest never end it.
const LINE_ROWS: u64 = 50;

/// What a pane shows.
#[derive(Debug, Default)]
pub struct View {
    /// At most as many as were asked for, none wider than that.
    pub rows: Vec<Vec<Cell>>,
    /// Column and row of the guest's cursor, if it is in sight.
    pub cursor: Option<(u16, u16)>,
    /// Number of the first row of the terminal that is shown, or a part of it.
    pub first: u64,
    /// Number behind the last one.
    pub end: u64,
}

/// Looks at the terminal in a pane of that size; `end` is the number behind the last row that is to be seen, or `None` for
/// what the guest says now.
pub fn view(screen: &mut Screen, width: u16, height: u16, end: Option<u64>) -> View {
    let height = usize::from(height);
    if width == 0 || height == 0 {
        return View::default();
    }
    if end.is_none() && screen.is_alternate() {
        return around_cursor(screen, width, height);
    }
    // What was looked at may have been forgotten since: then it is the first rows that are left.
    let least = screen.first_row() + (height as u64).min(screen.rows() - screen.first_row());
    let end = end.map_or_else(|| live_end(screen, height), |end| end.max(least)).min(screen.rows());
    let mut shown = View { first: end, end, ..View::default() };
    // Column, and rows from the bottom.
    let mut cursor = None;
    while shown.rows.len() < height && shown.first > screen.first_row() {
        let (start, cells, cursor_at) = line_before(screen, shown.first);
        let (mut rows, place) = wrap(cells, usize::from(width), cursor_at);
        if let Some((x, y)) = place {
            cursor = Some((x, shown.rows.len() + rows.len() - y));
        }
        rows.append(&mut shown.rows);
        (shown.rows, shown.first) = (rows, start);
    }
    shown.rows.drain(..shown.rows.len().saturating_sub(height));
    shown.cursor = cursor.and_then(|(x, up)| {
        let y = shown.rows.len().checked_sub(up)?;
        Some((x, u16::try_from(y).ok()?))
    });
    shown
}

/// Number behind the last row that is shown live: a pane that has room for the whole screen shows it as it is, a smaller
/// one what is on it.
pub fn live_end(screen: &Screen, height: usize) -> u64 {
    let (rows, _) = screen.size();
    let rows = if height >= usize::from(rows) { rows } else { screen.live_rows() };
    screen.screen_row() + u64::from(rows)
}

/// The line that ends before a row: its first row, its cells, and where among them the cursor is.
fn line_before(screen: &mut Screen, end: u64) -> (u64, Vec<Cell>, Option<usize>) {
    let mut start = end - 1;
    let least = screen.first_row().max(end.saturating_sub(LINE_ROWS));
    while start > least && screen.row(start - 1).1 {
        start -= 1;
    }
    let (row, column) = screen.cursor();
    let cursor_row = screen.screen_row() + u64::from(row);
    let (mut cells, mut cursor) = (Vec::new(), None);
    for number in start..end {
        if number == cursor_row && !screen.is_alternate() {
            cursor = Some(cells.len() + usize::from(column));
        }
        cells.append(&mut screen.row(number).0);
    }
    (start, cells, cursor)
}

/// Cuts a line into rows, at least one, and finds the cursor in them: behind a full row it stands on its last column.
fn wrap(cells: Vec<Cell>, width: usize, cursor: Option<usize>) -> (Vec<Vec<Cell>>, Option<(u16, usize)>) {
    let (mut rows, mut row, mut place) = (Vec::new(), Vec::new(), None);
    let count = cells.len();
    for (index, cell) in cells.into_iter().enumerate() {
        // The second half of a wide character goes with the first.
        let needs = if cell.is_wide() { 2 } else { 1 };
        if !cell.is_wide_continuation() && !row.is_empty() && row.len() + needs > width {
            rows.push(std::mem::take(&mut row));
        }
        if cursor == Some(index) {
            place = Some((row.len(), rows.len()));
        }
        row.push(cell);
    }
    if let (None, Some(cursor)) = (place, cursor) {
        place = Some((row.len() + cursor.saturating_sub(count), rows.len()));
    }
    rows.push(row);
    let place = place.map(|(x, y)| (u16::try_from(x.min(width - 1)).unwrap_or(u16::MAX), y));
    (rows, place)
}

fn around_cursor(screen: &mut Screen, width: u16, height: usize) -> View {
    let (row, column) = screen.cursor();
    let (rows, columns) = screen.size();
    let visible_rows = u16::try_from(height).unwrap_or(u16::MAX).min(rows);
    let column = column.min(columns - 1);
    let top = (row + 1).saturating_sub(visible_rows);
    let left = (column + 1).saturating_sub(width.min(columns));
    let first = screen.screen_row() + u64::from(top);
    let mut shown = View { first, end: first + u64::from(visible_rows), ..View::default() };
    for number in shown.first..shown.end {
        let cells = screen.row(number).0.into_iter();
        shown.rows.push(cells.skip(usize::from(left)).take(usize::from(width)).collect());
    }
    shown.cursor = Some((column - left, row - top));
    shown
}

/// The end of the view that shows the row before this one's first on its last line: a page back. `None` if there is nothing
/// more.
pub fn page_back(screen: &Screen, now: &View) -> Option<u64> {
    let end = if now.first + 1 < now.end { now.first + 1 } else { now.end - 1 };
    (now.first > screen.first_row()).then_some(end.max(screen.first_row() + 1))
}

/// The end of the view that begins with this one's last row: a page forward. `None` if that is where the guest is now.
pub fn page_forward(screen: &mut Screen, now: &View, width: u16, height: u16) -> Option<u64> {
    let live = live_end(screen, usize::from(height));
    let begin = now.end - 1;
    let mut end = now.end;
    while end < live {
        let next = view(screen, width, height, Some(end + 1));
        if next.first > begin {
            break;
        }
        end += 1;
    }
    // A line that is higher than the pane must not hold it.
    let end = end.max(now.end + 1);
    (end < live).then_some(end)
}

/// As many rows further, back if negative.
pub fn step(screen: &Screen, now: &View, rows: i64, height: u16) -> Option<u64> {
    let end = now.end.saturating_add_signed(rows);
    let least = (screen.first_row() + u64::from(height)).min(now.end).max(screen.first_row() + 1);
    let end = if rows < 0 { end.max(least) } else { end };
    (end < live_end(screen, usize::from(height))).then_some(end)
}

/// The nearest line with that text that begins before a row, or after it; its first row and the one behind it. Without
/// capital letters in it, the text is found in any case.
pub fn find(screen: &mut Screen, text: &str, from: u64, older: bool) -> Option<(u64, u64)> {
    let any_case = !text.chars().any(char::is_uppercase);
    let mut found = None;
    let mut end = screen.rows();
    while end > screen.first_row() {
        let (start, cells, _) = line_before(screen, end);
        if start < from || !older {
            let mut line: String =
                cells.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect();
            if any_case {
                line = line.to_lowercase();
            }
            if line.contains(text) {
                match older {
                    true => return Some((start, end)),
                    false if start > from => found = Some((start, end)),
                    false => break,
                }
            }
        }
        if !older && start <= from {
            break;
        }
        end = start;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(view: &View) -> Vec<String> {
        let cell =
            |cell: &Cell| if cell.has_contents() { cell.contents().to_owned() } else { " ".to_owned() };
        view.rows
            .iter()
            .map(|row| row.iter().filter(|c| !c.is_wide_continuation()).map(cell).collect())
            .collect()
    }

    fn said(text: &str) -> Screen {
        let mut screen = Screen::default();
        screen.feed(text.as_bytes());
        screen
    }

    #[test]
    fn a_small_pane_shows_the_last_lines_wrapped_at_its_width() {
        let mut screen = said("one\r\ntwo two two\r\nthree");
        let shown = view(&mut screen, 6, 3, None);
        assert_eq!(text(&shown), ["two tw", "o two", "three"]);
        assert_eq!((shown.cursor, shown.first, shown.end), (Some((5, 2)), 1, 3));
        assert_eq!(text(&view(&mut screen, 6, 2, None)), ["o two", "three"]);
    }

    #[test]
    fn a_line_that_the_guests_terminal_broke_is_whole_in_a_wider_pane() {
        let mut screen = said(&format!("{}{}\r\n$ ", "a".repeat(80), "b".repeat(20)));
        let shown = view(&mut screen, 120, 10, None);
        assert_eq!(
            text(&shown),
            [format!("{}{}", "a".repeat(80), "b".repeat(20)), "$ ".trim_end().to_owned()]
        );
        assert_eq!(shown.cursor, Some((2, 1)));
    }

    #[test]
    fn a_wide_character_is_not_cut_in_two() {
        let mut screen = said("abc中d");
        assert_eq!(text(&view(&mut screen, 4, 5, None)), ["abc", "中d"]);
    }

    #[test]
    fn a_pane_that_has_room_shows_the_whole_screen_and_what_came_before() {
        let mut screen = Screen::default();
        for number in 0..30 {
            screen.feed(format!("line {number}\r\n").as_bytes());
        }
        screen.feed(b"\x1b[H\x1b[Jcleared");
        let shown = view(&mut screen, 80, 25, None);
        assert_eq!((text(&shown)[0].as_str(), shown.cursor, shown.rows.len()), ("cleared", Some((7, 0)), 25));
        let small = view(&mut screen, 80, 3, None);
        assert_eq!(text(&small), ["line 4", "line 5", "cleared"]);
    }

    #[test]
    fn of_a_full_screen_program_the_part_around_the_cursor_is_shown() {
        let mut screen = said("before\x1b[?1049h\x1b[20;60Hhere\x1b[1;1Htop");
        assert_eq!(text(&view(&mut screen, 20, 5, None))[0], "top");
        screen.feed(b"\x1b[20;64H");
        let shown = view(&mut screen, 20, 5, None);
        assert_eq!(text(&shown)[4], format!("{}here", " ".repeat(15)));
        assert_eq!(shown.cursor, Some((19, 4)));
    }

    #[test]
    fn pages_back_and_forward_miss_no_row() {
        let mut screen = Screen::default();
        for number in 0..200 {
            screen.feed(format!("{number} {}\r\n", "x".repeat(number % 90)).as_bytes());
        }
        let (width, height) = (30, 7);
        let mut seen = Vec::new();
        let mut now = view(&mut screen, width, height, None);
        seen.push((now.first, now.end));
        while let Some(end) = page_back(&screen, &now) {
            now = view(&mut screen, width, height, Some(end));
            assert!(now.end > seen[seen.len() - 1].0, "a gap above {:?}", seen);
            seen.push((now.first, now.end));
        }
        assert_eq!(now.first, 0);
        let mut forward = vec![(now.first, now.end)];
        while let Some(end) = page_forward(&mut screen, &now, width, height) {
            now = view(&mut screen, width, height, Some(end));
            assert!(now.first <= forward[forward.len() - 1].1, "a gap below {:?}", forward);
            forward.push((now.first, now.end));
        }
        assert!(forward.len() > 20 && forward.len() < 200, "{}", forward.len());
    }

    #[test]
    fn what_is_looked_at_stays_when_the_guest_goes_on() {
        let mut screen = said("one\r\ntwo\r\nthree\r\nfour\r\n");
        let now = view(&mut screen, 80, 2, None);
        let end = step(&screen, &now, -2, 2).unwrap();
        assert_eq!(text(&view(&mut screen, 80, 2, Some(end))), ["two", "three"]);
        for number in 0..100 {
            screen.feed(format!("more {number}\r\n").as_bytes());
        }
        let back = view(&mut screen, 80, 2, Some(end));
        assert_eq!(text(&back), ["two", "three"]);
        assert_eq!(step(&screen, &back, 1000, 2), None);
    }

    #[test]
    fn rows_that_are_forgotten_while_they_are_looked_at_give_way_to_the_first_that_are_left() {
        let mut screen = Screen::default();
        for number in 0..5000 {
            screen.feed(format!("{number}\r\n").as_bytes());
        }
        assert_eq!(text(&view(&mut screen, 80, 2, Some(7))), ["2976", "2977"]);
    }

    #[test]
    fn a_text_is_found_further_back_and_further_on() {
        let mut screen = said("one Panic\r\ntwo\r\nthree panic\r\nfour");
        assert_eq!(find(&mut screen, "panic", 4, true), Some((2, 3)));
        assert_eq!(find(&mut screen, "panic", 2, true), Some((0, 1)));
        assert_eq!(find(&mut screen, "panic", 0, true), None);
        assert_eq!(find(&mut screen, "Panic", 4, true), Some((0, 1)));
        assert_eq!(find(&mut screen, "panic", 0, false), Some((2, 3)));
        assert_eq!(find(&mut screen, "panic", 2, false), None);
    }

    proptest! {
        #[test]
        fn a_view_is_never_larger_than_its_pane(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'x')], 0..600),
            width in 2u16..120, height in 1u16..60, end in prop::option::of(0u64..40),
        ) {
            let mut screen = Screen::sized(8, 16);
            screen.feed(&bytes);
            let shown = view(&mut screen, width, height, end);
            prop_assert!(shown.rows.len() <= usize::from(height));
            prop_assert!(shown.rows.iter().all(|row| row.len() <= usize::from(width)));
            if let Some((x, y)) = shown.cursor {
                prop_assert!(x < width && usize::from(y) < shown.rows.len());
            }
        }
    }
}

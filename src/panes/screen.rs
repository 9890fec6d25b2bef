//! A guest's terminal, kept in memory: what it says ends here, and only cells of text come out.
//!
//! The stream is taken apart first ([`crate::console::escape`]): titles, clipboard writes and every other control string
//! are gone before the emulation, and what makes it work long (a character repeated 65535 times) is too.

use std::num::NonZeroU16;

use vt100::{Callbacks, Cell, Parser};

use crate::console::escape::{self, Piece};

/// Rows that are kept above the screen; the log has the rest.
pub const SCROLLBACK_ROWS: usize = 2000;
/// What a guest takes a serial line's terminal to be, as long as nobody tells it more: 80 columns, and 24 or 25 rows.
const USUAL: (u16, u16) = (25, 80);
/// No terminal has fewer rows or columns: with next to none the emulation gets characters wrong.
pub const SMALLEST: u16 = 8;
/// Nor more.
const LARGEST: u16 = 1000;
/// A repetition that fills the widest line that is usual, and no more.
const REPEATED: u16 = 500;

/// Counts the rows that the scrollback could not keep.
#[derive(Debug, Default)]
struct Forgotten(u64);

impl Callbacks for Forgotten {
    fn on_scroll(&mut self, _: vt100::capture::RowContents<'_>, alternate_screen: bool) {
        if !alternate_screen {
            self.0 += 1;
        }
    }
}

/// A terminal of a guest.
pub struct Screen {
    parser: Parser<Forgotten>,
    input: escape::Parser,
    /// A line is about to begin.
    at_line_start: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::sized(USUAL.0, USUAL.1)
    }
}

fn sensible(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count.clamp(SMALLEST, LARGEST)).unwrap_or(NonZeroU16::MIN)
}

impl Screen {
    /// An empty one.
    pub fn sized(rows: u16, columns: u16) -> Self {
        let (rows, columns) = (sensible(rows), sensible(columns));
        let parser = Parser::new_with_callbacks(rows, columns, SCROLLBACK_ROWS, Forgotten::default());
        Self { parser, input: escape::Parser::default(), at_line_start: true }
    }

    /// Takes what the guest says; chunks may end anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut harmless = Vec::with_capacity(bytes.len());
        self.input.push(bytes, &mut |piece| pass(piece, &mut harmless));
        self.parser.process(&harmless);
        if let Some(last) = harmless.last() {
            self.at_line_start = matches!(last, b'\n' | b'\r');
        }
    }

    /// A line of gridgate's own between what the guest said before and what it says next, in whatever state its terminal is.
    pub fn remark(&mut self, text: &str) {
        self.input = escape::Parser::default();
        // Out of the other screen; no colours, the whole screen scrolls, the cursor is shown; below what is there.
        self.parser.process(b"\x18\x1b[?1049l\x1b[?6l\x1b[r\x1b[?25h\x1b[m");
        let end = self.live_rows();
        self.parser.process(format!("\x1b[{end};1H").as_bytes());
        if end > 1 || self.row_has_text(end - 1) {
            self.parser.process(b"\r\n");
        }
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        self.parser.process(format!("\x1b[7m[gridgate: {text}]\x1b[m\r\n").as_bytes());
        self.at_line_start = true;
    }

    fn row_has_text(&self, row: u16) -> bool {
        let screen = self.parser.screen();
        (0..screen.size().1.get()).any(|column| screen.cell(row, column).is_some_and(Cell::has_contents))
    }

    /// A guest that starts again has a terminal of the usual size, without its predecessor's modes.
    pub fn restart(&mut self) {
        self.resize(USUAL.0, USUAL.1);
        self.parser.process(b"\x1b[?1l\x1b>\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l");
    }

    /// The guest was told of another size.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.parser.set_size(sensible(rows), sensible(columns));
    }

    /// Rows and columns.
    pub fn size(&self) -> (u16, u16) {
        let (rows, columns) = self.parser.screen().size();
        (rows.get(), columns.get())
    }

    /// Rows of the screen down to the last one with text or the cursor; at least one.
    pub fn live_rows(&self) -> u16 {
        let cursor = self.parser.screen().cursor_position().0;
        let last = (cursor + 1..self.size().0).rev().find(|row| self.row_has_text(*row));
        last.unwrap_or(cursor) + 1
    }

    /// Row and column.
    pub fn cursor(&self) -> (u16, u16) {
        self.parser.screen().cursor_position()
    }

    /// Whether the guest shows its cursor.
    pub fn shows_cursor(&self) -> bool {
        !self.parser.screen().hide_cursor()
    }

    /// Whether a full-screen program has the terminal.
    pub fn is_alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// Whether arrow keys are to be sent as a keypad's (DECCKM).
    pub fn application_cursor(&self) -> bool {
        self.parser.screen().application_cursor()
    }

    /// Whether pasted text is to be marked.
    pub fn bracketed_paste(&self) -> bool {
        self.parser.screen().bracketed_paste()
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.rows() == u64::from(self.size().0) && self.live_rows() == 1 && !self.row_has_text(0)
    }

    /// Rows that were forgotten: the first that is kept has this number.
    pub fn first_row(&self) -> u64 {
        self.parser.callbacks().0
    }

    /// Number behind the screen's last row; the scrollback's rows come before it.
    pub fn rows(&self) -> u64 {
        self.first_row() + self.parser.screen().scrollback_len() as u64 + u64::from(self.size().0)
    }

    /// Number of the screen's first row.
    pub fn screen_row(&self) -> u64 {
        self.rows() - u64::from(self.size().0)
    }

    /// A row's cells, without the empty ones at its end, and whether its text goes on in the next one.
    pub fn row(&mut self, number: u64) -> (Vec<Cell>, bool) {
        let above = usize::try_from(self.screen_row().saturating_sub(number)).unwrap_or(usize::MAX);
        let row = u16::try_from(number.saturating_sub(self.screen_row())).unwrap_or(u16::MAX);
        let screen = self.parser.screen_mut();
        screen.set_scrollback(above);
        let mut cells: Vec<Cell> =
            (0..LARGEST).map_while(|column| screen.cell(row, column).cloned()).collect();
        let wrapped = screen.row_wrapped(row);
        screen.set_scrollback(0);
        while cells.last().is_some_and(|cell| !wrapped && is_blank(cell)) {
            cells.pop();
        }
        (cells, wrapped)
    }
}

fn is_blank(cell: &Cell) -> bool {
    matches!(cell.contents(), "" | " ")
        && cell.bgcolor() == vt100::Color::Default
        && !cell.inverse()
        && !cell.underline()
}

fn pass(piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Text(text) if text.is_ascii() => out.extend_from_slice(text),
        Piece::Text(text) => {
            for character in String::from_utf8_lossy(text).chars().filter(|c| !is_invisible(*c)) {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        // A bell for every guest would be no help.
        Piece::Control(byte @ (b'\n' | b'\r' | b'\t' | 0x08 | 0x0b | 0x0c)) => out.push(byte),
        Piece::Control(_) => {}
        Piece::Escape(b'D') => out.push(b'\n'),
        Piece::Escape(b'E') => out.extend_from_slice(b"\r\n"),
        Piece::Escape(last) => out.extend_from_slice(&[0x1b, last]),
        Piece::Sequence(parameters, last) if is_bounded(parameters, last) => {
            out.extend_from_slice(b"\x1b[");
            out.extend_from_slice(parameters);
            out.push(last);
        }
        Piece::Sequence(..) => {}
    }
}

/// Characters that show nothing but change how others stand: joiners, variation selectors, the direction of writing. Where
/// a character goes would be another matter in each terminal, and text could be made to look like other text.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// No number that is larger than a terminal can need, and no repetition that is longer than a screen.
fn is_bounded(parameters: &[u8], last: u8) -> bool {
    let most = if last == b'b' { REPEATED } else { 9999 };
    let numbers = parameters.split(|byte| !byte.is_ascii_digit());
    numbers.filter(|digits| !digits.is_empty()).all(|digits| {
        std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u16>().ok()).is_some_and(|n| n <= most)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(screen: &mut Screen, number: u64) -> String {
        let (cells, _) = screen.row(number);
        cells.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect()
    }

    fn all(screen: &mut Screen) -> Vec<String> {
        let end = screen.screen_row() + u64::from(screen.live_rows());
        (screen.first_row()..end).map(|row| text(screen, row)).collect()
    }

    #[test]
    fn lines_that_leave_the_screen_are_kept_up_to_a_bound() {
        let mut screen = Screen::default();
        for number in 0..5000 {
            screen.feed(format!("line {number}\r\n").as_bytes());
        }
        // The cursor's own row is the screen's last.
        assert_eq!((screen.first_row(), screen.rows()), (5001 - 25 - 2000, 5001));
        assert_eq!(text(&mut screen, 2976), "line 2976");
        assert_eq!(text(&mut screen, 4999), "line 4999");
        assert_eq!(text(&mut screen, 5000), "");
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_row() {
        let mut screen = Screen::sized(8, 10);
        screen.feed(b"0123456789abc\r\nx");
        assert!(screen.row(0).1 && !screen.row(1).1);
        assert_eq!(all(&mut screen), ["0123456789", "abc", "x"]);
    }

    #[test]
    fn titles_clipboards_and_questions_leave_nothing_behind() {
        let hostile: [&[u8]; 9] = [
            b"\x1b]0;owned\x07",
            b"\x1b]52;c;ZXZpbA==\x07",
            b"\x1b]8;;http://x\x1b\\",
            b"\x1bP+q544e\x1b\\",
            b"\x1b_Gi=1\x1b\\",
            b"\x1b[6n",
            b"\x1b[c",
            b"\x1b[21t\x1b[8;500;500t",
            b"\x05\x07\x0e\x00\x7f",
        ];
        for sequence in hostile {
            let mut screen = Screen::default();
            screen.feed(&[b"a", sequence, b"b"].concat());
            assert_eq!(all(&mut screen), ["ab"], "{}", sequence.escape_ascii());
            assert_eq!(screen.size(), (25, 80));
        }
    }

    #[test]
    fn a_remark_stands_on_a_line_of_its_own_whatever_the_guest_left() {
        let mut screen = Screen::sized(8, 40);
        screen.feed(b"login: ");
        screen.remark("ce has ended");
        assert_eq!(all(&mut screen), ["login:", "[gridgate: ce has ended]", ""]);
        screen.feed(b"\x1b[?1049h\x1b[2;3r\x1b[?25lfull screen\x1b]0;unfinished");
        screen.remark("boot 2");
        assert_eq!(all(&mut screen), ["login:", "[gridgate: ce has ended]", "[gridgate: boot 2]", ""]);
        assert!(screen.shows_cursor() && !screen.is_alternate());
        let mut fresh = Screen::default();
        fresh.remark("first");
        assert_eq!(all(&mut fresh), ["[gridgate: first]", ""]);
    }

    #[test]
    fn text_cannot_be_made_to_look_like_other_text() {
        let mut screen = Screen::default();
        screen.feed("a\u{202e}b\u{200b}c\u{2066}d☁\u{fe0f}e".as_bytes());
        assert_eq!(all(&mut screen), ["abcd☁e"]);
    }

    #[test]
    fn repetition_is_bounded() {
        assert!(is_bounded(b"80", b'b') && !is_bounded(b"65535", b'b'));
        assert!(is_bounded(b"?25", b'h') && !is_bounded(b"1;99999999999", b'H'));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let sequence = ("[0-9;?]{0,6}", prop::sample::select(b"ABCDEFGHJKLMPSTX@`bdfhlmnrstu".to_vec()))
            .prop_map(|(parameters, last)| [b"\x1b[", parameters.as_bytes(), &[last]].concat());
        let piece = prop_oneof![
            3 => any::<u8>().prop_map(|b| vec![b]),
            4 => sequence,
            1 => prop::sample::select(vec!["\x1b[?1049h", "\x1b[?1049l", "\x1b7", "\x1b8", "\x1bM", "\x1bc", "\r\n", "\t", "\x1b[?6h"])
                .prop_map(|s| s.as_bytes().to_vec()),
            3 => "\\PC{1,6}".prop_map(String::into_bytes),
            1 => prop::sample::select(vec!["中文字", "e\u{301}", "👩\u{200d}🚀", "☁\u{fe0f}", "\u{202e}rtl"])
                .prop_map(|s| s.as_bytes().to_vec()),
        ];
        prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_a_guest_says_and_however_it_is_resized_rows_can_be_read(
            parts in prop::collection::vec((stream(), 1u16..40, 1u16..30), 1..5),
        ) {
            let mut screen = Screen::sized(8, 12);
            for (bytes, rows, columns) in parts {
                screen.feed(&bytes);
                screen.resize(rows, columns);
                screen.remark("here");
                prop_assert!(screen.rows() - screen.first_row() <= SCROLLBACK_ROWS as u64 + u64::from(screen.size().0));
                for row in screen.first_row()..screen.rows() {
                    let (cells, _) = screen.row(row);
                    for cell in cells {
                        prop_assert!(!cell.contents().chars().any(char::is_control));
                    }
                }
            }
        }

        #[test]
        fn the_chunks_make_no_difference(bytes in stream(), step in 1usize..40) {
            let (mut whole, mut parts) = (Screen::sized(8, 20), Screen::sized(8, 20));
            whole.feed(&bytes);
            for chunk in bytes.chunks(step) {
                parts.feed(chunk);
            }
            prop_assert_eq!(all(&mut whole), all(&mut parts));
        }
    }
}

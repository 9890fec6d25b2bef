//! A guest's output, made harmless for somebody else's terminal.
//!
//! What passes: text, colours, moving the cursor, erasing. What does not: anything that makes the terminal answer (the answer
//! would be typed into the reader's shell), writes its clipboard or title, changes its modes, resets or fills it.

use crate::console::escape::{Parser, Piece};

/// A filter over a stream; the same output whatever the chunks.
#[derive(Debug, Default)]
pub struct Filter {
    parser: Parser,
    plain: bool,
}

impl Filter {
    /// Lets colours and cursor movement pass.
    pub fn for_terminal() -> Self {
        Self::default()
    }

    /// Lets text and line ends pass, nothing else.
    pub fn plain() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// Appends what is left of the next chunk.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let plain = self.plain;
        self.parser.push(bytes, &mut |piece| pass(plain, piece, out));
    }

    /// Appends what is left at the stream's end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let plain = self.plain;
        self.parser.finish(&mut |piece| pass(plain, piece, out));
    }
}

fn pass(plain: bool, piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Text(text) => out.extend_from_slice(text),
        Piece::Control(byte @ (b'\n' | b'\r' | b'\t')) => out.push(byte),
        Piece::Control(0x08) if !plain => out.push(0x08),
        // Save and restore the cursor; index, next line, reverse index.
        Piece::Escape(last @ (b'7' | b'8' | b'D' | b'E' | b'M')) if !plain => {
            out.extend_from_slice(&[0x1b, last])
        }
        Piece::Sequence(parameters, last) if !plain && sequence_is_harmless(parameters, last) => {
            out.extend_from_slice(b"\x1b[");
            out.extend_from_slice(parameters);
            out.push(last);
        }
        _ => {}
    }
}

/// No private or intermediate bytes, and numbers of at most four digits: `CSI 999999999 b` and the like take minutes.
fn sequence_is_harmless(parameters: &[u8], last: u8) -> bool {
    let short = |number: &[u8]| number.len() <= 4 && number.iter().all(u8::is_ascii_digit);
    if !parameters.split(|b| matches!(b, b';' | b':')).all(short) {
        return false;
    }
    match last {
        // Colours; cursor; insert and delete characters and lines.
        b'm' | b'A'..=b'H' | b'f' | b'd' | b'a' | b'e' | b'`' | b'K' | b'X' | b'P' | b'@' | b'L' | b'M' => {
            true
        }
        // 3 would erase what the reader's terminal has kept.
        b'J' => matches!(parameters, b"" | b"0" | b"1" | b"2"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filtered(input: &[u8]) -> Vec<u8> {
        in_chunks(input, &[])
    }

    fn in_chunks(input: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut filter, mut out, mut from) = (Filter::for_terminal(), Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([input.len()]) {
            filter.push(&input[from..cut], &mut out);
            from = cut;
        }
        filter.finish(&mut out);
        out
    }

    #[test]
    fn colours_movement_and_text_pass() {
        let text = "\x1b[1;31mred\x1b[0m \x1b[38:5:12mblue\x1b[m caf\u{e9} \x1b[2J\x1b[3;4H\x1b[K\x1b7\x1b8\r\n\t\x08".as_bytes();
        assert_eq!(filtered(text), text);
    }

    #[test]
    fn whatever_makes_a_terminal_answer_or_change_is_dropped() {
        let bad: [&[u8]; 22] = [
            b"\x1b]52;c;ZXZpbA==\x07",
            b"\x1b]0;title\x1b\\",
            b"\x1bP$qm\x1b\\",
            b"\x1b_apc\x1b\\",
            b"\x1b^pm\x1b\\",
            b"\x1bXsos\x1b\\",
            b"\x05",
            b"\x1b[c",
            b"\x1b[>0c",
            b"\x1b[6n",
            b"\x1b[?6n",
            b"\x1b[21t",
            b"\x1b[?1000h",
            b"\x1b[?1049h",
            b"\x1b[?2004h",
            b"\x1b[3J",
            b"\x1b[99999b",
            b"\x1bc",
            b"\x1bZ",
            b"\x1b(0",
            b"\x0e",
            b"\x07\x00\x7f",
        ];
        for sequence in bad {
            let text = [b"a", sequence, b"b"].concat();
            assert_eq!(filtered(&text), b"ab", "{}", sequence.escape_ascii());
        }
    }

    #[test]
    fn eight_bit_controls_are_controls_in_either_coding() {
        assert_eq!(filtered(b"a\x9b6nb\x9d0;t\x9cc\x90x\x1b\\d"), b"abcd");
        assert_eq!(filtered("a\u{9b}6nb\u{9d}0;t\x07c\u{9b}1md".as_bytes()), b"abc\x1b[1md");
    }

    #[test]
    fn invalid_bytes_are_replaced() {
        assert_eq!(
            filtered(b"a\xffb\xc3(\xed\xa0\x80\xe2\x82"),
            "a\u{fffd}b\u{fffd}(\u{fffd}\u{fffd}".as_bytes()
        );
    }

    #[test]
    fn an_unfinished_string_hides_no_more_than_its_line() {
        assert_eq!(filtered(b"a\x1b]0;never ended\nnext line\n"), b"a\nnext line\n");
    }

    #[test]
    fn plain_text_has_no_escape_sequences_at_all() {
        let mut out = Vec::new();
        let mut filter = Filter::plain();
        filter.push(b"\x1b[0;32m  OK  \x1b[0m] Started\x08 \x1b[?25hx\r\n", &mut out);
        assert_eq!(out, b"  OK  ] Started x\r\n");
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => any::<u8>().prop_map(|b| vec![b]),
            3 => prop::sample::select(vec![0x1bu8, b'[', b']', b'P', b'\\', 0x9b, 0x9d, 0xc2, 0x05, b'c', b'n', b't', b';', b'9', b'?'])
                .prop_map(|b| vec![b]),
            1 => "\\PC{1,4}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_chunks_make_no_difference(input in stream(), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            prop_assert_eq!(in_chunks(&input, &cuts), filtered(&input));
        }

        #[test]
        fn only_harmless_sequences_come_out(input in stream()) {
            let out = filtered(&input);
            prop_assert!(std::str::from_utf8(&out).is_ok());
            for (at, byte) in out.iter().enumerate() {
                prop_assert!(!matches!(byte, 0x00..=0x07 | 0x0b | 0x0c | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f));
                if *byte == 0x1b {
                    let rest = &out[at + 1..];
                    prop_assert!(matches!(rest[0], b'[' | b'7' | b'8' | b'D' | b'E' | b'M'));
                    if rest[0] == b'[' {
                        let last = rest[1..].iter().find(|b| (0x40..0x7f).contains(*b)).copied();
                        prop_assert!(last.is_some_and(|l| b"mABCDEFGHfdae`KXP@LMJ".contains(&l)), "{:?}", last);
                    }
                }
            }
            let c1 = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
            prop_assert!(!String::from_utf8_lossy(&out).chars().any(c1));
        }

        #[test]
        fn what_came_out_once_passes_unchanged(input in stream()) {
            let once = filtered(&input);
            prop_assert_eq!(filtered(&once), once);
        }
    }
}

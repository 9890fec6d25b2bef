//! Takes a terminal stream apart: text, control characters and escape sequences, whatever the chunks it comes in.
//!
//! The grammar is ECMA-48's (section 5): C0 and C1 controls, `ESC` sequences, control sequences (`CSI`) and control strings
//! (`OSC`, `DCS`, `APC`, `PM`, `SOS`). C1 controls are known in all three codings: `ESC` and a letter, one byte of 0x80 to
//! 0x9f, and the same as a UTF-8 character (xterm obeys those). Two things are stricter than on a real terminal, so
//! that rubbish hides little: a control character ends an unfinished control sequence, and a line's end an
//! unfinished control string.

/// What the stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Printable, valid UTF-8; what was not valid is U+FFFD.
    Text(&'a [u8]),
    /// A C0 control other than `ESC`, or DEL.
    Control(u8),
    /// A control sequence: what stands between `CSI` and its last byte, and that byte.
    Sequence(&'a [u8], u8),
    /// An `ESC` sequence without intermediate bytes: its last byte.
    Escape(u8),
}

/// Longest control sequence that is given on; real ones have some 20 bytes.
const SEQUENCE_BYTES: usize = 64;
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    /// After `ESC` and at least one intermediate byte: nothing of that kind is given on.
    EscapeIntermediate,
    Sequence,
    String,
    /// Inside a string after `ESC`.
    StringEscape,
}

/// The machine between two chunks.
#[derive(Debug)]
pub struct Parser {
    state: State,
    sequence: Vec<u8>,
    /// A character's first bytes, and how many are still to come.
    partial: [u8; 4],
    have: usize,
    want: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Ground, sequence: Vec::new(), partial: [0; 4], have: 0, want: 0 }
    }
}

impl Parser {
    /// Takes the next chunk and gives its pieces to `sink`. Text may come in several pieces.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        while let Some(&byte) = bytes.first() {
            if self.state == State::Ground && self.have == 0 {
                let plain = bytes.iter().position(|b| !(0x20..0x7f).contains(b)).unwrap_or(bytes.len());
                if plain > 0 {
                    sink(Piece::Text(&bytes[..plain]));
                    bytes = &bytes[plain..];
                    continue;
                }
            }
            self.byte(byte, sink);
            bytes = &bytes[1..];
        }
    }

    /// The stream's end: a character that is still unfinished is not valid.
    pub fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        if self.have > 0 {
            sink(Piece::Text(REPLACEMENT));
        }
        *self = Self::default();
    }

    fn byte(&mut self, byte: u8, sink: &mut impl FnMut(Piece<'_>)) {
        match self.state {
            State::Ground => self.ground(byte, sink),
            State::Escape => match byte {
                b'[' => self.start_sequence(),
                b']' | b'P' | b'X' | b'^' | b'_' => self.state = State::String,
                0x20..=0x2f => self.state = State::EscapeIntermediate,
                0x30..=0x7e => {
                    self.state = State::Ground;
                    sink(Piece::Escape(byte));
                }
                _ => self.again(byte, sink),
            },
            State::EscapeIntermediate => match byte {
                0x20..=0x2f => {}
                0x30..=0x7e => self.state = State::Ground,
                _ => self.again(byte, sink),
            },
            State::Sequence => match byte {
                0x20..=0x3f => {
                    // One more than is allowed marks it as too long.
                    if self.sequence.len() <= SEQUENCE_BYTES {
                        self.sequence.push(byte);
                    }
                }
                0x40..=0x7e => {
                    self.state = State::Ground;
                    if self.sequence.len() <= SEQUENCE_BYTES {
                        sink(Piece::Sequence(&self.sequence, byte));
                    }
                }
                _ => self.again(byte, sink),
            },
            State::String => match byte {
                0x1b => self.state = State::StringEscape,
                0x07 | 0x18 | 0x1a | 0x9c => self.state = State::Ground,
                b'\n' => self.again(byte, sink),
                _ => {}
            },
            State::StringEscape => match byte {
                b'\\' => self.state = State::Ground,
                _ => {
                    self.state = State::Escape;
                    self.byte(byte, sink);
                }
            },
        }
    }

    fn ground(&mut self, byte: u8, sink: &mut impl FnMut(Piece<'_>)) {
        if self.have > 0 {
            if (0x80..0xc0).contains(&byte) {
                self.partial[self.have] = byte;
                self.have += 1;
                if self.have == self.want {
                    self.character(sink);
                }
                return;
            }
            self.have = 0;
            sink(Piece::Text(REPLACEMENT));
        }
        match byte {
            0x1b => self.state = State::Escape,
            0x00..=0x1f | 0x7f => sink(Piece::Control(byte)),
            0x20..=0x7e => sink(Piece::Text(&[byte])),
            0x80..=0x9f => self.c1(byte, sink),
            0xc2..=0xf4 => {
                self.partial[0] = byte;
                self.have = 1;
                self.want = match byte {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
            }
            _ => sink(Piece::Text(REPLACEMENT)),
        }
    }

    fn character(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let (bytes, len) = (self.partial, self.have);
        self.have = 0;
        match bytes {
            [0xc2, c1 @ 0x80..=0x9f, ..] if len == 2 => self.c1(c1, sink),
            _ if std::str::from_utf8(&bytes[..len]).is_ok() => sink(Piece::Text(&bytes[..len])),
            _ => sink(Piece::Text(REPLACEMENT)),
        }
    }

    fn c1(&mut self, byte: u8, sink: &mut impl FnMut(Piece<'_>)) {
        match byte {
            0x9b => self.start_sequence(),
            0x90 | 0x98 | 0x9d..=0x9f => self.state = State::String,
            _ => sink(Piece::Escape(byte - 0x40)),
        }
    }

    fn start_sequence(&mut self) {
        self.sequence.clear();
        self.state = State::Sequence;
    }

    fn again(&mut self, byte: u8, sink: &mut impl FnMut(Piece<'_>)) {
        self.state = State::Ground;
        self.byte(byte, sink);
    }
}

//! The value of an assignment as pieces: text and references, with the quotes resolved.

use super::cursor::Cursor;
use super::{Refusal, ansi};

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Vec<u8>),
    Reference { name: String, at: usize, fallback: Option<Fallback> },
}

/// What stands behind `:-` or `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fallback {
    /// `:-`: also for a variable that is set and empty.
    pub(super) when_empty: bool,
    pub(super) word: Vec<Piece>,
}

/// What holds for all words at one place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// An argument of `export`: bash expands braces there.
    pub(super) argument: bool,
    /// The character set is known to be UTF-8.
    pub(super) unicode: bool,
    /// A character set was chosen in which bytes above 127 may hide a quote.
    pub(super) ascii_only: bool,
}

impl Rules {
    /// Refuses a byte that must not stand in a value.
    pub(super) fn check(self, byte: u8, at: usize) -> Result<(), Refusal> {
        // CTLESC and CTLNUL in bash's shell.h: its own marks within words, which it does not always tell apart.
        if matches!(byte, 0x01 | 0x7f) {
            let reason = format!("the control character {byte:#04x}, which bash does not always keep");
            return Err(Refusal::new(at, reason, "write it as an escape within $'...'"));
        }
        if self.ascii_only && !byte.is_ascii() {
            let reason =
                "the locale set above has another character set, in which this may be something else";
            return Err(Refusal::new(at, reason, "use a UTF-8 locale"));
        }
        Ok(())
    }
}

/// References nested deeper than any honest file has them.
const DEEPEST: u32 = 16;

const QUOTE_IT: &str = "put the value in single quotes if this is meant as text";

/// Reads a value, up to the blank or operator behind it.
pub(super) fn value(cursor: &mut Cursor<'_>, rules: Rules) -> Result<Vec<Piece>, Refusal> {
    Reader { cursor, rules, depth: 0 }.unquoted(Place::Value)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    /// Behind `:-`, outside double quotes; ends at `}`.
    Fallback,
}

struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    rules: Rules,
    depth: u32,
}

/// Pieces with neighbouring text run together.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.extend(bytes),
            _ => self.0.push(Piece::Text(bytes.to_vec())),
        }
    }

    fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.bytes(&text),
            reference => self.0.push(reference),
        }
    }
}

impl Reader<'_, '_> {
    fn unquoted(&mut self, place: Place) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = Pieces::default();
        // The byte before this one, as bash sees it when it looks for a tilde.
        let mut before = b'=';
        while let Some(byte) = self.cursor.peek() {
            let at = self.cursor.at();
            match byte {
                b'}' if place == Place::Fallback => break,
                b' ' | b'\t' | b';' if place == Place::Value => break,
                b'\n' if place == Place::Value => break,
                b'\n' => {
                    let hint = "close the '${' on the line where it begins";
                    return Err(Refusal::new(at, "a line ends within '${...}'", hint));
                }
                b'&' | b'|' | b'<' | b'>' | b'(' | b')' if place == Place::Value => {
                    return Err(operator(byte, before, at));
                }
                b'<' | b'>' | b'(' | b')' => {
                    let reason = "brackets in a default are read differently by different shells";
                    return Err(Refusal::new(at, reason, QUOTE_IT));
                }
                b'\r' => return Err(carriage_return(at)),
                b'\'' => {
                    self.cursor.step();
                    pieces.bytes(&self.single(at)?);
                }
                b'"' => {
                    self.cursor.step();
                    pieces.bytes(b"");
                    self.double(at, &mut pieces)?;
                }
                b'\\' => {
                    self.cursor.step();
                    let Some(next) = self.cursor.raw() else {
                        let hint = "take it away, or put the value in single quotes";
                        return Err(Refusal::new(at, "a backslash ends the file", hint));
                    };
                    self.rules.check(next, at)?;
                    self.cursor.step();
                    pieces.byte(next);
                    before = next;
                    continue;
                }
                b'$' => {
                    let piece = self.dollar(at, Quotes::None, place)?;
                    pieces.piece(piece);
                }
                b'`' => return Err(backquote(at)),
                b'~' if matches!(before, b'=' | b':') => {
                    let reason = "the shell would put a home directory in place of this '~'";
                    return Err(Refusal::new(at, reason, "write the directory, or quote the '~'"));
                }
                b'{' if self.rules.argument || place == Place::Fallback => {
                    let reason = "a brace here is read differently by different shells";
                    return Err(Refusal::new(at, reason, "put the value in single quotes"));
                }
                other => {
                    self.rules.check(other, at)?;
                    self.cursor.step();
                    pieces.byte(other);
                }
            }
            before = byte;
        }
        Ok(pieces.0)
    }

    fn single(&mut self, open: usize) -> Result<Vec<u8>, Refusal> {
        let mut text = Vec::new();
        while let Some(byte) = self.cursor.raw() {
            self.rules.check(byte, open)?;
            self.cursor.step();
            if byte == b'\'' {
                return Ok(text);
            }
            text.push(byte);
        }
        Err(Refusal::new(open, "this quote is never closed", "close it with '"))
    }

    fn double(&mut self, open: usize, pieces: &mut Pieces) -> Result<(), Refusal> {
        while let Some(byte) = self.cursor.peek() {
            let at = self.cursor.at();
            match byte {
                b'"' => {
                    self.cursor.step();
                    return Ok(());
                }
                b'$' => {
                    let piece = self.dollar(at, Quotes::Double, Place::Value)?;
                    pieces.piece(piece);
                }
                b'`' => return Err(backquote(at)),
                b'\\' => self.escaped(open, b"$`\"\\", pieces)?,
                other => {
                    self.rules.check(other, at)?;
                    self.cursor.step();
                    pieces.byte(other);
                }
            }
        }
        Err(Refusal::new(open, "this quote is never closed", "close it with \""))
    }

    /// A backslash within double quotes: it stays, except before some.
    fn escaped(&mut self, open: usize, special: &[u8], pieces: &mut Pieces) -> Result<(), Refusal> {
        self.cursor.step();
        let Some(next) = self.cursor.raw() else {
            return Err(Refusal::new(open, "this quote is never closed", "close it with \""));
        };
        self.rules.check(next, open)?;
        self.cursor.step();
        if !special.contains(&next) {
            pieces.byte(b'\\');
        }
        pieces.byte(next);
        Ok(())
    }

    fn dollar(&mut self, at: usize, quotes: Quotes, place: Place) -> Result<Piece, Refusal> {
        self.cursor.step();
        let refuse = |reason: &str, hint: &str| Err(Refusal::new(at, reason, hint));
        match self.cursor.peek() {
            Some(b'(') => {
                refuse("'$(' would run a command; gridgate never runs a configuration file", QUOTE_IT)
            }
            Some(b'[') => refuse("'$[' is arithmetic, which is not supported", "write the result"),
            Some(b'{') => {
                self.cursor.step();
                self.braced(at, quotes)
            }
            Some(b'\'') if quotes == Quotes::None && place == Place::Value => {
                self.cursor.step();
                Ok(Piece::Text(ansi::quoted(self.cursor, at, self.rules)?))
            }
            Some(b'\'') if quotes == Quotes::None => {
                refuse("\"$'\" within '${...}' is not supported", "assign it to a variable of its own first")
            }
            Some(b'"') if quotes == Quotes::None => {
                refuse("'$\"' asks for a translation, which is not supported", "take the '$' away")
            }
            Some(c) if c.is_ascii_digit() || b"@*#?-$!".contains(&c) => {
                let reason = format!("'${}' is a parameter of a running shell", char::from(c));
                Err(Refusal::new(at, reason, QUOTE_IT))
            }
            _ => {
                let name = self.cursor.name();
                if name.is_empty() {
                    return Ok(Piece::Text(b"$".to_vec()));
                }
                Ok(Piece::Reference { name, at, fallback: None })
            }
        }
    }

    fn braced(&mut self, at: usize, quotes: Quotes) -> Result<Piece, Refusal> {
        let name = self.cursor.name();
        let next = self.cursor.peek();
        if !name.is_empty() && self.cursor.eat(b'}') {
            return Ok(Piece::Reference { name, at, fallback: None });
        }
        let when_empty = !name.is_empty() && self.cursor.eat(b':');
        if name.is_empty() || !self.cursor.eat(b'-') {
            let what = match next {
                None => "this '${' is never closed",
                Some(_) if name.is_empty() => "only '${NAME}' and '${NAME:-default}' are supported",
                Some(_) => "of the operators within '${...}' only ':-' and '-' are supported",
            };
            return Err(Refusal::new(at, what, "write the result"));
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Refusal::new(at, "references are nested too deeply", "use variables in between"));
        }
        let word = match quotes {
            Quotes::None => self.unquoted(Place::Fallback)?,
            Quotes::Double => self.quoted_fallback(at)?,
        };
        self.depth -= 1;
        if !self.cursor.eat(b'}') {
            return Err(Refusal::new(at, "this '${' is never closed", "close it with }"));
        }
        Ok(Piece::Reference { name, at, fallback: Some(Fallback { when_empty, word }) })
    }

    /// Behind `:-` within double quotes, up to `}`. Shells differ over quotes and braces here, so these are refused.
    fn quoted_fallback(&mut self, open: usize) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = Pieces::default();
        while let Some(byte) = self.cursor.peek() {
            let at = self.cursor.at();
            match byte {
                b'}' => break,
                b'$' => {
                    let piece = self.dollar(at, Quotes::Double, Place::Fallback)?;
                    pieces.piece(piece);
                }
                b'`' => return Err(backquote(at)),
                b'\\' => self.escaped(open, b"$`\"\\}", &mut pieces)?,
                b'"' | b'\'' | b'{' | b'(' | b')' | b'<' | b'>' => {
                    let reason =
                        "a default within double quotes with more quotes or brackets in it is not supported";
                    return Err(Refusal::new(at, reason, "take the outer quotes away"));
                }
                other => {
                    self.rules.check(other, at)?;
                    self.cursor.step();
                    pieces.byte(other);
                }
            }
        }
        Ok(pieces.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Double,
}

fn backquote(at: usize) -> Refusal {
    Refusal::new(at, "a backquote would run a command; gridgate never runs a configuration file", QUOTE_IT)
}

pub(super) fn carriage_return(at: usize) -> Refusal {
    Refusal::new(
        at,
        "a carriage return: the file has DOS line ends",
        "convert it with: sed -i 's/\\r$//' FILE",
    )
}

/// The refusal of an operator that would end the word.
pub(super) fn operator(byte: u8, before: u8, at: usize) -> Refusal {
    let what = match byte {
        b'&' => "'&' would start something in the background or join commands",
        b'|' => "'|' is a pipe between commands",
        b'<' | b'>' => "a redirection would open a file",
        b'(' if before == b'=' => "arrays are not supported",
        b'(' => "'(' starts a function, an array or a subshell",
        _ => "')' without a '(' before it",
    };
    let hint = if byte == b'(' && before == b'=' { "write a list as one value: \"a b c\"" } else { QUOTE_IT };
    Refusal::new(at, what, hint)
}

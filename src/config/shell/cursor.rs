//! A place in a file's bytes. Backslash-newline joins lines everywhere but in single quotes and comments, so that
//! [`Cursor::peek`] never shows one; [`Cursor::raw`] does.

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&mut self) -> usize {
        self.join();
        self.at
    }

    /// The next byte, lines joined.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.join();
        self.raw()
    }

    /// The next byte as it stands in the file.
    pub(super) fn raw(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Goes one byte on.
    pub(super) fn step(&mut self) {
        self.at = (self.at + 1).min(self.bytes.len());
    }

    /// Takes the next byte if it is the one given.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.step();
        }
        found
    }

    /// A variable's name: empty if there is none.
    pub(super) fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(byte) = self.peek() {
            let fits =
                byte == b'_' || byte.is_ascii_alphabetic() || (!name.is_empty() && byte.is_ascii_digit());
            if !fits {
                break;
            }
            name.push(char::from(byte));
            self.step();
        }
        name
    }

    /// What stands here up to the next blank or operator, for a message.
    pub(super) fn shown(&self, from: usize) -> String {
        let rest = self.bytes.get(from..).unwrap_or_default();
        let end = rest.iter().position(|b| b" \t\r\n;&|<>()".contains(b)).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).chars().take(24).flat_map(char::escape_debug).collect()
    }

    fn join(&mut self) {
        while self.bytes[self.at..].starts_with(b"\\\n") {
            self.at += 2;
        }
    }
}

//! The keyboard: bytes of a terminal to keys, and what the keys do, as data.

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character that was typed.
    Char(char),
    /// Ctrl and a letter (lower case) or one of `@[\]^_`.
    Ctrl(char),
    /// Return.
    Enter,
    /// Escape alone.
    Esc,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Erase.
    Backspace,
    /// An arrow.
    Up,
    /// An arrow.
    Down,
    /// An arrow.
    Left,
    /// An arrow.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// The mouse's wheel, at a column and row.
    WheelUp(u16, u16),
    /// The mouse's wheel, at a column and row.
    WheelDown(u16, u16),
    /// The mouse's first button, at a column and row.
    Click(u16, u16),
    /// Text that follows is pasted.
    PasteBegin,
    /// Text that follows is typed.
    PasteEnd,
    /// A sequence that means nothing here.
    Other,
}

/// What a key does in the overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Focus the next pane.
    Next,
    /// Focus the pane before.
    Previous,
    /// Focus a neighbour, by columns and rows; scroll, in a pane that is alone.
    Move(i8, i8),
    /// Show one pane alone, or all again.
    Zoom,
    /// Show one pane alone; type there, if it is alone already.
    Enter,
    /// Show all panes.
    Back,
    /// Type in the focused pane.
    Attach,
    /// Type there, even if somebody else does.
    Take,
    /// A page back.
    PageUp,
    /// A page forward.
    PageDown,
    /// To the first line that is kept.
    Top,
    /// To what the guest says now.
    Live,
    /// Ask what to look for.
    Search,
    /// The next hit, further back.
    Older,
    /// The next hit, further on.
    Newer,
    /// Show the keys.
    Help,
    /// Draw all anew.
    Redraw,
    /// Leave.
    Quit,
}

/// A key and what it does.
#[derive(Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [Key],
    /// As people call them.
    pub shown: &'static str,
    /// What it does.
    pub act: Act,
    /// The same in words.
    pub words: &'static str,
    /// For the line at the bottom; empty if it has no place there.
    pub short: &'static str,
}

const fn binding(
    keys: &'static [Key],
    shown: &'static str,
    act: Act,
    words: &'static str,
    short: &'static str,
) -> Binding {
    Binding { keys, shown, act, words, short }
}

/// All of them; the order is the help's. Digits focus the pane of that number.
pub const BINDINGS: &[Binding] = &[
    binding(&[Key::Tab], "Tab", Act::Next, "next guest", ""),
    binding(&[Key::BackTab], "Shift-Tab", Act::Previous, "guest before", ""),
    binding(&[Key::Left, Key::Char('h')], "Left h", Act::Move(-1, 0), "guest to the left", ""),
    binding(&[Key::Right, Key::Char('l')], "Right l", Act::Move(1, 0), "guest to the right", ""),
    binding(&[Key::Up, Key::Char('k')], "Up k", Act::Move(0, -1), "guest above; alone: line back", ""),
    binding(&[Key::Down, Key::Char('j')], "Down j", Act::Move(0, 1), "guest below; alone: line forward", ""),
    binding(&[Key::Enter], "Enter", Act::Enter, "show it alone; once more: type there", "Enter opens"),
    binding(&[Key::Char('z')], "z", Act::Zoom, "show it alone, or all again", ""),
    binding(&[Key::Esc], "Esc", Act::Back, "show all", ""),
    binding(&[Key::Char('i')], "i", Act::Attach, "type there", "i types"),
    binding(&[Key::Char('t')], "t", Act::Take, "type there, even if somebody else does", ""),
    binding(
        &[Key::PageUp, Key::Ctrl('b')],
        "PgUp",
        Act::PageUp,
        "page back (or the mouse's wheel)",
        "PgUp scrolls",
    ),
    binding(&[Key::PageDown, Key::Ctrl('f')], "PgDn", Act::PageDown, "page forward", ""),
    binding(&[Key::Home, Key::Char('g')], "Home g", Act::Top, "the first line that is kept here", ""),
    binding(&[Key::End, Key::Char('G')], "End G", Act::Live, "what it says now", ""),
    binding(&[Key::Char('/')], "/", Act::Search, "search back", "/ searches"),
    binding(&[Key::Char('n')], "n", Act::Older, "next hit, further back", ""),
    binding(&[Key::Char('N')], "N", Act::Newer, "next hit, further on", ""),
    binding(&[Key::Ctrl('l')], "Ctrl-L", Act::Redraw, "draw all anew", ""),
    binding(&[Key::Char('?')], "?", Act::Help, "these keys", "? helps"),
    binding(&[Key::Char('q'), Key::Ctrl('c')], "q", Act::Quit, "leave", "q leaves"),
];

/// What a key does.
pub fn act(key: Key) -> Option<Act> {
    BINDINGS.iter().find(|binding| binding.keys.contains(&key)).map(|binding| binding.act)
}

/// Longest sequence of a key; what is longer is no key.
const SEQUENCE_BYTES: usize = 32;

/// Finds the keys in a terminal's input.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Whether an unfinished sequence waits: after a short while it was no sequence, and [`Decoder::flush`] says what it was.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The keys of the next chunk, and the bytes that each was made of.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<(Key, Vec<u8>)> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while let Some((key, used)) = first_key(&self.pending) {
            keys.push((key, self.pending.drain(..used).collect()));
        }
        keys
    }

    /// What has waited, as keys of their own.
    pub fn flush(&mut self) -> Vec<(Key, Vec<u8>)> {
        let waited = std::mem::take(&mut self.pending);
        let key = |byte: u8| if byte == 0x1b { Key::Esc } else { plain(byte) };
        waited.into_iter().map(|byte| (key(byte), vec![byte])).collect()
    }
}

fn plain(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x08 | 0x7f => Key::Backspace,
        0x00..=0x1f => Key::Ctrl(char::from(byte | 0x40).to_ascii_lowercase()),
        0x20..=0x7e => Key::Char(char::from(byte)),
        _ => Key::Other,
    }
}

/// The first key and its length; `None` if it is not whole.
fn first_key(bytes: &[u8]) -> Option<(Key, usize)> {
    let first = *bytes.first()?;
    match first {
        0x1b => escape(bytes),
        0xc2..=0xf4 => character(bytes),
        _ => Some((plain(first), 1)),
    }
}

fn character(bytes: &[u8]) -> Option<(Key, usize)> {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    let Some(whole) = bytes.get(..length) else {
        // A byte that cannot belong to it ends it.
        let broken = bytes[1..].iter().any(|byte| !(0x80..0xc0).contains(byte));
        return broken.then_some((Key::Other, 1));
    };
    match std::str::from_utf8(whole).ok().and_then(|text| text.chars().next()) {
        Some(character) => Some((Key::Char(character), length)),
        None => Some((Key::Other, 1)),
    }
}

fn escape(bytes: &[u8]) -> Option<(Key, usize)> {
    match bytes.get(1)? {
        b'[' => sequence(bytes),
        b'O' => {
            let last = *bytes.get(2)?;
            Some((cursor_key(last), 3))
        }
        // Alt and a key: no key here means the first alone.
        _ => Some((Key::Esc, 1)),
    }
}

fn sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    let body = &bytes[2..];
    let Some(length) = body.iter().position(|byte| !(0x20..0x40).contains(byte)) else {
        return (bytes.len() > SEQUENCE_BYTES).then_some((Key::Esc, 1));
    };
    let (parameters, last) = (&body[..length], body[length]);
    let used = length + 3;
    if !(0x40..0x7f).contains(&last) {
        return Some((Key::Other, used - 1));
    }
    let key = match (parameters, last) {
        ([b'<', mouse @ ..], b'M' | b'm') => mouse_key(mouse, last),
        (_, b'Z') => Key::BackTab,
        (_, b'A'..=b'D' | b'F' | b'H') => cursor_key(last),
        (b"1" | b"7", b'~') => Key::Home,
        (b"4" | b"8", b'~') => Key::End,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        (b"200", b'~') => Key::PasteBegin,
        (b"201", b'~') => Key::PasteEnd,
        _ => Key::Other,
    };
    Some((key, used))
}

fn cursor_key(last: u8) -> Key {
    match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        b'M' => Key::Enter,
        _ => Key::Other,
    }
}

/// `BUTTON;COLUMN;ROW`, counted from 1 (xterm's mode 1006).
fn mouse_key(parameters: &[u8], last: u8) -> Key {
    let text = std::str::from_utf8(parameters).unwrap_or_default();
    let numbers: Vec<u16> = text.split(';').map_while(|number| number.parse().ok()).collect();
    let [button, column, row] = numbers[..] else { return Key::Other };
    let (column, row) = (column.saturating_sub(1), row.saturating_sub(1));
    match (button, last) {
        (64, b'M') => Key::WheelUp(column, row),
        (65, b'M') => Key::WheelDown(column, row),
        (0, b'M') => Key::Click(column, row),
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys: Vec<Key> = decoder.push(bytes).into_iter().map(|(key, _)| key).collect();
        keys.extend(decoder.flush().into_iter().map(|(key, _)| key));
        keys
    }

    #[test]
    fn the_usual_keys_are_known() {
        assert_eq!(
            keys(b"a\t\r\x7f\x03"),
            [Key::Char('a'), Key::Tab, Key::Enter, Key::Backspace, Key::Ctrl('c')]
        );
        assert_eq!(keys(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"), [Key::Up, Key::Down, Key::PageUp, Key::PageDown]);
        assert_eq!(keys(b"\x1b[H\x1b[4~\x1b[Z"), [Key::Home, Key::End, Key::BackTab]);
        assert_eq!(
            keys("\x1b[<64;10;5Mé\x1b[<65;1;1M".as_bytes()),
            [Key::WheelUp(9, 4), Key::Char('é'), Key::WheelDown(0, 0)]
        );
        assert_eq!(keys(b"\x1b[<0;3;4M\x1b[<0;3;4m"), [Key::Click(2, 3), Key::Other]);
        assert_eq!(keys(b"\x1b[200~q\x1b[201~"), [Key::PasteBegin, Key::Char('q'), Key::PasteEnd]);
    }

    #[test]
    fn an_escape_key_is_one_once_nothing_follows() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(b"\x1b"), []);
        assert!(decoder.is_waiting());
        assert_eq!(decoder.push(b"[A"), [(Key::Up, b"\x1b[A".to_vec())]);
        assert!(!decoder.is_waiting());
        assert_eq!(keys(b"\x1b"), [Key::Esc]);
        assert_eq!(keys(b"\x1bx"), [Key::Esc, Key::Char('x')]);
    }

    #[test]
    fn no_key_does_two_things_and_none_is_a_digit() {
        let all: Vec<Key> = BINDINGS.iter().flat_map(|binding| binding.keys.iter().copied()).collect();
        for (index, key) in all.iter().enumerate() {
            assert!(!all[..index].contains(key), "{key:?}");
            assert!(!matches!(key, Key::Char('0'..='9')));
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_part_of_one_key(chunks in prop::collection::vec(prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'<'), Just(b';'), Just(b'6')], 0..9), 0..9)) {
            let mut decoder = Decoder::default();
            let mut used: Vec<u8> = Vec::new();
            for chunk in &chunks {
                used.extend(decoder.push(chunk).into_iter().flat_map(|(_, bytes)| bytes));
            }
            used.extend(decoder.flush().into_iter().flat_map(|(_, bytes)| bytes));
            prop_assert_eq!(used, chunks.concat());
        }
    }
}

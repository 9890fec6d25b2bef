//! What must stand beside a form, so that `10.77.0.1` is not found in `10.77.0.10`.

/// What a form must not run on into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::identity::audit) enum Border {
    /// It may stand anywhere.
    None,
    /// Letters, digits, `-` and `_`.
    Word,
    /// Digits, and dots with digits behind them.
    Decimal,
    /// Hexadecimal digits.
    Hex,
    /// Hexadecimal digits and colons.
    Colons,
    /// A time stamp must stand before it: it is the host's field of a line of syslog(3).
    Stamped,
}

/// What sort of data it is found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::identity::audit) enum Data {
    /// A file.
    File,
    /// DER (ITU-T X.690), where a string has its length before it and the next element right behind it.
    Der,
}

impl Border {
    /// Whether the form that stands in `data` at `start..end` stands alone there.
    pub(in crate::identity::audit) fn holds(self, data: &[u8], start: usize, end: usize, kind: Data) -> bool {
        let before = start.checked_sub(1).map(|at| data[at]);
        let after = data.get(end).copied();
        if kind == Data::Der && before.is_some_and(|byte| usize::from(byte) == end - start) {
            return true;
        }
        // An element's tag may look like a digit: SEQUENCE is 0x30, SET 0x31.
        let after_is = |part_of: fn(u8) -> bool| {
            after.is_some_and(|byte| part_of(byte) && !(kind == Data::Der && matches!(byte, 0x30 | 0x31)))
        };
        let before_is = |part_of: fn(u8) -> bool| before.is_some_and(part_of);
        match self {
            Self::None => true,
            Self::Word => !before_is(is_word) && !after_is(is_word),
            Self::Decimal => {
                let digit_behind_dot =
                    after == Some(b'.') && data.get(end + 1).is_some_and(u8::is_ascii_digit);
                let digit_before_dot = before == Some(b'.') && start >= 2 && data[start - 2].is_ascii_digit();
                let digit = |byte: u8| byte.is_ascii_digit();
                !before_is(digit) && !after_is(digit) && !digit_behind_dot && !digit_before_dot
            }
            Self::Hex => {
                let hex = |byte: u8| byte.is_ascii_hexdigit();
                !before_is(hex) && !after_is(hex)
            }
            Self::Colons => {
                let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
                !before_is(part) && !after_is(part)
            }
            Self::Stamped => before_is(|byte| byte.is_ascii_digit() || byte == b'Z'),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

//! The escapes of `$'...'` ("ANSI-C Quoting" in bash's manual).

use super::Refusal;
use super::cursor::Cursor;
use super::word::Rules;

/// Reads from behind `$'` to behind the closing quote.
pub(super) fn quoted(cursor: &mut Cursor<'_>, open: usize, rules: Rules) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    loop {
        let Some(byte) = cursor.raw() else {
            return Err(Refusal::new(open, "this quote is never closed", "close it with '"));
        };
        rules.check(byte, open)?;
        cursor.step();
        match byte {
            b'\'' => return Ok(text),
            b'\\' => escape(cursor, open, rules, &mut text)?,
            other => text.push(other),
        }
    }
}

fn escape(cursor: &mut Cursor<'_>, open: usize, rules: Rules, text: &mut Vec<u8>) -> Result<(), Refusal> {
    let Some(byte) = cursor.raw() else {
        return Err(Refusal::new(open, "this quote is never closed", "close it with '"));
    };
    rules.check(byte, open)?;
    cursor.step();
    let refuse = |reason: &str| Err(Refusal::new(open, reason, "write the character itself"));
    let plain = match byte {
        b'a' => 7,
        b'b' => 8,
        b'e' | b'E' => 27,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' | b'\'' | b'"' | b'?' => byte,
        b'0'..=b'7' => {
            let mut code = u32::from(byte - b'0');
            code = digits(cursor, 8, 2, code).0;
            (code & 0xff) as u8
        }
        b'x' => {
            if cursor.raw() == Some(b'{') {
                return refuse("'\\x{' is read differently by different shells");
            }
            let (code, count) = digits(cursor, 16, 2, 0);
            if count == 0 {
                text.extend(b"\\x");
                return Ok(());
            }
            code as u8
        }
        b'u' | b'U' => {
            let (code, count) = digits(cursor, 16, if byte == b'u' { 4 } else { 8 }, 0);
            if count == 0 {
                text.extend([b'\\', byte]);
                return Ok(());
            }
            if code >= 0x80 && !rules.unicode {
                return refuse("what '\\u' gives depends on the locale that was set above");
            }
            match char::from_u32(code) {
                Some('\0') => 0,
                Some(c) => {
                    text.extend(c.encode_utf8(&mut [0; 4]).bytes());
                    return Ok(());
                }
                None => return refuse("this escape is not a Unicode character"),
            }
        }
        b'c' => match cursor.raw() {
            Some(c) if (b' '..0x7f).contains(&c) && !matches!(c, b'\\' | b'\'') => {
                cursor.step();
                if c == b'?' { 0x7f } else { c.to_ascii_uppercase() & 0x1f }
            }
            _ => return refuse("'\\c' needs a plain character behind it"),
        },
        other => {
            text.extend([b'\\', other]);
            return Ok(());
        }
    };
    if plain == 0 {
        return refuse("a variable cannot hold a NUL byte");
    }
    text.push(plain);
    Ok(())
}

fn digits(cursor: &mut Cursor<'_>, radix: u32, most: usize, start: u32) -> (u32, usize) {
    let mut code = start;
    let mut count = 0;
    while count < most {
        let Some(digit) = cursor.raw().and_then(|b| char::from(b).to_digit(radix)) else { break };
        code = code.wrapping_mul(radix).wrapping_add(digit);
        count += 1;
        cursor.step();
    }
    (code, count)
}

//! Arguments on their way through a shell that nobody knows.
//!
//! sshd hands a command to the login shell of the user, as one line. Shells agree on no way of quoting (an apostrophe in
//! quotes is one thing to POSIX, another to fish and csh), but all of them leave a word of letters, digits and `+,-./:=@_`
//! alone. So words travel as such: each other byte is `+` and two digits.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Result, bail};

const PLAIN: &[u8] = b",-./:=@_";
/// An empty word; no argument can have this byte.
const EMPTY: &str = "+00";

/// One word, of plain characters only.
pub fn encode(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    if bytes.is_empty() {
        return EMPTY.to_owned();
    }
    let mut text = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        // zsh takes a '=' that begins a word for a program's name.
        let plain = byte.is_ascii_alphanumeric() || PLAIN.contains(byte) && (at, *byte) != (0, b'=');
        match plain {
            true => text.push(char::from(*byte)),
            false => text.push_str(&format!("+{byte:02x}")),
        }
    }
    text
}

/// What [`encode`] was given.
pub fn decode(text: &OsStr) -> Result<OsString> {
    if text == EMPTY {
        return Ok(OsString::new());
    }
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'+' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if byte != 0 => bytes.push(byte),
            _ => bail!("reading the argument '{}': it was not written by gridgate", text.display()),
        }
        rest = &after[2..];
    }
    Ok(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn a_plain_word_stays_as_it_is() {
        for (word, text) in [
            ("status", "status"),
            ("--since=10:00", "--since=10:00"),
            ("", "+00"),
            ("~ann", "+7eann"),
            ("=ls", "+3dls"),
            ("a b'c\n", "a+20b+27c+0a"),
            ("+1", "+2b1"),
        ] {
            assert_eq!(encode(OsStr::new(word)), text);
        }
    }

    #[test]
    fn what_was_not_encoded_is_refused() {
        for text in ["+", "+2", "+zz", "a+00", "+é"] {
            assert!(decode(OsStr::new(text)).is_err(), "{text}");
        }
    }

    /// The shells of this machine; each prints its words with a zero byte after each.
    fn through(shell: &str, words: &[OsString]) -> Option<Vec<OsString>> {
        let line: Vec<String> = words.iter().map(|word| encode(word)).collect();
        let line = format!("printf '%s\\0' {}", line.join(" "));
        let out = Command::new(shell).arg("-c").arg(line).output().ok()?;
        let mut back: Vec<OsString> =
            out.stdout.split(|b| *b == 0).map(|w| decode(OsStr::from_bytes(w)).unwrap()).collect();
        back.pop();
        Some(back)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_arguments_arrive_unchanged_through_any_shell(
            words in proptest::collection::vec(proptest::collection::vec(1_u8.., 0..20), 1..8)
        ) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            for shell in ["/bin/sh", "dash", "bash", "zsh", "fish", "tcsh"] {
                // A machine has /bin/sh, and perhaps others.
                let Some(back) = through(shell, &words) else { continue };
                prop_assert_eq!(&back, &words, "{}", shell);
            }
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in "\\PC{0,20}|[+0-9a-f]{0,10}") {
            let _ = decode(OsStr::new(&text));
        }
    }
}

//! Patterns of paths: shell patterns of one level, and `**` for any number of directories.

use std::path::Path;

use anyhow::{Result, bail};

/// A pattern of absolute paths, or of paths in every home directory (`~/...`).
///
/// `*`, `?` and `[...]` match within one name, dots at its start too; `**` matches any number of directories, none as well,
/// and at the end everything below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    home: bool,
    parts: Vec<Part>,
}

/// One level of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This very name.
    Name(Vec<u8>),
    /// Names that match.
    Glob(Vec<u8>),
    /// Any number of directories.
    Deep,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let (home, rest) = match (text.strip_prefix("~/"), text.strip_prefix('/')) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => bail!("'{text}' is no pattern of paths: it must start with '/' or '~/'"),
        };
        let mut parts = Vec::new();
        for part in rest.split('/') {
            match part {
                "" | "." | ".." => {
                    bail!("'{text}' is no pattern of paths: a part of it is empty, '.' or '..'")
                }
                "**" if parts.last() == Some(&Part::Deep) => bail!("'{text}' has '**' twice in a row"),
                "**" => parts.push(Part::Deep),
                glob if glob.contains(['*', '?', '[']) => parts.push(Part::Glob(glob.into())),
                name => parts.push(Part::Name(name.into())),
            }
        }
        if parts.last() == Some(&Part::Deep) {
            parts.push(Part::Glob(b"*".to_vec()));
        }
        let anywhere = match parts.first() {
            Some(Part::Name(_)) => false,
            Some(Part::Glob(glob)) => !glob.first().is_some_and(u8::is_ascii_alphanumeric),
            _ => true,
        };
        if !home && anywhere {
            bail!("'{text}' could be anywhere: a pattern must start with a letter of a name");
        }
        Ok(Self { text: text.to_owned(), home, parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it counts from every home directory.
    pub fn is_in_homes(&self) -> bool {
        self.home
    }

    /// Its levels.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How much it says of a path: of two patterns that match one, that with the larger value counts. One that is about any
    /// user's home says less than one that names the directory.
    pub fn weight(&self) -> (bool, usize) {
        (!self.home, self.text.bytes().filter(|b| !matches!(b, b'*' | b'?' | b'[' | b']')).count())
    }

    /// The path, if it is a pattern of one path alone.
    pub fn literal(&self) -> Option<&Path> {
        let plain = !self.home && self.parts.iter().all(|part| matches!(part, Part::Name(_)));
        plain.then(|| Path::new(&self.text))
    }
}

/// Whether a name matches a shell pattern. Linear in the product of both lengths, however many stars there are.
pub fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    // Where to go on if what follows the last star does not match here.
    let mut again: Option<(usize, usize)> = None;
    loop {
        if g < glob.len() && glob[g] == b'*' {
            again = Some((g + 1, n));
            g += 1;
            continue;
        }
        if n == name.len() {
            if g == glob.len() {
                return true;
            }
        } else if let Some(next) = one(&glob[g..], name[n]) {
            g += next;
            n += 1;
            continue;
        }
        match again {
            Some((star, from)) if from < name.len() => {
                again = Some((star, from + 1));
                (g, n) = (star, from + 1);
            }
            _ => return false,
        }
    }
}

/// How much of the pattern the byte uses up, if it matches its start.
fn one(glob: &[u8], byte: u8) -> Option<usize> {
    match glob.first()? {
        b'?' => Some(1),
        b'[' => match set(glob, byte) {
            Some((length, true)) => Some(length),
            Some((_, false)) => None,
            None => (byte == b'[').then_some(1),
        },
        other => (*other == byte).then_some(1),
    }
}

/// The length of the set at the start of the pattern, and whether the byte is in it; `None` if the set is never closed.
fn set(glob: &[u8], byte: u8) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = matches!(glob.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        let low = *glob.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, found != negated));
        }
        match (glob.get(at + 1), glob.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                found |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_questions_and_sets_match_within_one_name() {
        for (glob, name, expected) in [
            ("*", "", true),
            ("*", ".hidden", true),
            ("ssh_host_*", "ssh_host_rsa_key", true),
            ("ssh_host_*", "ssh_hos", false),
            ("*a*b*c", "xxaybzzc", true),
            ("*a*b*c", "xxaybzzcd", false),
            ("?.conf", "a.conf", true),
            ("?.conf", ".conf", false),
            ("*.[0-9]", "log.7", true),
            ("*.[!0-9]", "log.7", false),
            ("[]x]", "]", true),
            ("[a", "[a", true),
            ("[a-]", "-", true),
        ] {
            assert_eq!(matches(glob.as_bytes(), name.as_bytes()), expected, "{glob} {name}");
        }
    }

    #[test]
    fn a_pattern_that_could_lead_anywhere_is_refused() {
        for text in ["", "/", "etc/x", "/etc/../x", "/etc//x", "/**", "/*/x", "/a/**/**/b", "~", "~/"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert_eq!(Pattern::parse("/etc/x").unwrap().literal(), Some(Path::new("/etc/x")));
        assert_eq!(Pattern::parse("/var/log/**").unwrap().parts().len(), 4);
    }

    proptest! {
        #[test]
        fn any_pattern_and_any_name_are_answered(glob in any::<Vec<u8>>(), name in any::<Vec<u8>>()) {
            matches(&glob, &name);
        }

        #[test]
        fn a_name_matches_itself_and_every_cut_of_it_with_a_star(name in "[a-z.]{0,12}", at in 0usize..13) {
            let at = at.min(name.len());
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
            let starred = format!("{}*{}", &name[..at], &name[at..]);
            prop_assert!(matches(starred.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_text_is_a_pattern_or_refused(text in ".{0,40}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert_eq!(pattern.as_str(), text);
            }
        }
    }
}

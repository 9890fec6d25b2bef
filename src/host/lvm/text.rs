//! The text in which LVM describes a volume group: sections, and values that know where they stand.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, bail};

/// Sections in sections; LVM itself has four levels.
const DEEPEST: usize = 8;

/// A section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) values: BTreeMap<String, Value>,
    /// In the order of the text.
    pub(super) sections: Vec<(String, Section)>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A string, and where in the text it stands, without its quotes.
    Text(String, Range<usize>),
    /// A number, and where in the text it stands.
    Number(u64, Range<usize>),
    /// Several of them.
    List(Vec<Value>),
}

impl Section {
    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        self.sections.iter().find(|(found, _)| found == name).map(|(_, section)| section)
    }

    /// What is in the section of that name; nothing if there is none.
    pub(super) fn within(&self, name: &str) -> &[(String, Self)] {
        self.section(name).map_or(&[], |section| &section.sections)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text, _) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<u64> {
        match self.values.get(name) {
            Some(Value::Number(number, _)) => Ok(*number),
            _ => bail!("'{name}' is no number in it"),
        }
    }

    pub(super) fn list(&self, name: &str) -> &[Value] {
        match self.values.get(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Where a value stands.
    pub(super) fn place(&self, name: &str) -> Result<Range<usize>> {
        match self.values.get(name) {
            Some(Value::Text(_, place) | Value::Number(_, place)) => Ok(place.clone()),
            _ => bail!("it has no '{name}'"),
        }
    }
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Section> {
    let mut reader = Reader { text, at: 0 };
    let top = reader.section(0)?;
    match reader.next()? {
        None => Ok(top),
        Some(_) => bail!("a section ends at {} that did not begin", reader.at),
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    /// The first byte of what comes next, blanks and comments passed over.
    fn next(&mut self) -> Result<Option<u8>> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return Ok(trimmed.bytes().next());
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.next()? != Some(byte) {
            bail!("'{}' is missing at {}", char::from(byte), self.at);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self) -> Result<&'t str> {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_.+-/".contains(c);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 {
            bail!("a name is missing at {}", self.at);
        }
        self.at += end;
        Ok(&rest[..end])
    }

    /// Up to the end of the text, or the brace that closes it, which is left.
    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > DEEPEST {
            bail!("its sections are deeper than {DEEPEST}");
        }
        let mut section = Section::default();
        while let Some(byte) = self.next()?.filter(|byte| *byte != b'}') {
            // A name may be quoted where it could be taken for something else.
            let name = if byte == b'"' { self.quoted()?.0 } else { self.word().map(str::to_owned)? };
            match self.next()? {
                Some(b'{') => {
                    self.at += 1;
                    let inner = self.section(depth + 1)?;
                    self.expect(b'}')?;
                    section.sections.push((name, inner));
                }
                _ => {
                    self.expect(b'=')?;
                    let value = self.value(depth)?;
                    section.values.insert(name, value);
                }
            }
        }
        Ok(section)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        match self.next()? {
            Some(b'"') => self.quoted().map(|(text, place)| Value::Text(text, place)),
            Some(b'[') if depth <= DEEPEST => {
                self.at += 1;
                let mut list = Vec::new();
                while self.next()?.context("a list does not end")? != b']' {
                    list.push(self.value(DEEPEST + 1)?);
                    if self.next()? == Some(b',') {
                        self.at += 1;
                    }
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            _ => {
                let from = self.at;
                let word = self.word()?;
                // Times and sizes; what is negative or broken is nothing that is asked for here.
                Ok(Value::Number(word.parse().unwrap_or(u64::MAX), from..self.at))
            }
        }
    }

    fn quoted(&mut self) -> Result<(String, Range<usize>)> {
        self.at += 1;
        let from = self.at;
        let mut text = String::new();
        let mut chars = self.text[from..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = from + at + 1;
                    return Ok((text, from..from + at));
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        bail!("the string at {from} does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_with_the_places_where_they_stand() {
        let text = "vg {\nid = \"a\\\"b\" # why \"not\"\nseqno = 12\nflags = []\npv { stripes = [\n\"pv0\", 7\n] }\n}\n# end";
        let top = parse(text).unwrap();
        let group = top.section("vg").unwrap();
        assert_eq!(group.text("id"), Some("a\"b"));
        assert_eq!(&text[group.place("seqno").unwrap()], "12");
        assert_eq!(group.list("flags"), []);
        let stripes = group.section("pv").unwrap().list("stripes");
        assert!(matches!(stripes, [Value::Text(name, _), Value::Number(7, _)] if name == "pv0"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z \\[\\]{}=\",#\n\\\\0-9é]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_depth_is_too_much(levels in 0usize..20_000) {
            let _ = parse(&"a{".repeat(levels));
            let _ = parse(&format!("a={}", "[".repeat(levels)));
        }
    }
}

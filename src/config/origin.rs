//! Where a value comes from.

use std::fmt;
use std::sync::Arc;

/// A place in a file, or what else gave a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file; or `--set KEY=VALUE`, `shipped default`, `derived from ...`, where there is no file.
    pub place: Arc<str>,
    /// From 1; 0 where there is no file.
    pub line: u32,
    /// In characters from 1; 0 where there is no file.
    pub column: u32,
}

const SET: &str = "--set";

impl Origin {
    /// Something that is not a file.
    pub fn note(text: impl Into<Arc<str>>) -> Self {
        Self { place: text.into(), line: 0, column: 0 }
    }

    /// The first character of a file.
    pub fn start(file: &Arc<str>) -> Self {
        Self { place: file.clone(), line: 1, column: 1 }
    }

    /// A word of the command line.
    pub fn set(word: &str) -> Self {
        Self::note(format!("{SET} {word}"))
    }

    /// Whether the site's administrator wrote it; a shipped default may speak of what a site does not have.
    pub fn is_sites_own(&self) -> bool {
        self.in_file() || self.place.starts_with(SET)
    }

    /// Whether it is the first character of a file.
    pub fn is_start_of_file(&self) -> bool {
        (self.line, self.column) == (1, 1)
    }

    /// Whether it is a place in a file.
    pub fn in_file(&self) -> bool {
        self.line > 0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.in_file() {
            write!(f, "{}:{}:{}", self.place, self.line, self.column)
        } else {
            f.write_str(&self.place)
        }
    }
}

/// A file's text that tells the line and column of an offset.
#[derive(Debug, Clone)]
pub struct Text {
    file: Arc<str>,
    content: String,
    line_starts: Vec<usize>,
}

impl Text {
    /// The text of a file.
    pub fn new(file: Arc<str>, content: String) -> Self {
        let after_newlines = content.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { file, content, line_starts }
    }

    /// The file's name.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// All of it.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// The place of a byte's offset; an offset behind the end is the end.
    pub fn origin(&self, offset: usize) -> Origin {
        let offset = offset.min(self.content.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        // Counting the bytes that begin a character works within a character, too.
        let before = &self.content.as_bytes()[start..offset];
        let column = before.iter().filter(|b| (**b as i8) >= -0x40).count() + 1;
        Origin { place: self.file.clone(), line: line as u32, column: column as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = Text::new("f".into(), "é = 1\nß x\n".to_owned());
        let at = |offset| (text.origin(offset).line, text.origin(offset).column);
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(3), (1, 3));
        assert_eq!(at(7), (2, 1));
        assert_eq!(at(10), (2, 3));
        assert_eq!(at(99), (3, 1));
    }

    proptest! {
        #[test]
        fn every_offset_has_a_place(content in "[a\né]{0,20}", offset in 0usize..50) {
            let origin = Text::new("f".into(), content).origin(offset);
            prop_assert!(origin.line >= 1 && origin.column >= 1);
        }
    }
}

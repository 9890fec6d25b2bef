//! What was found, for people and for programs.

use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use super::needles::{LeftOut, Sort};
use crate::identity::known::{Class, Known};

/// More findings are counted, not kept.
pub(super) const MOST: usize = 10_000;

/// All that an audit has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Format of the report.
    pub version: u32,
    /// Whether nothing is left of the old identity.
    pub clean: bool,
    /// What is left, by class and path.
    pub findings: Vec<Finding>,
    /// Further findings, of which only the number is known.
    pub more: u64,
    /// Files that nobody can look into without their key, or that are in a form which is not read.
    pub unseen: Vec<Unseen>,
    /// What was not looked for, or not everywhere.
    pub left_out: Vec<LeftOut>,
    /// How much was looked at.
    pub looked_at: Looked,
}

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is the old machine's: it holds a part of its identity.
    Left,
    /// It should not be there, whoever's it is.
    Suspect,
}

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What sort of identity it is.
    pub class: Class,
    /// How sure it is.
    pub verdict: Verdict,
    /// Path inside the filesystem; bytes that are no text are escaped (`\xff`), a backslash is doubled.
    pub path: String,
    /// Where in the file it was found first; none: the file itself, its name, or where a link leads.
    pub place: Option<Place>,
    /// What was found; secrets are never shown.
    pub found: String,
    /// What part of the identity it is, if it is one.
    pub sort: Option<Sort>,
    /// How often it is in the file.
    pub count: u64,
    /// How to set it right.
    pub mend: String,
}

/// Where in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1, if the file is text.
    pub line: Option<u64>,
    /// The byte, from 0; in what the file holds, if that was decoded.
    pub offset: u64,
    /// What it was found inside of: `CERTIFICATE`, `gzip`, `SQLite`.
    pub inside: Option<String>,
}

/// A file that was not looked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// Path inside the filesystem, escaped as in a finding.
    pub path: String,
    /// Why.
    pub why: String,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Looked {
    /// Regular files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Report {
    pub(super) fn new(
        mut findings: Vec<Finding>,
        mut unseen: Vec<Unseen>,
        left_out: Vec<LeftOut>,
        looked_at: Looked,
        further: u64,
    ) -> Self {
        findings.sort_by(|a, b| (&a.path, a.verdict, &a.found).cmp(&(&b.path, b.verdict, &b.found)));
        unseen.sort_by(|a, b| a.path.cmp(&b.path));
        let more = further + findings.len().saturating_sub(MOST) as u64;
        findings.truncate(MOST);
        Self { version: 1, clean: findings.is_empty(), findings, more, unseen, left_out, looked_at }
    }

    /// Takes in what was found beside the filesystem.
    pub fn add(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
        self.clean = self.findings.is_empty();
    }

    /// Gives findings the class and the way to mend of the place where they are, and puts them in order.
    pub(super) fn explain<'k>(&mut self, known: impl Fn(&str) -> Option<&'k Known>) {
        for finding in &mut self.findings {
            if let Some(known) = known(&finding.path) {
                finding.class = known.class;
                finding.mend.clone_from(&known.mend);
            }
        }
        self.findings.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
    }

    /// Paths of the files that hold a private key.
    pub fn private_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.findings.iter().filter(|finding| finding.sort == Some(Sort::PrivateKey));
        keys.map(|finding| finding.path.as_str())
    }

    /// Whether nothing is left of the old identity. What could not be looked into does not count against it.
    pub fn is_clean(&self) -> bool {
        self.clean
    }
}

/// For people: one finding a line, by class, and what was not looked at.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut class = None;
        for finding in &self.findings {
            if class.replace(finding.class) != Some(finding.class) {
                writeln!(f, "{}", finding.class)?;
            }
            writeln!(f, "  {finding}\n      {}", finding.mend)?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        for unseen in &self.unseen {
            writeln!(f, "not looked into: {}: {}", unseen.path, unseen.why)?;
        }
        for left_out in &self.left_out {
            writeln!(f, "'{}': {}", left_out.what, left_out.why)?;
        }
        let Looked { files, bytes } = self.looked_at;
        if self.clean {
            writeln!(
                f,
                "clean: nothing is left of the old identity ({files} files, {} MB)",
                bytes / 1_000_000
            )
        } else {
            let left = self.findings.len() as u64 + self.more;
            writeln!(f, "{left} left of the old identity ({files} files, {} MB)", bytes / 1_000_000)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(place) = &self.place {
            match place.line {
                Some(line) => write!(f, ":{line}")?,
                None => write!(f, " at byte {}", place.offset)?,
            }
            if let Some(inside) = &place.inside {
                write!(f, " ({inside})")?;
            }
        }
        write!(f, ": {}", self.found)?;
        if self.count > 1 {
            write!(f, ", {} times", self.count)?;
        }
        if self.verdict == Verdict::Suspect { f.write_str(" (suspect)") } else { Ok(()) }
    }
}

/// A path as text that says every byte of it: what is no text or would spoil a line is escaped.
pub(super) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                // Such as those that turn the direction of writing would show another path than it is.
                c if c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    text.extend(c.escape_default());
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The class of something found where nothing is known of the place.
pub(super) fn class_of(sort: Sort) -> Class {
    match sort {
        Sort::Name | Sort::ShortName | Sort::Domain => Class::Names,
        Sort::Address | Sort::Mac => Class::Network,
        Sort::MachineId | Sort::Uuid | Sort::Label => Class::Ids,
        Sort::Key => Class::Ssh,
        Sort::Certificate => Class::Certificates,
        Sort::Secret | Sort::PrivateKey => Class::Secrets,
    }
}

/// What can be done about a place that nothing is known of.
pub(super) const MEND: &str =
    "look at it: change it in the guest, or name it in the scrub list of the guest's profile";

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_path_is_shown_in_one_line_whatever_its_bytes_are() {
        let path = Path::new(OsStr::from_bytes(b"/a\nb\\\xff\xc3\xbc\x1b\xe2\x80\xae"));
        assert_eq!(shown(path), "/a\\nb\\\\\\xffü\\u{1b}\\u{202e}");
    }
}

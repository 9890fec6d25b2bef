//! What is wrong with a site's files: all of it at once, each with its place and the next move.

use std::fmt;

use serde::Serialize;

use super::origin::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What.
    pub message: String,
    /// The next move; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// All that is wrong, sorted by file and position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

#[derive(Serialize)]
struct Report {
    version: u32,
    problems: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    file: String,
    line: Option<u32>,
    column: Option<u32>,
    message: String,
    hint: String,
}

impl Problems {
    /// Adds one.
    pub fn add(&mut self, origin: &Origin, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { origin: origin.clone(), message: message.into(), hint: hint.into() });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// In the order that they are told in, each once: a default that is wrong for four guests is one problem.
    pub(crate) fn sorted(mut self) -> Self {
        self.0.sort();
        self.0.dedup();
        self
    }

    /// `{"version":1,"problems":[{"file","line","column","message","hint"}]}`; line and column are null where the
    /// place is not in a file.
    pub fn to_json(&self) -> impl Serialize {
        let row = |p: &Problem| {
            let number = |n: u32| p.origin.in_file().then_some(n);
            Row {
                file: p.origin.place.to_string(),
                line: number(p.origin.line),
                column: number(p.origin.column),
                message: p.message.clone(),
                hint: p.hint.clone(),
            }
        };
        Report { version: 1, problems: self.0.iter().map(row).collect() }
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Self(problems.into_iter().collect())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! How a tree would differ, path by path, for those who want to see it before it does.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// How one path would differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Path inside the guest.
    pub path: PathBuf,
    /// What happens to it.
    pub kind: Kind,
    /// Whether the content is a secret, which is not shown.
    pub secret: bool,
    /// A unified diff of text; what is there and what comes in words, if it is something else.
    pub text: String,
}

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is not there yet.
    Added,
    /// It becomes something else.
    Changed,
    /// It goes.
    Removed,
}

/// A unified diff with two lines around each change, or the lengths of what is no text.
pub fn unified(path: &Path, old: &[u8], new: &[u8]) -> String {
    match (std::str::from_utf8(old), std::str::from_utf8(new)) {
        (Ok(old), Ok(new)) => {
            let name = path.display().to_string();
            let diff = similar::TextDiff::from_lines(old, new);
            diff.unified_diff().context_radius(2).header(&name, &name).to_string()
        }
        _ => format!("{} bytes become {} others\n", old.len(), new.len()),
    }
}

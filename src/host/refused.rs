//! What is not done for safety's sake.

/// Why nothing was done: a sentence, and the next move if there is one. A caller tells it from a failure (exit code 4).
#[derive(Debug)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

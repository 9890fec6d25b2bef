//! Shell variables, parsed and never run.
//!
//! [`parse`] reads what a shell would read from a file of assignments: quotes, escapes, `$VAR`, `${VAR:-default}`,
//! `+=`, `export`, comments. Whatever would run something, look at the machine or depend on the shell's own state is
//! refused with its place and the reason. What is accepted has exactly the values that bash gives it
//! (`env -i LC_ALL=C.UTF-8 bash -c '. FILE'`), and dash where dash knows the syntax; `tests/shell_differential.rs`
//! holds that.
//!
//! ```text
//! cursor   bytes, with backslash-newline taken out
//! word     pieces of a value: literal text and references, quotes resolved
//! ansi     the escapes of $'...'
//! special  variables that the shell itself sets or acts upon
//! script   statements one after the other, evaluated as they come
//! ```

mod ansi;
mod cursor;
mod script;
mod special;
mod word;

pub use script::parse;

/// What a file of assignments comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Each variable once, in the order of its first assignment, with its last value.
    pub variables: Vec<Variable>,
    /// References to variables that nothing above them had set; each gave the empty string, or its default.
    pub unset: Vec<Unset>,
}

impl Script {
    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.variables.iter().find(|v| v.name == name).map(|v| v.value.as_slice())
    }
}

/// A variable after the whole file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value: any bytes but NUL.
    pub value: Vec<u8>,
    /// Offset in bytes of the name in its last assignment.
    pub name_at: usize,
    /// Offset in bytes of the value in its last assignment.
    pub value_at: usize,
    /// Offset in bytes of what stands behind it.
    pub value_end: usize,
}

/// A reference to a variable that had no value and no default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// The variable's name.
    pub name: String,
    /// Offset in bytes of the `$`.
    pub at: usize,
}

/// Why a file is not a plain list of assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Offset in bytes of what is refused.
    pub at: usize,
    /// What it is, and why it is refused.
    pub reason: String,
    /// The next move.
    pub hint: String,
}

impl Refusal {
    fn new(at: usize, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { at, reason: reason.into(), hint: hint.into() }
    }
}

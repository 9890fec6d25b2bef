//! Profiles that a site already has in another form, read as a profile of gridgate's.
//!
//! What comes of it is a file for the site's `profiles/`, with a variable for everything that was said: an administrator takes
//! over from there. Nothing that is read is run.

mod context;
mod lcfg;
mod shell;
mod yaim;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::ValueEnum;

use super::document::{Group, User};
use crate::config::origin::Text;
use crate::config::problem::Problems;
use crate::config::variables::Setting;

pub use context::{Contexts, context};

/// A form that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A profile as LCFG's rdxprof reads it
    LcfgXml,
    /// YAIM's site-info.def, users.conf or groups.conf
    Yaim,
    /// Shell variables
    Shell,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Values by name.
    pub variables: BTreeMap<String, Setting>,
    /// Packages that it names.
    pub packages: Vec<String>,
    /// Users with fixed ids.
    pub users: Vec<User>,
    /// Groups with fixed ids.
    pub groups: Vec<Group>,
}

/// Reads a file, as it is where these contexts are on, which only LCFG knows. Everything that is wrong with it is told with its line.
pub fn import(format: Format, text: &Text, contexts: &Contexts) -> Result<Imported, Problems> {
    let mut problems = Problems::default();
    let mut imported = Imported::default();
    match format {
        Format::LcfgXml => lcfg::read(text, contexts, &mut imported, &mut problems),
        Format::Shell => shell::read(text, &mut imported, &mut problems),
        Format::Yaim => yaim::read(text, &mut imported, &mut problems),
    }
    imported.packages.sort();
    imported.packages.dedup();
    if problems.is_empty() { Ok(imported) } else { Err(problems.sorted()) }
}

/// Takes a value in under a name that templates and shells can have; the first of two that come to one name stays.
fn take(imported: &mut Imported, name: &str, setting: Setting) {
    imported.variables.entry(variable(name)).or_insert(setting);
}

/// The name of a variable that templates and shells can have.
fn variable(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let mut plain: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(60).collect();
    if !plain.starts_with(|c: char| c.is_ascii_lowercase()) {
        plain.insert_str(0, "v_");
    }
    plain
}

/// The text of a profile that says what was read.
pub fn profile(imported: &Imported, from: &str) -> String {
    let mut text = format!("# taken from {}\n", from.escape_debug());
    let _ = writeln!(text, "description = {}", quoted(&format!("taken from {from}")));
    let _ = writeln!(text, "extends = \"base\"");
    if !imported.packages.is_empty() {
        let packages: Vec<String> = imported.packages.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(text, "packages = [{}]", packages.join(", "));
    }
    for (name, setting) in &imported.variables {
        let (kind, value) = match setting {
            Setting::Flag(flag) => ("flag", flag.to_string()),
            Setting::Integer(number) => ("integer", number.to_string()),
            Setting::Text(text) => ("text", quoted(text)),
            Setting::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                ("list", format!("[{}]", texts.join(", ")))
            }
        };
        let _ = writeln!(text, "\n[variables.{name}]\ntype = \"{kind}\"\ndefault = {value}");
    }
    for group in &imported.groups {
        let _ = writeln!(text, "\n[[group]]\nname = {}\ngid = {}", quoted(&group.name), group.gid);
    }
    for user in &imported.users {
        let _ = writeln!(text, "\n[[user]]\nname = {}\nuid = {}", quoted(&user.name), user.uid);
        let _ = writeln!(text, "group = {}\nhome = {}", quoted(&user.group), quoted(&user.home));
    }
    text
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

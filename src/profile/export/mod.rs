//! A compiled profile in the forms that other tools read. Exports are pure: the same document gives the same bytes.

mod lcfg;
mod quattor;
pub mod resources;
mod shell;
mod xml;
mod yaim;

#[cfg(test)]
mod tests;

use clap::ValueEnum;

use super::document::Document;
use crate::config::site::Site;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The document itself
    Json,
    /// A profile as LCFG's rdxprof reads it
    LcfgXml,
    /// A profile as Quattor's CCM reads it, as XML
    QuattorXml,
    /// A profile as Quattor's CCM reads it, as JSON
    QuattorJson,
    /// Shell variables, as LCFG's components read them
    Shell,
    /// YAIM's site-info.def, users.conf and groups.conf
    Yaim,
}

/// A file of an export; most formats have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What it is called.
    pub name: String,
    /// All of it.
    pub content: String,
}

/// The forms that a guest's own compiler may want to read, by the names of their files.
pub fn for_compilers(document: &Document) -> [(&'static str, String); 3] {
    [
        ("profile.xml", lcfg::profile(document)),
        ("profile.sh", shell::variables(document)),
        ("quattor.json", quattor::json(document)),
    ]
}

/// Writes a guest's document in that form. YAIM speaks of the whole site: `documents` are those of all its guests.
pub fn export(format: Format, site: &Site, document: &Document, documents: &[Document]) -> Vec<Exported> {
    let one = |ending: &str, content: String| {
        vec![Exported { name: format!("{}.{ending}", document.guest), content }]
    };
    match format {
        Format::Json => one("json", document.text()),
        Format::LcfgXml => one("xml", lcfg::profile(document)),
        Format::QuattorXml => one("xml", quattor::xml(document)),
        Format::QuattorJson => one("json", quattor::json(document)),
        Format::Shell => one("sh", shell::variables(document)),
        Format::Yaim => yaim::files(site, documents),
    }
}

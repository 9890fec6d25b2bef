//! Templates: what guests of a kind share, in `templates/NAME.toml` or `.conf`, taken in by `extends`.

use std::collections::BTreeMap;
use std::path::Path;

use super::directory::{self, Found};
use super::keys::{GUEST, Scope};
use super::origin::Text;
use super::problem::Problems;
use super::tree::{Entry, Table};
use super::{schema, shell_file, suggest, toml_file};

/// The templates that guests use, directly or through another one.
#[derive(Debug, Default)]
pub struct Templates(BTreeMap<String, Option<Table>>);

impl Templates {
    /// Reads all templates that are reached from these `extends`.
    pub fn read<'a>(site: &Path, extends: impl Iterator<Item = &'a Entry>, problems: &mut Problems) -> Self {
        let dir = site.join("templates");
        let mut templates = Self::default();
        let mut wanted: Vec<Entry> = extends.cloned().collect();
        while let Some(entry) = wanted.pop() {
            let Some(name) = entry.value.text().filter(|name| super::checks::label(name).is_ok()) else {
                continue;
            };
            if let Some(known) = templates.0.get(name) {
                if known.is_none()
                    && !matches!(directory::find(&dir, name, &mut Problems::default()), Found::File(..))
                {
                    missing(&dir, name, &entry, problems);
                }
                continue;
            }
            let table = match directory::find(&dir, name, problems) {
                Found::Nothing => {
                    missing(&dir, name, &entry, problems);
                    None
                }
                Found::File(_, text) => text.and_then(|text| guest_table(&text, Scope::Template, problems)),
            };
            wanted.extend(table.as_ref().and_then(|t| t.get("extends")).cloned());
            templates.0.insert(name.to_owned(), table);
        }
        templates
    }

    /// The templates from the one that is extended last to the one that is named here; a circle is told and cut.
    pub fn chain(&self, extends: Option<&Entry>, problems: &mut Problems) -> Vec<&Table> {
        let mut names: Vec<&str> = Vec::new();
        let mut tables = Vec::new();
        let mut next = extends;
        while let Some(entry) = next {
            let Some(name) = entry.value.text() else { break };
            if let Some(at) = names.iter().position(|n| *n == name) {
                let circle: Vec<&str> = names[at..].iter().copied().chain([name]).collect();
                let message = format!("templates extend each other in a circle: {}", circle.join(" -> "));
                problems.add(&entry.value.origin, message, "take one of these 'extends' away");
                break;
            }
            names.push(name);
            let Some(Some(table)) = self.0.get(name) else { break };
            tables.push(table);
            next = table.get("extends");
        }
        tables.reverse();
        tables
    }
}

fn missing(dir: &Path, name: &str, entry: &Entry, problems: &mut Problems) {
    let stems = directory::stems(dir, &mut Problems::default());
    let hint = suggest::hint(name, stems.iter().map(String::as_str), "templates in the site");
    problems.add(&entry.value.origin, format!("there is no template '{name}'"), hint);
}

/// Reads and checks a guest's file or a template, in either form.
pub fn guest_table(text: &Text, place: Scope, problems: &mut Problems) -> Option<Table> {
    let table = if text.file().ends_with(".conf") {
        shell_file::guest(text, problems)?
    } else {
        toml_file::read(text, problems)?
    };
    schema::check(&table, GUEST, place, problems);
    Some(table)
}

//! LCFG's XML profiles. Their root element wraps `<lcfg>`; prefixes of attributes are read by their namespace or, as LCFG's own
//! reader does, by the letters `cfg:`.

use std::collections::BTreeMap;

use roxmltree::{Document, Node, ParsingOptions};

use super::context::{Contexts, priority};
use super::{Imported, variable};
use crate::config::origin::{Origin, Text};
use crate::config::problem::Problems;
use crate::config::variables::Setting;

/// Profiles nest five deep; the reader of XML calls itself once a level.
const DEEPEST: usize = 64;

pub(super) fn read(text: &Text, contexts: &Contexts, imported: &mut Imported, problems: &mut Problems) {
    if deepest(text.content()) > DEEPEST {
        problems.add(&Origin::start(text.file()), "its elements nest deeper than any profile's", "");
        return;
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: 1_000_000, ..ParsingOptions::default() };
    let document = match Document::parse_with_options(text.content(), options) {
        Ok(document) => document,
        Err(error) => {
            let at = error.pos();
            let origin = Origin { place: text.file().clone(), line: at.row, column: at.col };
            let message = error.to_string().to_lowercase();
            let message = message.split(" at ").next().unwrap_or_default().to_owned();
            problems.add(&origin, message, "an XML profile begins with <?xml ...> and has one root element");
            return;
        }
    };
    let lcfg = document.descendants().find(|node| node.has_tag_name_of("lcfg"));
    let Some(lcfg) = lcfg else {
        let origin = Origin::start(text.file());
        problems.add(&origin, "there is no <lcfg> element", "LCFG's profiles wrap everything in one");
        return;
    };
    let mut reader = Reader { text, contexts, problems, best: BTreeMap::new() };
    for components in lcfg.children().filter(|node| node.has_tag_name_of("components")) {
        for component in components.children().filter(Node::is_element) {
            for one in component.children().filter(Node::is_element) {
                reader.resource(component.tag_name().name(), &one);
            }
        }
    }
    for packages in lcfg.children().filter(|node| node.has_tag_name_of("packages")) {
        for package in packages.children().filter(|node| node.has_tag_name_of("package")) {
            imported.packages.extend(reader.package(&package));
        }
    }
    let best = reader.best.into_iter().map(|(name, (_, setting))| (name, setting));
    imported.variables.extend(best);
}

struct Reader<'r> {
    text: &'r Text,
    contexts: &'r Contexts,
    problems: &'r mut Problems,
    /// Values by the names of variables, each with its priority.
    best: BTreeMap<String, (i64, Setting)>,
}

impl Reader<'_> {
    /// The priority that its context gives it; `None` if it does not hold.
    fn priority(&mut self, node: &Node<'_, '_>) -> Option<i64> {
        let expression = attribute(node, "context").unwrap_or_default();
        match priority(&expression, self.contexts) {
            Ok(found) => Some(found).filter(|found| *found >= 0),
            Err(why) => {
                let message = format!("context '{}': {why}", expression.escape_debug());
                self.problems.add(&self.text.origin(node.range().start), message, "");
                None
            }
        }
    }

    /// Of two values with one priority the first stays.
    fn take(&mut self, name: &str, priority: i64, setting: Setting) {
        let name = variable(name);
        if self.best.get(&name).is_none_or(|(before, _)| *before < priority) {
            self.best.insert(name, (priority, setting));
        }
    }

    fn package(&mut self, package: &Node<'_, '_>) -> Option<String> {
        self.priority(package)?;
        let name = package.children().find(|node| node.has_tag_name_of("name"));
        let name = name.and_then(|name| name.text()).map(str::trim).unwrap_or_default();
        if let Err(why) = crate::profile::text::package(name) {
            let origin = self.text.origin(package.range().start);
            self.problems.add(&origin, format!("package '{}' {why}", name.escape_debug()), "");
            return None;
        }
        Some(name.to_owned())
    }

    fn resource(&mut self, component: &str, node: &Node<'_, '_>) {
        let Some(priority) = self.priority(node) else { return };
        let name = plain(node.tag_name().name());
        let mut records: Vec<Node<'_, '_>> = node
            .children()
            .filter(|child| child.is_element() && child.tag_name().name().ends_with("_RECORD"))
            .collect();
        let full = format!("{component}_{name}");
        if !records.is_empty() {
            records.retain(|record| self.priority(record).is_some());
            let tags: Vec<String> = records.iter().filter_map(|record| attribute(record, "name")).collect();
            self.take(&full, priority, Setting::List(tags));
            for record in &records {
                let Some(tag) = attribute(record, "name") else { continue };
                for field in record.children().filter(Node::is_element) {
                    let Some(own) = self.priority(&field) else { continue };
                    let value = Setting::Text(content(&field));
                    let name = format!("{component}_{}_{tag}", plain(field.tag_name().name()));
                    self.take(&name, own.max(priority), value);
                }
            }
            return;
        }
        let value = content(node);
        let setting = match attribute(node, "type").as_deref() {
            Some("integer") => value.trim().parse().map_or(Setting::Text(value), Setting::Integer),
            Some("boolean") => Setting::Flag(matches!(value.trim(), "yes" | "true" | "on" | "1")),
            Some("list") => Setting::List(value.split_whitespace().map(str::to_owned).collect()),
            _ => Setting::Text(value),
        };
        self.take(&full, priority, setting);
    }
}

/// A tag that begins with a digit or `_` has one more `_` in front.
fn plain(tag: &str) -> &str {
    match tag.strip_prefix('_') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '_') => rest,
        _ => tag,
    }
}

fn attribute(node: &Node<'_, '_>, name: &str) -> Option<String> {
    node.attributes().find(|attribute| attribute.name() == name).map(|attribute| attribute.value().to_owned())
}

fn content(node: &Node<'_, '_>) -> String {
    node.children().filter_map(|child| child.text()).collect()
}

trait Named {
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl Named for Node<'_, '_> {
    /// Whatever namespace it is in.
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

/// At most as deep as this: every opening tag counts one, every closing one takes it back.
fn deepest(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut opens, mut before) = (false, 0u8);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => match text.as_bytes().get(at + 1) {
                Some(b'/') => (depth, opens) = (depth.saturating_sub(1), false),
                Some(b'!' | b'?') => opens = false,
                // Until it ends it counts as one that stays open.
                _ => (depth, opens) = (depth + 1, true),
            },
            b'>' if opens => {
                depth -= usize::from(before == b'/');
                opens = false;
            }
            _ => {}
        }
        deepest = deepest.max(depth);
        before = byte;
    }
    deepest
}
